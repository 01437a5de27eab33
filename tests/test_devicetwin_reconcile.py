"""The promises of devicetwin.reconcile: examples for each decision, Hypothesis for what must hold always."""

import json
from collections.abc import Mapping
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.devices import PropertyModel, PropertyReport, PropertyType
from apimachinery.keys import ObjectKey
from apimachinery.kubeevents import EventType
from apimachinery.objects import canonical
from apimachinery.resources import DEVICES
from devicetwin.declaration import Declaration
from devicetwin.messages import Channel, TwinEntry, Value
from devicetwin.reconcile import MAX_UNDECLARED, step
from devicetwin.steps import (
    Asked,
    Claimed,
    Connected,
    CountMissed,
    Declared,
    Effect,
    Elapsed,
    Event,
    Forget,
    PublishDelta,
    PublishDocument,
    PublishResult,
    PublishState,
    QueueReport,
    Record,
    Refuse,
    Removed,
    Save,
    StateReported,
    Tell,
    Updated,
)
from devicetwin.twin import Origin, Twin

KEY = ObjectKey(DEVICES, "default", "thermo")
MODELS = {
    "temperature": PropertyModel("temperature", PropertyType.FLOAT, False, "", "", "C"),
    "setpoint": PropertyModel("setpoint", PropertyType.INT, True, "5", "35", "C"),
    "mode": PropertyModel("mode", PropertyType.STRING, True, "", "", ""),
}


def declare(wishes: Mapping[str, str], models: Mapping[str, PropertyModel] | None, uid: str) -> Declared:
    names = {"temperature": "", "setpoint": "", "mode": ""}
    return Declared(KEY, Declaration(uid, "thermostat", models, {**names, **wishes}))


def declared(uid: str = "u1", models: Mapping[str, PropertyModel] | None = MODELS, **wishes: str) -> Declared:
    return declare(wishes, models, uid)


def mortal(after_ms: int) -> Declared:
    """Declared, and its readings count so long."""
    event = declared()
    return event._replace(declaration=event.declaration._replace(stale_after_ms=dict.fromkeys(MODELS, after_ms)))


def reading(name: str, value: str, answers: int | None = None, event_id: str = "e") -> Updated:
    return Updated(KEY, event_id, {name: TwinEntry(actual=Value(value), type="int", expected_version=answers)})


def wish(name: str, value: str, base: int | None = None) -> Updated:
    return Updated(KEY, "w", {name: TwinEntry(expected=Value(value), expected_version=base)})


def run(*events: Event, twin: Twin | None = None, now_ms: int = 1000) -> tuple[Twin, list[Effect]]:
    """The twin after all events, and the effects of the last one."""
    effects: tuple[Effect, ...] = ()
    for event in events:
        twin, effects = step(twin, event, now_ms)
    assert twin is not None
    return twin, list(effects)


def reports(effects: list[Effect]) -> dict[str, PropertyReport]:
    return {
        each.field.removeprefix("property/"): PropertyReport.from_json(each.value)
        for each in effects
        if isinstance(each, QueueReport) and each.field.startswith("property/")
    }


def deltas(effects: list[Effect]) -> list[Mapping[str, str]]:
    return [each.delta for each in effects if isinstance(each, PublishDelta)]


# --- the report cycle


def cyclic(**cycles_ms: int) -> Declared:
    plain = declared()
    return plain._replace(declaration=plain.declaration._replace(cycles_ms=cycles_ms))


def test_an_equal_reading_goes_up_when_the_report_cycle_asks_and_not_before() -> None:
    twin, effects = run(cyclic(temperature=10_000), reading("temperature", "21"), now_ms=1000)
    assert reports(effects)["temperature"].observed_at_ms == 1000
    for now_ms, expected in ((10_999, []), (11_000, [11_000]), (11_001, []), (21_500, [21_500])):
        twin, effects = run(reading("temperature", "21"), twin=twin, now_ms=now_ms)
        assert [each.observed_at_ms for each in reports(effects).values()] == expected
        assert (Save() in effects) is bool(expected), "what was told is remembered over a restart"


def test_changes_within_a_report_cycle_go_up_once_at_its_end_the_last_value_also_after_a_restart() -> None:
    twin, effects = run(cyclic(temperature=10_000), reading("temperature", "21"), now_ms=1000)
    assert reports(effects)["temperature"].value == "21", "the first at once"
    for value in ("22", "23"):
        twin, effects = run(reading("temperature", value), twin=twin, now_ms=9000)
        assert reports(effects) == {}
        assert Save() in effects
    twin = run(cyclic(temperature=10_000), twin=Twin.from_json(KEY, twin.to_json()), now_ms=9500)[0]
    assert twin.properties["temperature"].release_at_ms() == 11_000
    twin, effects = run(Elapsed(KEY, 0), twin=twin, now_ms=10_999)
    assert effects == []
    twin, effects = run(Elapsed(KEY, 0), twin=twin, now_ms=11_000)
    assert (reports(effects)["temperature"].value, effects[0]) == ("23", Save())
    assert twin.properties["temperature"].release_at_ms() is None
    assert run(Elapsed(KEY, 0), twin=twin, now_ms=99_000)[1] == [], "a silent device is not spoken for"


