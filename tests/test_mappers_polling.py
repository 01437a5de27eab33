"""What to read, write and report, and when."""

import itertools
import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.devices import PropertyModel, PropertyType
from mappers.polling import ANSWER_S, CONFIRM_S, RETRY_LAST_S, Poller, Pulse, Report, Wish, retry_after_s
from mappers.words import Device, Property, Reading, Value

FLOAT, INT, BOOLEAN = PropertyType.FLOAT, PropertyType.INT, PropertyType.BOOLEAN


def a_property(
    name: str,
    kind: PropertyType = FLOAT,
    *,
    writable: bool = False,
    limits: tuple[str, str] = ("", ""),
    collect_s: float = 1.0,
    report_s: float = 60.0,
    wanted: bool = True,
    dead_band: float = 0.0,
) -> Property:
    return Property(PropertyModel(name, kind, writable, *limits, ""), {}, collect_s, report_s, wanted, dead_band)


def a_device(*properties: Property) -> Device:
    return Device("default/one", {}, {each.model.name: each for each in properties})


def thermostat(**changes: object) -> Device:
    setpoint = a_property("setpoint", writable=True, limits=("5", "30"))._replace(**changes)  # type: ignore[arg-type]
    return a_device(setpoint, a_property("temperature"))


class Bench:
    """A poller, a device that does what it is told, and an edge that confirms when asked to."""

    def __init__(self, device: Device, **values: Value) -> None:
        self.now = 0.0
        self.values: dict[str, Value] = dict(values)
        self.writes: list[tuple[str, Value]] = []
        self.obeys = True
        self.poller = Poller(device, self.now)
        self.events = 0

    def round(self, *, answered: bool = True) -> Mapping[str, Report]:
        """What the shell does at one time, and what it reports."""
        self.poller.expire(self.now)
        for _ in range(2):
            if names := self.poller.due(self.now):
                self.poller.took(
                    names, {name: Reading(self.values[name]) for name in names if name in self.values}, self.now
                )
            for order in self.poller.orders(self.now):
                self.writes.append((order.name, order.value))
                if self.obeys:
                    self.values[order.name] = order.value
                self.poller.wrote(order, self.now)
        report = self.poller.report(self.now)
        if report:
            self.events += 1
            self.poller.sent(str(self.events), report, self.now)
            if answered:
                assert self.poller.settle(str(self.events))
        return report

    def wait(self, seconds: float) -> Mapping[str, Report]:
        self.now += seconds
        return self.round()

    def wish(self, text: str, version: int | None = None) -> list[tuple[str, str]]:
        return self.poller.wish({"setpoint": Wish(text, version)}, self.now)


# --- reading


def test_everything_is_read_at_once_and_then_by_its_cycle() -> None:
    poller = Poller(a_device(a_property("slow", collect_s=5), a_property("fast")), 100.0)
    assert poller.due(100.0) == ["slow", "fast"]
    poller.took(["slow", "fast"], {}, 100.0)
    assert poller.due(100.9) == []
    assert poller.due(101.0) == ["fast"]
    assert poller.due(105.0) == ["slow", "fast"]


def test_a_slow_reading_does_not_shift_the_cycle() -> None:
    poller = Poller(a_device(a_property("p")), 0.0)
    poller.took(["p"], {}, 0.4)
    assert poller.wake_at() == 1.0


def test_a_missed_cycle_is_not_made_up_for() -> None:
    poller = Poller(a_device(a_property("p")), 0.0)
    poller.took(["p"], {}, 7.5)
    assert poller.wake_at() == 8.5


def test_a_reading_of_the_wrong_type_counts_as_none_and_is_told() -> None:
    poller = Poller(a_device(a_property("p"), a_property("q")), 0.0)
    problems = poller.took(["p", "q"], {"p": Reading("warm"), "q": Reading(1.5, 77)}, 0.0)
    assert problems == ["p: the driver read str 'warm', the model says FLOAT"]
    assert poller.report(0.0) == {"q": Report("1.5", 77, None)}


# --- reporting


def test_what_did_not_change_is_reported_only_by_its_report_cycle() -> None:
    bench = Bench(a_device(a_property("p", report_s=10)), p=1.0)
    assert bench.round() == {"p": Report("1.0", None, None)}
    assert [bool(bench.wait(1)) for _ in range(10)] == [False] * 9 + [True]


