"""What the local API shows of a twin."""

from typing import Any

from apimachinery.devices import PropertyModel, PropertyType
from apimachinery.keys import ObjectKey
from apimachinery.objects import lookup
from apimachinery.resources import DEVICES
from devicetwin.twin import Desired, Origin, Property, Reported, Twin
from devicetwin.view import EdgeWish, status_of, view_of

KEY = ObjectKey(DEVICES, "default", "thermo")
INT = PropertyModel("x", PropertyType.INT, True, "", "", "")


def twin(state: str = "online", **properties: Property) -> Twin:
    return Twin(KEY, "u", properties, state, "2026-01-01T00:00:00Z" if state else "", versions=9, generation=3)


def condition(status: Any, kind: str) -> tuple[str, str]:
    (found,) = [each for each in status["conditions"] if each["type"] == kind]
    return found["status"], found["reason"]


def test_a_property_says_what_is_wished_what_is_and_how_far_it_came() -> None:
    met = Property(Desired("22", 4, 70), Reported("22", 1, 4, 90, 80), declared=True, type="int", model=INT)
    status = status_of(twin(setpoint=met))
    assert status["twins"] == [
        {
            "propertyName": "setpoint",
            "reported": {
                "value": "22",
                "metadata": {"timestamp": "90", "type": "int", "deviceTimestamp": "80", "answers": "4"},
            },
            "observedDesired": {"value": "22", "metadata": {"timestamp": "70", "version": "4", "generation": "3"}},
            "desired": {"value": "22"},
            "sync": "synced",
        }
    ]
    assert (status["syncedProperties"], status["state"], status["lastOnlineTime"]) == (
        "1/1",
        "online",
        "2026-01-01T00:00:00Z",
    )
    assert condition(status, "Synced") == ("True", "InStep")
    assert condition(status, "Online") == ("True", "Online")


def test_pending_rejected_and_stale_are_told_apart() -> None:
    status = status_of(
        twin(
            "offline",
            a=Property(Desired("1", 1), declared=True, model=INT),
            b=Property(Desired("9", 2, problem="b is read-only"), declared=True, model=INT),
            c=Property(reported=Reported("5", 1, None, 90, None, True), declared=True, model=INT),
            hidden=Property(reported=Reported("5", 1, None, 90)),
            d=Property(Desired("7", 3, refusal="the child lock is on"), declared=True, model=INT),
            silent=Property(declared=True, model=INT),
        )
    )
    twins = {each["propertyName"]: each for each in status["twins"]}
    assert set(twins) == {"a", "b", "c", "d"}
    assert [twins[name].get("sync") for name in "abcd"] == ["pending", "rejected", None, "rejected"]
    assert [twins[name]["reason"] for name in "bd"] == ["b is read-only", "the child lock is on"]
    assert lookup(twins["c"], "reported.metadata.stale") == "true"
    assert status["syncedProperties"] == "0/3"
    assert condition(status, "Synced") == ("False", "Rejected")
    assert condition(status, "Valid") == ("False", "DesiredInvalid")
    assert condition(status, "Online") == ("False", "Offline")


def test_nothing_wished_and_nothing_heard_is_unknown_and_not_false() -> None:
    status = status_of(twin(""))
    assert condition(status, "Synced") == ("Unknown", "NothingDesired")
    assert condition(status, "Online") == ("Unknown", "NotReported")
    assert "state" not in status
    assert condition(status_of(twin("unknown")), "Online") == ("Unknown", "OtherState")


def test_wishes_of_the_edge_are_named_with_their_versions() -> None:
    view = view_of(
        twin(
            mine=Property(Desired("1", 5, 0, Origin.EDGE), declared=True),
            back=Property(Desired("", 6, 0, Origin.EDGE), declared=True),
            theirs=Property(Desired("1", 4), declared=True),
        )
    )
    assert view.edge_wishes == {"mine": EdgeWish("1", 5), "back": EdgeWish("", 6)}
    assert view.versions == {"mine": 5, "back": 6, "theirs": 4}
    (shown,) = [each for each in view.status["twins"] if each["propertyName"] == "mine"]
    assert lookup(shown, "observedDesired.metadata.origin") == "edge"