@pytest.mark.parametrize("answers", [None, 1])
def test_an_answer_to_a_wish_waits_for_no_report_cycle(answers: int | None) -> None:
    before = cyclic(setpoint=10_000)
    wished = declared(setpoint="22")
    wished = wished._replace(declaration=wished.declaration._replace(cycles_ms={"setpoint": 10_000}))
    twin, _ = run(before, reading("setpoint", "20"), now_ms=1000)
    twin, effects = run(reading("setpoint", "21"), twin=twin, now_ms=2000)
    assert reports(effects) == {}
    twin, effects = run(wished, twin=twin, now_ms=3000)
    assert reports(effects)["setpoint"].value == "21", "what was held back goes along with what is not"
    twin, effects = run(reading("setpoint", "22", answers=answers), twin=twin, now_ms=4000)
    assert reports(effects)["setpoint"].value == "22"


@given(st.lists(st.tuples(st.integers(0, 3000), st.sampled_from(["20", "21", "22"])), min_size=1, max_size=20))
def test_of_any_readings_one_goes_up_in_a_cycle_and_the_last_always(readings: list[tuple[int, str]]) -> None:
    twin, _ = run(cyclic(temperature=1000))
    told: list[tuple[int, str | None]] = []
    now_ms = 10_000
    for wait_ms, value in readings:
        # As the shell does: the deadline first, wherever it lies before the next reading.
        due_ms = twin.properties["temperature"].release_at_ms()
        for at_ms, event in ((due_ms, Elapsed(KEY, 0)), (now_ms + wait_ms, reading("temperature", value))):
            if at_ms is not None and at_ms <= now_ms + wait_ms:
                twin, effects = run(event, twin=twin, now_ms=at_ms)
                told += [(at_ms, each.value) for each in reports(effects).values()]
        now_ms += wait_ms
    if (due_ms := twin.properties["temperature"].release_at_ms()) is not None:
        twin, effects = run(Elapsed(KEY, 0), twin=twin, now_ms=due_ms)
        told += [(due_ms, each.value) for each in reports(effects).values()]
    times = [at_ms for at_ms, _ in told]
    assert all(late - early >= 1000 for early, late in pairwise(times))
    assert told[-1][1] == readings[-1][1]


def test_a_report_cycle_that_is_taken_away_holds_nothing_back() -> None:
    twin, _ = run(cyclic(temperature=10_000), reading("temperature", "21"), reading("temperature", "22"), now_ms=1000)
    _, effects = run(cyclic(), twin=twin, now_ms=2000)
    assert reports(effects)["temperature"].value == "22"


def test_without_a_report_cycle_and_without_a_reading_nothing_is_repeated() -> None:
    twin, _ = run(cyclic(temperature=10_000), reading("temperature", "21"), reading("mode", "auto"), now_ms=1000)
    for event in (reading("mode", "auto"), cyclic(temperature=10_000), Connected(KEY)):
        twin, effects = run(event, twin=twin, now_ms=99_000)
        assert reports(effects) == {}


def test_a_clock_that_was_set_back_does_not_silence_a_device() -> None:
    twin, _ = run(cyclic(temperature=10_000), reading("temperature", "21"), now_ms=10**12)
    twin, effects = run(reading("temperature", "21"), twin=twin, now_ms=5000)
    assert reports(effects)["temperature"].observed_at_ms == 5000
    _, effects = run(reading("temperature", "21"), twin=twin, now_ms=6000)
    assert reports(effects) == {}


# --- the wish


def test_a_wish_of_the_cloud_is_published_and_its_knowledge_goes_up() -> None:
    twin, effects = run(declared(), declared(setpoint="22"))
    assert [type(each) for each in effects] == [Save, PublishDocument, PublishDelta, QueueReport]
    assert deltas(effects) == [{"setpoint": "22"}]
    assert reports(effects)["setpoint"] == PropertyReport(
        None, "", 1000, "22", "", desired_at_ms=1000, desired_version=1
    )
    assert twin.properties["setpoint"].desired.version == 1


def test_the_delta_tells_the_version_of_the_wish() -> None:
    _, effects = run(declared(setpoint="22"), declared(setpoint="23"))
    (delta,) = [each for each in effects if isinstance(each, PublishDelta)]
    assert delta.twin["setpoint"] == TwinEntry(
        expected=Value("23", 1000), optional=True, type="int", expected_version=2
    )


def test_an_empty_wish_is_no_wish_and_a_mapper_that_tries_is_told_to_stop() -> None:
    twin, effects = run(declared(setpoint="22"), declared(setpoint=""))
    assert twin.delta() == {}
    assert deltas(effects) == [{}]
    assert reports(effects)["setpoint"].desired is None


