"""Ages and the rows of built-in kinds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.objects import JSON
from apiserver.columns import BUILT_IN, age, duration

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (185, "3m5s"),
        (10 * MINUTE, "10m"),
        (179 * MINUTE, "179m"),
        (3 * HOUR, "3h"),
        (4 * HOUR + 2 * MINUTE, "4h2m"),
        (30 * HOUR, "30h"),
        (2 * DAY, "2d"),
        (3 * DAY + 4 * HOUR, "3d4h"),
        (20 * DAY, "20d"),
        (2 * YEAR + 50 * DAY, "2y50d"),
        (9 * YEAR, "9y"),
    ],
)
def test_durations_read_as_kubectl_writes_them(seconds: int, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("timestamp", [None, "", "yesterday", 5, "9999-99-99T00:00:00Z"])
def test_an_age_that_cannot_be_told_is_unknown(timestamp: JSON) -> None:
    assert age(timestamp, NOW) == "<unknown>"


def test_an_age_counts_from_the_timestamp() -> None:
    assert age("2027-01-15T08:00:00Z", NOW + 60) == "60s"


def row(group: str, plural: str, body: dict[str, JSON]) -> dict[str, JSON]:
    layout = BUILT_IN[group, plural]
    cells = layout.cells(body, NOW)
    assert len(cells) == len(layout.columns)
    return {column.name: cell for column, cell in zip(layout.columns, cells, strict=True)}


def test_a_node_shows_its_state_roles_and_addresses() -> None:
    node = {
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/edge": "", "x": "y"}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "False"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "InternalIP", "address": "::1"}],
            "nodeInfo": {"kubeletVersion": "v1"},
        },
    }
    cells = row("", "nodes", node)
    assert cells["Status"] == "NotReady,SchedulingDisabled"
    assert (cells["Roles"], cells["Internal-IP"], cells["Version"]) == ("edge", "10.0.0.1", "v1")


def test_a_pod_shows_why_it_waits() -> None:
    pod = {
        "metadata": {"name": "p"},
        "spec": {"containers": [{}, {}], "nodeName": "n"},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {"ready": True, "restartCount": 2},
                {"ready": False, "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
            ],
        },
    }
    cells = row("", "pods", pod)
    assert (cells["Ready"], cells["Status"], cells["Restarts"], cells["Node"]) == ("1/2", "CrashLoopBackOff", "3", "n")


def test_a_service_shows_its_ports_and_selector() -> None:
    ports = [{"port": 80, "nodePort": 30000}, {"port": 53, "protocol": "UDP"}]
    cells = row("", "services", {"spec": {"ports": ports, "selector": {"b": "2", "a": "1"}}})
    assert (cells["Port(s)"], cells["Selector"]) == ("80:30000/TCP,53/UDP", "a=1,b=2")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda value: st.lists(value, max_size=2)
    | st.dictionaries(
        st.sampled_from(
            ["metadata", "name", "labels", "spec", "status", "conditions", "type", "containers", "containerStatuses",
             "ports", "port", "selector", "addresses", "data", "nodeInfo", "creationTimestamp", "lastTimestamp"]
        ),
        value,
        max_size=4,
    ),
)  # fmt: skip


@given(
    st.sampled_from(sorted(BUILT_IN)),
    st.dictionaries(st.sampled_from(["metadata", "spec", "status", "data"]), JSON_VALUES),
)
def test_any_body_gets_its_cells(place: tuple[str, str], body: dict[str, JSON]) -> None:
    row(*place, body)
