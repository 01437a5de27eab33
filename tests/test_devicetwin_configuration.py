"""The retained configuration: one encoding per device, everything round-trips, what is wrong is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicetwin.configuration import DeviceConfig, PropertyConfig, ProtocolConfig
from devicetwin.payloads import MessageError
from devicetwin.topics import DeviceId

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
LEVELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
DATA = st.dictionaries(TEXT, st.integers() | TEXT | st.lists(st.booleans(), max_size=2), max_size=3)
PROTOCOLS = st.builds(ProtocolConfig, TEXT, DATA)
PROPERTIES = st.builds(
    PropertyConfig,
    name=TEXT,
    type=st.sampled_from(["INT", "FLOAT", ""]),
    writable=st.booleans(),
    minimum=TEXT,
    maximum=TEXT,
    unit=TEXT,
    collect_cycle_ms=st.integers(0, 10**6),
    report_cycle_ms=st.integers(0, 10**6),
    report_to_cloud=st.booleans(),
    visitors=PROTOCOLS,
    push_method=st.none() | DATA,
)


@given(
    st.builds(
        DeviceConfig,
        id=st.builds(DeviceId, LEVELS, LEVELS),
        node=TEXT,
        model=TEXT,
        protocol=PROTOCOLS,
        properties=st.lists(PROPERTIES, max_size=3).map(tuple),
        problem=TEXT,
    )
)
def test_a_configuration_survives_the_wire(config: DeviceConfig) -> None:
    assert DeviceConfig.decode(config.encode()) == config


def test_its_bytes_are_these() -> None:
    config = DeviceConfig(
        DeviceId("default", "t"),
        "edge1",
        "m",
        ProtocolConfig("simulated", {"seed": 7}),
        (PropertyConfig("p", "INT", True, "1", "9", "C", 500, 1000, True),),
    )
    assert config.encode() == (
        b'{"id":"default/t","node":"edge1","model":"m","protocol":{"protocolName":"simulated","configData":{"seed":7}},'
        b'"properties":[{"name":"p","type":"INT","accessMode":"ReadWrite","minimum":"1","maximum":"9","unit":"C",'
        b'"collectCycle":500,"reportCycle":1000,"reportToCloud":true,'
        b'"visitors":{"protocolName":"","configData":{}}}]}'
    )


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b'{"id":"one-level"}', b'{"id":"a/b","properties":[{}]}', b'{"id":"a/b","protocol":{"configData":5}}'],
)
def test_what_is_no_configuration_is_refused(payload: bytes) -> None:
    with pytest.raises(MessageError, match="not a device's configuration"):
        DeviceConfig.decode(payload)