def test_a_wish_that_the_device_already_meets_is_not_published() -> None:
    _, effects = run(declared(), reading("setpoint", "22"), declared(setpoint="22"))
    assert deltas(effects) == []
    assert reports(effects)["setpoint"].desired == "22"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("setpoint", "50", "above the model's maximum of 35"),
        ("setpoint", "1", "below the model's minimum of 5"),
        ("setpoint", "warm", "is not an integer"),
        ("temperature", "21", "temperature is read-only"),
        ("humidity", "21", 'the model "thermostat" has no such property'),
    ],
)
def test_a_wish_the_model_forbids_stays_from_the_device_and_says_why(name: str, value: str, says: str) -> None:
    twin, effects = run(declared(), declare({name: value}, MODELS, "u1"))
    assert deltas(effects) == []
    assert not any(isinstance(each, PublishDocument) for each in effects)
    assert says in reports(effects)[name].problem
    assert reports(effects)[name].desired == value
    _, asked = run(Asked(KEY, "g"), twin=twin)
    (result,) = [each for each in asked if isinstance(each, PublishResult)]
    assert name not in result.twin


def test_a_wish_that_changes_to_what_is_already_so_is_taken_back() -> None:
    _, effects = run(declared(setpoint="22"), reading("setpoint", "20"), declared(setpoint="20"))
    assert deltas(effects) == [{}]
    _, effects = run(declared(setpoint="22", mode="eco"), declared(mode="eco"))
    assert deltas(effects) == [{"mode": "eco"}]
    _, effects = run(declared(), wish("setpoint", "20"), wish("setpoint", ""))
    assert deltas(effects) == [{}]
    _, effects = run(declared(setpoint="22"), reading("setpoint", "22"))
    assert deltas(effects) == []


@pytest.mark.parametrize("wishes", [{"setpoint": ""}, {"setpoint": "50"}])
def test_a_wish_that_was_met_is_withdrawn_without_a_delta(wishes: dict[str, str]) -> None:
    _, effects = run(declared(setpoint="22"), reading("setpoint", "22"), declare(wishes, MODELS, "u1"))
    assert deltas(effects) == []


def test_a_forbidden_wish_takes_the_allowed_one_before_it_back() -> None:
    twin, effects = run(declared(setpoint="22"), declared(setpoint="50"))
    assert twin.delta() == {}
    assert deltas(effects) == [{}]
    (document,) = [each for each in effects if isinstance(each, PublishDocument)]
    assert document.twin["setpoint"].current is None


def test_without_its_model_a_wish_waits_and_goes_out_when_the_model_comes() -> None:
    twin, effects = run(declared(models=None, setpoint="22"))
    assert deltas(effects) == []
    assert 'the model "thermostat" is not on this node' in reports(effects)["setpoint"].problem
    _, effects = run(declared(setpoint="22"), twin=twin)
    assert deltas(effects) == [{"setpoint": "22"}]
    assert reports(effects)["setpoint"].problem == ""


def test_a_property_taken_out_of_the_device_leaves_the_twin_and_comes_back_with_a_new_version() -> None:
    only_mode = Declared(KEY, Declaration("u1", "thermostat", {"mode": MODELS["mode"]}, {"mode": ""}))
    twin, _ = run(declared(setpoint="22"), reading("setpoint", "20"), only_mode)
    assert set(twin.properties) == {"mode"}
    twin, effects = run(declared(setpoint="22"), twin=twin)
    assert twin.properties["setpoint"].desired.version == 2
    assert deltas(effects) == [{"setpoint": "22"}]


def test_a_device_made_anew_under_an_old_name_inherits_nothing() -> None:
    twin, effects = run(declared(setpoint="22"), reading("temperature", "20"), declared(uid="u2", setpoint="22"))
    assert twin.properties["temperature"].reported is None
    assert twin.properties["setpoint"].desired.version == 2
    assert Save() in effects
    assert "setpoint" in reports(effects)


# --- the reading


def test_the_first_report_goes_up_and_the_same_again_does_not() -> None:
    twin, effects = run(declared(), reading("temperature", "21"))
    assert [type(each) for each in effects] == [Save, PublishResult, PublishDocument, QueueReport, Record]
    assert reports(effects)["temperature"] == PropertyReport("21", "int", 1000, None, "")
    twin, effects = run(reading("temperature", "21"), twin=twin, now_ms=2000)
    assert [type(each) for each in effects] == [PublishResult, PublishDocument]
    twin, effects = run(reading("temperature", "22"), twin=twin, now_ms=3000)
    assert reports(effects)["temperature"] == PropertyReport("22", "int", 3000, None, "")


def test_a_reading_the_model_forbids_refuses_the_whole_update() -> None:
    update = Updated(
        KEY, "e7", {"temperature": TwinEntry(actual=Value("21")), "setpoint": TwinEntry(actual=Value("hot"))}
    )
    twin, effects = run(declared(), update)
    assert effects == [Refuse(Channel.TWIN_UPDATE_RESULT, "e7", 400, 'setpoint: "hot" is not an integer')]
    assert twin.properties["temperature"].reported is None


def test_a_reading_for_an_unknown_device_is_answered_404() -> None:
    assert step(None, reading("t", "1", event_id="e9"), 0) == (
        None,
        (Refuse(Channel.TWIN_UPDATE_RESULT, "e9", 404, "update rejected due to the device is not existed"),),
    )
    for event in (Asked(KEY, "g"), StateReported(KEY, "s", "online")):
        twin, (refusal,) = step(None, event, 0)
        assert twin is None
        assert isinstance(refusal, Refuse)
        assert refusal.code == 404