def test_a_change_is_reported_at_once_and_only_what_changed() -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.round()
    bench.values["temperature"] = 18.1
    assert set(bench.wait(1)) == {"temperature"}


def test_a_change_within_the_dead_band_is_no_news_until_it_adds_up() -> None:
    bench = Bench(a_device(a_property("p", dead_band=0.25)), p=1.0)
    bench.round()
    reported = []
    for step in range(1, 7):
        bench.values["p"] = 1.0 + step / 10
        reported.append(bool(bench.wait(1)))
    assert reported == [False, False, True, False, False, True]


def test_a_value_the_device_no_longer_has_is_not_repeated() -> None:
    bench = Bench(a_device(a_property("p", report_s=2)), p=1.0)
    bench.round()
    del bench.values["p"]
    assert [bench.wait(1) for _ in range(5)] == [{}] * 5


def test_a_property_not_to_be_reported_is_read_all_the_same() -> None:
    bench = Bench(a_device(a_property("p", wanted=False, report_s=1)), p=1.0)
    assert [bench.wait(1) for _ in range(3)] == [{}] * 3
    assert bench.poller.wake_at() == bench.now + 1


def test_one_report_waits_for_its_answer_and_the_last_value_goes_next() -> None:
    bench = Bench(a_device(a_property("p")), p=1.0)
    bench.round(answered=False)
    for value in (2.0, 3.0):
        bench.values["p"] = value
        assert bench.wait(1) == {}
    assert bench.poller.settle("1")
    assert bench.wait(0) == {"p": Report("3.0", None, None)}


def test_an_unanswered_report_is_made_again() -> None:
    bench = Bench(a_device(a_property("p")), p=1.0)
    bench.round(answered=False)
    assert bench.wait(ANSWER_S - 0.5) == {}
    assert bench.wait(0.5) == {"p": Report("1.0", None, None)}


def test_somebody_elses_answer_settles_nothing() -> None:
    bench = Bench(a_device(a_property("p")), p=1.0)
    bench.round(answered=False)
    assert not bench.poller.settle("other")
    assert bench.wait(1) == {}


def test_after_a_lost_connection_all_is_said_again() -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.round()
    bench.poller.forget_sent()
    assert set(bench.wait(0.1)) == {"setpoint", "temperature"}


# --- wishes


def test_a_wish_is_written_read_back_and_answered_in_one_round() -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.round()
    bench.wish("22", 7)
    assert bench.wait(0.1) == {"setpoint": Report("22", None, 7)}
    assert bench.writes == [("setpoint", 22.0)]


def test_the_same_delta_again_writes_and_reports_nothing() -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.wish("22", 7)
    bench.round()
    for _ in range(20):
        bench.wish("22", 7)
        assert bench.wait(0.1) == {}
    assert len(bench.writes) == 1


def test_a_wish_already_fulfilled_is_answered_after_a_fresh_look_and_not_written() -> None:
    bench = Bench(thermostat(), setpoint=22.0, temperature=18.0)
    bench.round()
    bench.wish("22", 7)
    assert bench.wait(0.1) == {"setpoint": Report("22", None, 7)}
    assert bench.writes == []


def test_a_wish_fulfilled_by_an_outdated_reading_is_written() -> None:
    bench = Bench(thermostat(), setpoint=22.0, temperature=18.0)
    bench.round()
    bench.values["setpoint"] = 19.0  # somebody turned the knob since
    bench.wish("22", 7)
    bench.wait(0.1)
    assert bench.writes == [("setpoint", 22.0)]


def test_somebody_turning_the_knob_is_reported_and_the_next_delta_turns_it_back() -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.wish("22", 7)
    bench.round()
    bench.values["setpoint"] = 19.0
    assert bench.wait(1)["setpoint"].text == "19.0"
    assert len(bench.writes) == 1
    bench.wish("22", 7)
    assert bench.wait(0.1)["setpoint"].text == "22"
    assert len(bench.writes) == 2


