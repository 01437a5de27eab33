"""The broker's settings: defaults that hold together, and errors that name the field."""

import dataclasses

import pytest

from devicetwin.broker.config import BrokerConfig


def test_defaults_are_valid_and_local() -> None:
    config = BrokerConfig()
    assert (config.host, config.port) == ("127.0.0.1", 1883)
    assert config.durable_client_id == ""


def test_largest_honest_burst_fits_in_the_write_bound() -> None:
    config = BrokerConfig()
    burst = config.max_retained_bytes + config.max_inflight * config.max_packet_bytes
    assert burst < config.max_write_bytes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("connect_timeout_s", 0.0),
        ("max_connections", 0),
        ("max_sessions", 10),
        ("max_subscriptions", 0),
        ("max_packet_bytes", 15),
        ("max_packet_bytes", 1 << 28),
        ("max_inflight", 0),
        ("max_inflight", 65536),
        ("max_queued", 0),
        ("max_queued_bytes", 0),
        ("max_retained", 0),
        ("max_retained_bytes", 0),
        ("write_high_bytes", 0),
        ("max_write_bytes", 1),
        ("durable_filters", ("a",)),
    ],
)
def test_nonsense_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(BrokerConfig(), **{field: value})  # type: ignore[arg-type]


def test_bad_durable_filter_is_shown() -> None:
    with pytest.raises(ValueError, match="durable_filters: 'a#'"):
        BrokerConfig(durable_client_id="twin", durable_filters=("a/#", "a#"))