def test_an_undeclared_property_is_kept_at_the_edge_and_goes_up_once_it_is_declared() -> None:
    twin, effects = run(declared(), reading("pressure", "3"))
    assert reports(effects) == {}
    assert isinstance(effects[1], PublishResult)
    more = MODELS | {"pressure": PropertyModel("pressure", PropertyType.INT, False, "", "", "")}
    _, effects = run(declared(models=more, pressure=""), twin=twin)
    assert reports(effects)["pressure"].value == "3"


def test_undeclared_properties_are_bounded() -> None:
    twin, _ = run(declared(), *(reading(f"p{n}", "1") for n in range(MAX_UNDECLARED)))
    _, effects = run(reading("one-more", "1"), twin=twin)
    assert isinstance(effects[0], Refuse)
    _, effects = run(reading("p0", "2"), twin=twin)
    assert not isinstance(effects[0], Refuse)


def test_a_type_word_is_checked_where_there_is_no_model() -> None:
    update = Updated(KEY, "e", {"odd": TwinEntry(actual=Value("x"), type="integer")})
    _, effects = run(declared(), update)
    assert effects == [Refuse(Channel.TWIN_UPDATE_RESULT, "e", 400, 'odd: "x" is not an integer')]


def test_null_deletes_what_a_mapper_may_delete() -> None:
    delete = Updated(KEY, "d", {"temperature": None, "pressure": None, "nowhere": None})
    twin, effects = run(declared(), reading("temperature", "21"), reading("pressure", "3"), delete)
    assert twin.properties["temperature"].reported is None
    assert "pressure" not in twin.properties
    (result,) = [each for each in effects if isinstance(each, PublishResult)]
    assert result.twin == {"temperature": None, "pressure": None, "nowhere": None}
    assert reports(effects)["temperature"].value is None
    kept = Updated(KEY, "k", {"temperature": TwinEntry(actual=Value("21"), optional=False)})
    twin, _ = run(kept, delete, twin=twin)
    assert twin.properties["temperature"].reported is not None


def test_numbers_are_compared_as_numbers() -> None:
    _, effects = run(declared(setpoint="22"), reading("setpoint", "+22"))
    assert deltas(effects) == []


def test_an_open_wish_is_repeated_with_each_update_and_on_request_and_on_connect() -> None:
    twin, effects = run(declared(setpoint="22"), reading("temperature", "20"))
    assert deltas(effects) == [{"setpoint": "22"}]
    for event in (Asked(KEY, "g"), Connected(KEY)):
        _, effects = run(event, twin=twin)
        assert deltas(effects) == [{"setpoint": "22"}]


def test_a_stale_answer_does_not_meet_a_newer_wish_of_the_same_value() -> None:
    twin, _ = run(declared(setpoint="20"), declared(setpoint="22"), declared(setpoint="20"))
    twin, effects = run(reading("setpoint", "20", answers=1), twin=twin)
    assert deltas(effects) == [{"setpoint": "20"}]
    _, effects = run(reading("setpoint", "20", answers=3), twin=twin)
    assert deltas(effects) == []
    _, effects = run(reading("setpoint", "20"), twin=twin)
    assert deltas(effects) == []


# --- the wish from the edge


def test_a_wish_of_the_edge_stands_until_the_cloud_changes_its_mind() -> None:
    twin, effects = run(declared(setpoint="22"), wish("setpoint", "30"))
    assert twin.properties["setpoint"].desired.origin is Origin.EDGE
    assert deltas(effects) == [{"setpoint": "30"}]
    assert reports(effects)["setpoint"].desired == "30"
    twin, effects = run(declared(setpoint="22"), twin=twin)
    assert twin.delta() == {"setpoint": "30"}
    twin, effects = run(declared(setpoint="23"), twin=twin)
    assert deltas(effects) == [{"setpoint": "23"}]


def test_a_wish_of_the_edge_is_checked_like_the_cloud_s() -> None:
    for name, value, says in (("setpoint", "50", "above"), ("temperature", "2", "read-only")):
        twin, effects = run(declared(), wish(name, value))
        assert isinstance(effects[0], Refuse)
        assert effects[0].code == 400
        assert says in effects[0].reason
        assert twin.delta() == {}


def test_a_wish_of_the_edge_based_on_an_old_version_is_refused() -> None:
    twin, _ = run(declared(setpoint="22"), declared(setpoint="23"))
    _, effects = run(wish("setpoint", "30", base=1), twin=twin)
    assert effects == [
        Refuse(Channel.TWIN_UPDATE_RESULT, "w", 409, "setpoint: expected is at version 2, the update is based on 1")
    ]
    twin, _ = run(wish("setpoint", "30", base=2), twin=twin)
    assert twin.delta() == {"setpoint": "30"}
    again, _ = run(wish("setpoint", "30", base=2), twin=twin)
    assert again == twin


# --- the state