def test_a_device_that_does_not_obey_is_told_ever_less_often() -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.obeys = False
    at: list[float] = []
    for _ in range(300):
        bench.wish("22", 7)  # the edge repeats it after each report
        before = len(bench.writes)
        bench.wait(1)
        if len(bench.writes) > before:
            at.append(bench.now)
    gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_wish_the_edge_dropped_is_not_written_any_more() -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.obeys = False
    bench.wish("22")
    bench.round()
    bench.poller.wish({}, bench.now)
    for _ in range(100):
        bench.wait(1)
    assert len(bench.writes) == 1


def test_a_newer_wish_is_written_at_once_and_an_older_write_does_not_answer_it() -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.round()
    bench.wish("22", 7)
    (order,) = bench.poller.orders(bench.now)
    bench.wish("23", 8)  # while the device is still busy with 22
    bench.values["setpoint"] = 22.0
    bench.poller.wrote(order, bench.now)
    bench.poller.took(["setpoint"], {"setpoint": Reading(22.0)}, bench.now)
    report = bench.poller.report(bench.now)
    assert report["setpoint"].answers is None
    assert [each.value for each in bench.poller.orders(bench.now)] == [23.0]


@pytest.mark.parametrize(
    ("text", "device", "words"),
    [
        ("31", thermostat(), "above the model's maximum of 30"),
        ("warm", thermostat(), "is not a number"),
        ("22", a_device(a_property("setpoint")), "setpoint is read-only"),
    ],
)
def test_a_wish_the_model_forbids_is_not_tried_but_answered_with_what_is(text: str, device: Device, words: str) -> None:
    bench = Bench(device, setpoint=20.0, temperature=18.0)
    bench.round()
    ((name, reason),) = bench.wish(text, 7)
    assert name == "setpoint"
    assert words in reason
    assert bench.wait(0.1) == {"setpoint": Report("20.0", None, 7, reason)}
    assert bench.wish(text, 7) == []
    assert [bench.wait(1) for _ in range(50)] == [{}] * 50
    assert bench.writes == []


def test_a_wish_the_device_refuses_is_answered_once_and_tried_again_much_later() -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.round()
    bench.wish("22", 7)
    (order,) = bench.poller.orders(bench.now)
    bench.poller.refuse(order.name, order.wish, "too hot", bench.now)
    assert bench.wait(0.5) == {"setpoint": Report("20.0", None, 7, "too hot")}
    bench.wait(RETRY_LAST_S - 1)
    assert bench.writes == []
    report = bench.wait(1)
    assert bench.writes == [("setpoint", 22.0)]
    assert report["setpoint"] == Report("22", None, 7), "and is not refused any more"


def test_a_refusal_is_told_without_a_reading_again_after_a_reconnect_and_in_new_words() -> None:
    bench = Bench(thermostat())
    bench.wish("22", 7)
    told = {"setpoint": Report(None, None, 7, "?" + "x" * 255)}
    bench.poller.refuse("setpoint", Wish("22", 7), "\udc80" + "x" * 999, bench.now)
    for _ in range(2):
        assert bench.poller.report(bench.now) == told
        bench.poller.sent("e", told, bench.now)
        assert bench.poller.settle("e")
        assert bench.poller.report(bench.now) == {}
        bench.poller.forget_sent()
    bench.poller.sent("e", told, bench.now)
    bench.poller.settle("e")
    bench.poller.refuse("setpoint", Wish("22", 7), "", bench.now)
    assert bench.poller.report(bench.now) == {"setpoint": Report(None, None, 7, "the device refuses it")}
    bench.poller.wish({}, bench.now)
    assert bench.poller.report(bench.now) == {}


def test_wishes_for_what_the_device_does_not_have_are_passed_over() -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    assert bench.poller.wish({"colour": Wish("red", 1)}, 0.0) == []
    assert "colour" not in bench.round()


def test_a_refused_report_setting_does_not_hide_what_became_of_a_wish() -> None:
    bench = Bench(thermostat(wanted=False), setpoint=20.0, temperature=18.0)
    bench.round()
    bench.wish("22", 7)
    assert bench.wait(0.1) == {"setpoint": Report("22", None, 7)}


# --- a device that speaks for itself


def speaking_thermostat() -> Bench:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.poller.subscribed(["setpoint", "temperature"])
    bench.round()
    return bench