def test_a_state_goes_up_when_it_changes_and_keeps_when_it_was_last_online() -> None:
    twin, effects = run(declared(), StateReported(KEY, "s1", "online"), now_ms=1_795_423_692_302)
    assert effects == [
        Save(),
        PublishState("s1", "online", "2026-11-23T08:48:12Z"),
        QueueReport("state", {"state": "online", "lastOnlineTime": "2026-11-23T08:48:12Z"}),
    ]
    twin, effects = run(StateReported(KEY, "s2", "online"), twin=twin, now_ms=1_795_423_700_000)
    assert [type(each) for each in effects] == [PublishState]
    _, effects = run(StateReported(KEY, "", "offline"), twin=twin, now_ms=1_795_423_800_000)
    assert effects[1:] == [
        PublishState("", "offline", ""),
        QueueReport("state", {"state": "offline", "lastOnlineTime": "2026-11-23T08:48:20Z"}),
        Tell(EventType.WARNING, "DeviceOffline", "the device is offline, says its mapper"),
    ]


def test_a_removed_device_is_forgotten_once() -> None:
    twin, _ = run(declared())
    assert step(twin, Removed(KEY), 0) == (None, (Forget(),))
    assert step(None, Removed(KEY), 0) == (None, ())
    assert step(None, Connected(KEY), 0) == (None, ())


# --- what always holds

WISHES = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from(["", "20"]),
        "setpoint": st.sampled_from(["", "20", "22", "+22", "50", "x"]),
        "mode": st.sampled_from(["", "eco", "{}"]),
    }
)
ANSWERS = st.none() | st.integers(0, 6)
TIMES = st.none() | st.integers(-1, 2**45)
READINGS = st.dictionaries(
    st.sampled_from(["temperature", "setpoint", "mode", "pressure"]),
    st.builds(
        TwinEntry,
        expected=st.none(),
        optional=st.none(),
        actual=st.builds(Value, st.sampled_from(["20", "22", "x"]), TIMES),
        type=st.sampled_from([None, "int", "string"]),
        expected_version=ANSWERS,
        problem=st.none(),
    ),
    max_size=3,
)
ANY_ENTRIES = st.dictionaries(
    st.sampled_from(["temperature", "setpoint", "mode", "pressure"]),
    st.none()
    | st.builds(
        TwinEntry,
        expected=st.none() | st.builds(Value, st.sampled_from(["", "20", "22", "99"]), TIMES),
        actual=st.none() | st.builds(Value, st.sampled_from(["20", "22", "x"]), TIMES),
        optional=st.sampled_from([None, True, False]),
        type=st.sampled_from([None, "int", "string"]),
        expected_version=ANSWERS,
        problem=st.sampled_from([None, "", "child lock"]),
    ),
    max_size=3,
)
SOME_MODELS = st.sampled_from([MODELS, None, {"setpoint": MODELS["setpoint"]}, {}])
EVENTS = st.one_of(
    WISHES.map(lambda wishes: declare(wishes, MODELS, "u1")),
    st.builds(declare, WISHES, SOME_MODELS, st.sampled_from("ab")),
    st.builds(lambda twin: Updated(KEY, "e", twin), READINGS | ANY_ENTRIES),
    st.sampled_from(
        [StateReported(KEY, "s", "online"), StateReported(KEY, "s", "offline"), Asked(KEY, "g"), Connected(KEY)]
    ),
    st.sampled_from([Claimed(KEY, ("a",)), Claimed(KEY, ("a", "b")), Elapsed(KEY, 0), mortal(1)]),
    st.builds(lambda twin, number: Updated(KEY, "e", twin, sequence=number), READINGS, st.integers(0, 9)),
)
HISTORIES = st.lists(EVENTS, max_size=8).map(lambda events: [declared(), *events])


@given(HISTORIES, EVENTS)
def test_the_same_event_twice_changes_nothing_more_and_queues_nothing(history: list[Event], event: Event) -> None:
    once, _ = run(*history, event)
    twice, effects = run(event, twin=once)
    assert twice == once
    assert not any(isinstance(each, QueueReport | Save) for each in effects)


@given(HISTORIES, WISHES, st.lists(READINGS, max_size=3))
def test_the_halves_commute(history: list[Event], wishes: dict[str, str], readings: list[dict[str, TwinEntry]]) -> None:
    start, _ = run(*history, declared())
    wished = declare(wishes, MODELS, "u1")
    updates = [Updated(KEY, "e", twin) for twin in readings]
    ends = []
    for place in range(len(updates) + 1):
        twin, _ = run(*updates[:place], wished, *updates[place:], twin=start)
        ends.append((twin, {name: each.report() for name, each in twin.properties.items()}))
    assert all(end == ends[0] for end in ends)


@given(HISTORIES)
def test_the_versions_of_wishes_only_grow(history: list[Event]) -> None:
    twin: Twin | None = None
    highest: dict[str, int] = {}
    ceiling = 0
    for event in history:
        twin, _ = step(twin, event, 1000)
        assert twin is not None
        assert twin.versions >= ceiling
        ceiling = twin.versions
        for name, each in twin.properties.items():
            if each.desired.version:
                assert each.desired.version >= highest.get(name, 0)
                highest[name] = each.desired.version
            assert each.desired.version <= ceiling


@given(HISTORIES)
def test_a_reading_of_what_is_wanted_empties_the_delta(history: list[Event]) -> None:
    twin, _ = run(*history, declared(setpoint="22", mode="eco"))
    delta = twin.delta()
    after, effects = run(
        Updated(KEY, "e", {name: TwinEntry(actual=Value(value)) for name, value in delta.items()}), twin=twin
    )
    assert after.delta() == {}
    assert deltas(effects) == []


@given(HISTORIES, st.integers(0, 20), st.sampled_from(["20", "22"]))
def test_an_answer_to_an_older_wish_never_meets_the_newer(history: list[Event], answers: int, value: str) -> None:
    twin, _ = run(*history, declared(setpoint="21"), declared(setpoint=value))
    version = twin.properties["setpoint"].desired.version
    after, _ = run(reading("setpoint", value, answers=answers), twin=twin)
    assert ("setpoint" in after.delta()) == (answers < version)


@given(HISTORIES)
def test_what_the_cloud_was_told_last_is_what_is(history: list[Event]) -> None:
    twin: Twin | None = None
    told: dict[str, PropertyReport] = {}
    uid = ""
    for event in history:
        twin, effects = step(twin, event, 1000)
        assert twin is not None
        if twin.uid != uid:
            # Another device: the cloud starts anew too.
            uid, told = twin.uid, {}
        told |= reports(list(effects))
    assert twin is not None
    for name, each in twin.properties.items():
        if each.declared and (each.reported or each.desired.value):
            # But for the device's time, which is no news.
            assert told[name]._replace(device_at_ms=None) == each.report(twin.generation)._replace(device_at_ms=None)


@given(HISTORIES)
def test_a_delta_never_shows_what_the_model_forbids(history: list[Event]) -> None:
    twin: Twin | None = None
    for event in history:
        twin, effects = step(twin, event, 1000)
        assert twin is not None
        for delta in deltas(list(effects)):
            for name, value in delta.items():
                model = twin.properties[name].model
                assert not twin.properties[name].declared or (
                    model is not None and model.writable and model.problem_with(value) is None
                )


def timeless(twin: Twin) -> Twin:
    """Without the device's time and the update's number, which each one changes. The edge's clock stands still."""
    return twin._replace(
        sequence=None,
        properties={
            name: each._replace(reported=each.reported and each.reported._replace(device_at_ms=None))
            for name, each in twin.properties.items()
        },
    )


@given(HISTORIES)
def test_a_change_that_is_not_saved_would_not_be_missed(history: list[Event]) -> None:
    """What is written down at the last Save differs from the twin by times only."""
    twin: Twin | None = None
    saved: object = None
    for now_ms, event in enumerate(history):
        twin, effects = step(twin, event, 1000)
        assert twin is not None
        if Save() in effects:
            saved = timeless(twin).to_json()
        assert saved == timeless(twin).to_json(), now_ms


def test_the_order_of_three_wishes_is_theirs() -> None:
    for order in permutations(["20", "21", "22"]):
        twin, _ = run(declared(), *(declared(setpoint=value) for value in order))
        assert twin.delta() == {"setpoint": order[-1]}


def test_what_only_the_model_has_stays_at_the_edge_until_the_device_lists_it() -> None:
    short = declared()
    short = short._replace(declaration=short.declaration._replace(wishes={"setpoint": "22"}))
    twin, effects = run(short, reading("temperature", "20"))
    assert reports(effects) == {}, "the Device's status has no place for it, and the cloud would refuse it"
    assert twin.properties["temperature"].reported is not None
    twin = Twin.from_json(KEY, twin.to_json())
    assert reports(run(short, twin=twin)[1]) == {}
    assert reports(run(declared(setpoint="22"), twin=twin)[1])["temperature"].value == "20"


# --- a device that does not take a wish


def refusing(reason: str, answers: int | None = None, value: str | None = None) -> Updated:
    actual = None if value is None else Value(value)
    entry = TwinEntry(actual=actual, expected_version=answers, problem=reason)
    return Updated(KEY, "r", {"setpoint": entry})


@pytest.mark.parametrize("answers", [None, 1])
def test_why_a_device_does_not_take_a_wish_goes_up_and_is_told_once(answers: int | None) -> None:
    twin, _ = run(declared(setpoint="22"), reading("setpoint", "20"))
    twin, effects = run(refusing("child lock", answers), twin=twin)
    assert reports(effects)["setpoint"].problem == "child lock"
    assert [each.message for each in effects if isinstance(each, Tell)] == [
        'setpoint: the device does not take "22": child lock'
    ]
    # It may obey later, so it is still asked; and whoever listens sees why it does not.
    assert deltas(effects) == [{"setpoint": "22"}]
    assert twin.properties["setpoint"].entry().problem == "child lock"
    assert Twin.from_json(KEY, twin.to_json()).properties["setpoint"].desired.refusal == "child lock"
    twin, effects = run(refusing("child lock", answers), twin=twin)
    assert (reports(effects), tells(effects)) == ({}, [])
    # A reading that answers nothing changes nothing of it.
    twin, effects = run(reading("setpoint", "19"), twin=twin)
    assert reports(effects)["setpoint"].problem == "child lock"