def test_what_the_device_tells_of_is_read_once_and_then_only_heard() -> None:
    bench = speaking_thermostat()
    bench.values["temperature"] = 19.0
    assert [bench.wait(1) for _ in range(50)] == [{}] * 50
    assert bench.poller.heard({"temperature": Reading(19.5, 7), "colour": Reading("red")}) == []
    assert bench.wait(0) == {"temperature": Report("19.5", 7, None)}


def test_a_value_the_device_says_it_has_no_longer_is_not_repeated() -> None:
    bench = speaking_thermostat()
    bench.poller.heard({"temperature": None})
    assert set(bench.wait(60)) == {"setpoint"}


def test_what_is_heard_is_judged_by_its_type_as_what_is_read() -> None:
    bench = speaking_thermostat()
    (problem,) = bench.poller.heard({"temperature": Reading("warm")})
    assert problem.startswith("temperature: ")
    assert bench.wait(0) == {}


def test_a_property_not_subscribed_to_is_polled_beside_the_others() -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.poller.subscribed(["setpoint"])
    bench.round()
    bench.values.update(temperature=19.0, setpoint=25.0)
    assert set(bench.wait(1)) == {"temperature"}


def test_after_a_lost_connection_all_is_read_once_more() -> None:
    bench = speaking_thermostat()
    bench.values["temperature"] = 19.0
    bench.poller.renew(bench.now)
    assert set(bench.wait(0)) == {"temperature"}


def test_a_written_value_is_answered_by_the_devices_word_and_not_by_an_older_one() -> None:
    bench = speaking_thermostat()
    bench.wish("22", 7)
    assert bench.wait(0) == {}, "nothing is known of what became of it"
    assert bench.writes == [("setpoint", 22.0)]
    bench.poller.heard({"setpoint": Reading(20.0)})  # said before the write
    assert bench.wait(0.1) == {}
    bench.poller.heard({"setpoint": Reading(22.0)})
    assert bench.wait(0.1) == {"setpoint": Report("22", None, 7)}
    assert [bench.wait(1) for _ in range(50)] == [{}] * 50
    assert len(bench.writes) == 1


def test_a_device_that_does_not_confirm_is_asked_and_told_again() -> None:
    bench = speaking_thermostat()
    bench.obeys = False
    bench.wish("22", 7)
    bench.wait(0)
    assert bench.wait(CONFIRM_S / 2) == {}
    assert bench.wait(CONFIRM_S / 2) == {"setpoint": Report("20.0", None, 7)}
    for _ in range(30):
        bench.wait(1)
    assert len(bench.writes) == 1 + 5  # 1, 2, 4, 8 and 16 seconds after the one before


def test_a_wish_that_the_last_word_fulfils_is_answered_after_a_fresh_look() -> None:
    bench = speaking_thermostat()
    bench.wish("20", 7)
    assert bench.wait(0) == {"setpoint": Report("20", None, 7)}
    assert bench.writes == []


# --- a changed device


def test_changed_cycles_count_at_once_and_nothing_is_forgotten() -> None:
    bench = Bench(a_device(a_property("p", collect_s=3600)), p=1.0)
    bench.round()
    bench.poller.adopt(a_device(a_property("p", collect_s=1)), bench.now)
    assert bench.poller.wake_at() == 1.0
    assert bench.wait(1) == {}


def test_a_property_that_comes_is_read_and_one_that_goes_is_forgotten() -> None:
    bench = Bench(a_device(a_property("p")), p=1.0, q=2.0)
    bench.round()
    bench.poller.adopt(a_device(a_property("q")), bench.now)
    assert set(bench.wait(0)) == {"q"}
    assert bench.poller.type_of("p") is None


def test_a_property_of_another_type_begins_anew() -> None:
    bench = Bench(a_device(a_property("p")), p=1.0)
    bench.round()
    bench.values["p"] = 1
    bench.poller.adopt(a_device(a_property("p", INT)), bench.now)
    assert bench.wait(0) == {"p": Report("1", None, None)}


def test_a_wish_the_new_limits_allow_is_written() -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.wish("31", 7)
    bench.round()
    bench.poller.adopt(a_device(a_property("setpoint", writable=True, limits=("5", "40"))), bench.now)
    assert bench.wait(0)["setpoint"] == Report("31", None, 7)


# --- all together