@pytest.mark.parametrize(
    "event", [reading("setpoint", "22"), reading("setpoint", "21", answers=1), refusing(""), declared(setpoint="23")]
)
def test_a_refusal_ends_with_an_answer_its_withdrawal_or_another_wish(event: Event) -> None:
    twin, _ = run(declared(setpoint="22"), reading("setpoint", "20"), refusing("child lock", 1))
    twin, effects = run(event, twin=twin)
    assert twin.properties["setpoint"].desired.refusal == ""
    assert reports(effects)["setpoint"].problem == ""


def test_a_refusal_of_an_older_wish_is_none_of_the_newer() -> None:
    twin, _ = run(declared(setpoint="22"), declared(setpoint="23"))
    twin, effects = run(refusing("child lock", 1), twin=twin)
    assert twin.properties["setpoint"].desired.refusal == ""
    assert reports(effects) == {}
    # Nor is one of a wish that the device has met in the same breath.
    twin, effects = run(refusing("child lock", 2, "23"), twin=twin)
    assert reports(effects)["setpoint"].problem == ""


# --- what the cloud compares


def test_a_report_says_the_device_s_own_time_and_the_update_s_where_the_value_has_none() -> None:
    for said_ms, update_ms, expected in ((7, 9, 7), (None, 9, 9), (0, 9, 9), (None, 0, None), (-5, 9, None)):
        entry = TwinEntry(actual=Value("21", said_ms))
        twin, effects = run(declared(), Updated(KEY, "e", {"temperature": entry}, timestamp_ms=update_ms))
        assert reports(effects)["temperature"].device_at_ms == expected
        assert reports(effects)["temperature"].observed_at_ms == 1000
        # On MQTT the time is the edge's, as in KubeEdge.
        shown = twin.properties["temperature"].entry().actual
        assert shown == Value("21", 1000)


def test_another_time_alone_is_no_news_and_another_answer_is() -> None:
    twin, _ = run(declared(setpoint="22"), reading("setpoint", "22", answers=1))
    twin, effects = run(reading("setpoint", "22", answers=1), twin=twin, now_ms=2000)
    assert reports(effects) == {}
    assert Save() not in effects
    twin, effects = run(declared(setpoint="23"), declared(setpoint="22"), twin=twin)
    twin, effects = run(reading("setpoint", "22", answers=3), twin=twin)
    assert reports(effects)["setpoint"].answers == 3
    assert reports(effects)["setpoint"].desired_version == 3


def test_a_new_generation_is_told_for_the_properties_with_a_wish_and_only_for_them() -> None:
    def at(generation: int, setpoint: str, mode: str = "") -> Declared:
        event = declared(setpoint=setpoint, mode=mode)
        return event._replace(declaration=event.declaration._replace(generation=generation))

    twin, _ = run(at(1, setpoint="22"), reading("temperature", "20"))
    twin, effects = run(at(2, setpoint="22", mode="eco"), twin=twin)
    assert {name: each.generation for name, each in reports(effects).items()} == {"setpoint": 2, "mode": 2}
    assert Save() in effects
    _, effects = run(at(2, setpoint="22", mode="eco"), twin=twin)
    assert effects == []
    _, effects = run(wish("setpoint", "30"), twin=twin)
    assert (reports(effects)["setpoint"].origin, reports(effects)["setpoint"].generation) == ("edge", 2)


# --- silence


def test_a_reading_that_nobody_repeats_is_stale_once_and_told_so_once() -> None:
    twin, _ = run(mortal(100), reading("temperature", "21"))
    assert run(Elapsed(KEY, 0), twin=twin, now_ms=1099)[1] == []
    twin, effects = run(Elapsed(KEY, 0), twin=twin, now_ms=1100)
    assert reports(effects)["temperature"].stale
    assert Record("temperature", 1100, None) in effects
    (document,) = [each for each in effects if isinstance(each, PublishDocument)]
    assert document.twin["temperature"].current == TwinEntry(
        actual=Value("21", 1000, stale=True), optional=True, type="int"
    )
    assert run(Elapsed(KEY, 0), twin=twin, now_ms=9999)[1] == []
    # It outlives a restart, or every restart would tell it again.
    assert Twin.from_json(KEY, json.loads(canonical(twin.to_json()))).properties["temperature"].reported == (
        twin.properties["temperature"].reported
    )
    twin, effects = run(reading("temperature", "21"), twin=twin, now_ms=9999)
    assert not reports(effects)["temperature"].stale
    assert Record("temperature", 9999, "21") in effects


def test_a_reading_that_is_repeated_and_one_from_before_the_start_are_not_stale() -> None:
    twin, _ = run(mortal(100), reading("temperature", "21"))
    again, _ = run(reading("temperature", "21"), twin=twin, now_ms=1090)
    assert run(Elapsed(KEY, 0), twin=again, now_ms=1100)[1] == []
    assert run(Elapsed(KEY, 5000), twin=twin, now_ms=5099)[1] == []
    assert reports(run(Elapsed(KEY, 5000), twin=twin, now_ms=5100)[1])["temperature"].stale