steps = st.one_of(
    st.tuples(st.just("wait"), st.floats(0, 20)),
    st.tuples(st.just("turn"), st.sampled_from([18.0, 20.0, 22.0])),
    st.tuples(st.just("wish"), st.sampled_from(["18", "20.0", "22", "99", "x"])),
    st.tuples(st.just("drop"), st.none()),
    st.tuples(st.just("lose"), st.none()),
    st.tuples(st.just("stubborn"), st.booleans()),
)


@given(st.lists(steps, max_size=60), st.sets(st.sampled_from(["setpoint", "temperature"])))
def test_whatever_happens_it_comes_to_rest_with_the_truth_reported_and_the_wish_obeyed(
    history: list[tuple[str, object]], speaks: set[str]
) -> None:
    bench = Bench(thermostat(), setpoint=20.0, temperature=18.0)
    bench.poller.subscribed(speaks)
    known: dict[str, str] = {}
    wish: Wish | None = None
    version = 0

    def edge(report: Mapping[str, Report]) -> None:
        nonlocal wish
        for name, entry in report.items():
            if entry.text is not None:
                known[name] = entry.text
            assert entry.answers is None or entry.answers <= version
        if report and wish is not None and known.get("setpoint") != wish.text:
            bench.poller.wish({"setpoint": wish}, bench.now)

    for what, value in history:
        match what, value:
            case "wait", float():
                bench.now += value
            case "turn", float():
                bench.values["setpoint"] = value
                if "setpoint" in speaks:
                    bench.poller.heard({"setpoint": Reading(value)})
            case "wish", str():
                version += 1
                wish = Wish(value, version)
                bench.poller.wish({"setpoint": wish}, bench.now)
            case "drop", _:
                wish = None
                bench.poller.wish({}, bench.now)
            case "lose", _:
                bench.poller.forget_sent()
            case "stubborn", bool():
                bench.obeys = not value
        report = bench.round()
        assert bench.poller.wake_at() > bench.now, "it would spin"
        edge(report)

    bench.obeys = True
    for _ in range(2 * int(RETRY_LAST_S)):
        bench.now += 1
        edge(bench.round())
    if wish is not None and wish.text not in ("99", "x"):
        assert bench.values["setpoint"] == float(wish.text)
        assert known["setpoint"] == wish.text
    assert float(known["setpoint"]) == bench.values["setpoint"]


# --- the pulse


def test_tries_are_ever_further_apart_up_to_a_minute() -> None:
    assert [retry_after_s(tries) for tries in (1, 2, 3, 6, 7, 8, 10_000)] == [1, 2, 4, 32, 60, 60, 60]


def test_a_device_that_never_answered_is_offline_at_the_first_try() -> None:
    pulse = Pulse()
    assert pulse.missed(0.0)
    assert (pulse.is_online, pulse.retry_at) == (False, 1.0)
    assert not pulse.missed(1.0)
    assert pulse.retry_at == 3.0


def test_one_lost_answer_is_no_outage() -> None:
    pulse = Pulse()
    assert pulse.answered()
    assert not pulse.missed(5.0)
    assert (pulse.is_online, pulse.retry_at) == (True, 5.0)
    assert not pulse.answered()
    assert not pulse.missed(9.0)
    assert pulse.missed(9.0)
    assert (pulse.is_online, pulse.retry_at) == (False, 10.0)


def test_it_comes_back_and_a_change_makes_it_hurry() -> None:
    pulse = Pulse()
    for _ in range(10):
        pulse.missed(0.0)
    pulse.hurry()
    assert pulse.retry_at == -math.inf
    assert pulse.answered()
    assert pulse.is_online


def test_a_device_that_left_is_not_tried_until_it_says_so() -> None:
    pulse = Pulse()
    assert pulse.answered()
    assert pulse.left()
    assert not pulse.left()
    assert pulse.is_away()
    assert (pulse.is_online, pulse.retry_at) == (False, math.inf)
    assert pulse.answered()
    assert not pulse.is_away()


def test_a_device_that_left_and_whose_connection_is_lost_is_tried_again() -> None:
    pulse = Pulse()
    assert pulse.left()
    assert not pulse.missed(5.0)
    assert not pulse.is_away()
    assert pulse.retry_at == 6.0