def test_a_reading_counts_for_ever_where_nothing_is_set_and_where_nothing_was_read() -> None:
    twin, _ = run(mortal(0), reading("temperature", "21"))
    assert run(Elapsed(KEY, 0), twin=twin, now_ms=10**12)[1] == []
    assert run(mortal(100), Elapsed(KEY, 0), now_ms=10**12)[1] == []
    assert step(None, Elapsed(KEY, 0), 1) == (None, ())


# --- gaps


def numbered(*sequence: int | None) -> list[Event]:
    return [Updated(KEY, "e", {"temperature": TwinEntry(actual=Value("1"))}, sequence=each) for each in sequence]


@pytest.mark.parametrize(
    ("sequence", "missed"),
    [
        ((1, 2, 3), 0),
        ((1, 2, 5), 2),
        ((7, 8), 0),  # edgecore was restarted in between
        ((1, 2, 3, 1, 2), 0),  # the mapper was
        ((1, 2, 3, 2, 3, 4), 0),  # a redelivery
        ((4, 0, 1), 0),
        ((1, None, 2), 0),  # somebody else, who does not number
        ((1, 3, 5, 2), 2),
        ((1, -3, 2), 0),
    ],
)
def test_numbers_show_what_never_came(sequence: tuple[int | None, ...], missed: int) -> None:
    total, twin = 0, run(declared())[0]
    for event in numbered(*sequence):
        twin, now = run(event, twin=twin)
        total += sum(each.updates for each in now if isinstance(each, CountMissed))
        assert any(isinstance(each, Tell) for each in now) == any(isinstance(each, CountMissed) for each in now)
    assert total == missed


def test_a_refused_update_was_not_lost() -> None:
    refused = Updated(KEY, "e", {"setpoint": TwinEntry(actual=Value("hot"))}, sequence=2)
    _, effects = run(declared(), *numbered(1), refused, *numbered(3))
    assert not any(isinstance(each, CountMissed) for each in effects)


# --- Events


def tells(effects: list[Effect]) -> list[str]:
    return [each.reason for each in effects if isinstance(each, Tell)]


def test_a_device_that_goes_and_comes_back_is_told_to_people() -> None:
    twin, effects = run(declared(), StateReported(KEY, "s", "online"))
    assert tells(effects) == []
    twin, effects = run(StateReported(KEY, "s", "OFFLINE"), twin=twin)
    assert tells(effects) == ["DeviceOffline"]
    assert tells(run(StateReported(KEY, "s", "offline"), twin=twin)[1]) == []
    assert tells(run(StateReported(KEY, "s", "ok"), twin=twin)[1]) == ["DeviceOnline"]
    twin, _ = run(StateReported(KEY, "s", "online"), twin=twin)
    _, effects = run(StateReported(KEY, "", "offline", gone="modbus-1"), twin=twin)
    (event,) = [each for each in effects if isinstance(each, Tell)]
    assert (event.reason, "modbus-1" in event.message) == ("MapperGone", True)


def test_a_rejected_wish_is_told_once() -> None:
    twin, effects = run(declared(setpoint="50"))
    assert tells(effects) == ["DesiredRejected"]
    assert tells(run(declared(setpoint="50"), twin=twin)[1]) == []
    twin, effects = run(declared(setpoint="51"), twin=twin)
    assert tells(effects) == ["DesiredRejected"]
    assert tells(run(declared(setpoint="22"), twin=twin)[1]) == []


def test_two_mappers_at_one_device_are_a_problem_until_one_goes() -> None:
    twin, effects = run(declared(), StateReported(KEY, "s", "online"), Claimed(KEY, ("b", "a")))
    assert tells(effects) == ["TwoMappers"]
    (state,) = [each for each in effects if isinstance(each, QueueReport)]
    assert state.value == {
        "state": "online",
        "lastOnlineTime": "1970-01-01T00:00:01Z",
        "problem": "2 mappers claim it, a and b: the last word counts",
    }
    assert run(Claimed(KEY, ("a", "b")), twin=twin)[1] == []
    twin, effects = run(Claimed(KEY, ("a",)), twin=twin)
    assert tells(effects) == []
    assert twin.problem == ""
    (state,) = [each for each in effects if isinstance(each, QueueReport)]
    assert "problem" not in state.value
    long = tuple(f"{n}" * 250 for n in range(9))
    assert len(run(declared(), Claimed(KEY, long))[0].problem) <= 256
    assert step(None, Claimed(KEY, ("a", "b")), 0) == (None, ())


def test_every_answer_to_a_request_bears_its_id() -> None:
    twin, _ = run(declared(setpoint="22"))
    request = Updated(KEY, "e7", {"temperature": TwinEntry(actual=Value("20"))})
    for event in (request, Asked(KEY, "e7"), Updated(KEY, "e7", {"setpoint": TwinEntry(expected=Value(""))})):
        _, effects = run(event, twin=twin)
        published = [each for each in effects if isinstance(each, PublishResult | PublishDocument | PublishDelta)]
        assert len(published) >= 2
        assert {each.event_id for each in published} == {"e7"}
    _, effects = run(declared(setpoint="23"), twin=twin)
    assert {each.event_id for each in effects if isinstance(each, PublishDocument | PublishDelta)} == {""}
