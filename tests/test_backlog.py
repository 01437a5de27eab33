"""Which rows go up next, and which wait."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES
from edgehub.backlog import LEAST_S, LOOK_S, MAX_S, Backlog
from link.frames import ReportEntry


def entry(name: str) -> ReportEntry:
    return ReportEntry(ObjectKey(DEVICES, "d", name), "state", b"{}")


ROWS = [(number, entry(name)) for number, name in enumerate("abc", 1)]


def test_rows_go_once_in_their_order() -> None:
    backlog = Backlog()
    assert backlog.choose(ROWS, 0.0) == ROWS
    assert (backlog.after, backlog.next_look()) == (3, None)
    assert backlog.choose(ROWS, 0.0) == [], "they are under way"


def test_what_was_handed_back_is_sent_again_after_a_while_and_later_each_time() -> None:
    backlog, now, waits = Backlog(), 0.0, []
    backlog.choose(ROWS, now)
    backlog.settle([1, 3])
    for _ in range(8):
        backlog.hand_back([2], now, lambda: 1.0)
        due = backlog.next_look()
        assert due is not None
        waits.append(due - now)
        backlog.look(due - 0.01)
        assert backlog.after >= 2, "not yet"
        backlog.look(due)
        now = due
        assert backlog.choose([row for row in ROWS if row[0] > backlog.after][:1], now) == [ROWS[1]]
    assert waits == [LEAST_S, 2 * LEAST_S, 4 * LEAST_S, 8 * LEAST_S, 16 * LEAST_S, MAX_S, MAX_S, MAX_S]
    backlog.settle([2])
    backlog.choose([(9, entry("b"))], now)
    backlog.hand_back([9], now, lambda: 1.0)
    assert backlog.next_look() == now + LEAST_S, "once it was taken it is as any other"


def test_a_later_value_of_what_was_handed_back_waits_with_it() -> None:
    backlog = Backlog()
    backlog.choose(ROWS, 0.0)
    backlog.hand_back([1], 0.0, lambda: 1.0)
    assert backlog.choose([(4, entry("a")), (5, entry("d"))], 1.0) == [(5, entry("d"))]
    backlog.look(LEAST_S)
    assert backlog.after == 0
    assert backlog.choose([ROWS[1], ROWS[2], (4, entry("a")), (5, entry("d"))], LEAST_S) == [(4, entry("a"))]


def test_who_has_read_all_knows_it_until_something_is_left_for_later() -> None:
    backlog = Backlog()
    known = []
    backlog.choose(ROWS, 0.0)
    known.append(backlog.is_read)
    backlog.choose([], 0.0)
    known.append(backlog.is_read)
    backlog.hand_back([2], 0.0, lambda: 1.0)
    for at in (LEAST_S / 2, LEAST_S):
        backlog.look(at)
        known.append(backlog.is_read)
    assert known == [False, True, True, False]


def test_names_of_what_is_gone_from_the_outbox_are_forgotten() -> None:
    backlog = Backlog()
    for number in range(1, 400):
        backlog.choose([(number, entry(f"n{number}"))], float(number))
        backlog.hand_back([number], float(number), lambda: 0.5)
        backlog.look(float(number))
    assert len(backlog._postponed) < 100


def test_what_is_handed_back_at_once_does_not_come_again_at_once() -> None:
    backlog, draws = Backlog(), iter([0.0, 0.5, 0.9])
    backlog.choose(ROWS, 0.0)
    backlog.hand_back([1, 2, 3], 0.0, lambda: next(draws))
    backlog.look(LEAST_S / 2)
    assert backlog.choose(ROWS, LEAST_S / 2) == [ROWS[0]]


class BacklogMachine(RuleBasedStateMachine):
    """An outbox of last values, a hub that takes and hands back as it likes: everything goes up in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog, self.now, self.row = Backlog(), 0.0, 0
        self.outbox: dict[str, int] = {}
        self.sent: dict[int, str] = {}

    @rule(name=st.sampled_from("abcd"))
    def put(self, name: str) -> None:
        self.row += 1
        self.outbox[name] = self.row

    @rule(most=st.integers(1, 3))
    def send(self, most: int) -> None:
        self.backlog.look(self.now)
        rows = sorted((row, entry(name)) for name, row in self.outbox.items() if row > self.backlog.after)
        for row, each in self.backlog.choose(rows[:most], self.now):
            assert row not in self.sent, "it is under way"
            self.sent[row] = each.key.name

    @rule(takes=st.booleans(), jitter=st.floats(0, 1), share=st.floats(0, 1))
    def answer(self, takes: bool, jitter: float, share: float) -> None:
        rows = sorted(self.sent)[: 1 + int(share * len(self.sent))]
        for row in rows:
            name = self.sent.pop(row)
            if takes and self.outbox.get(name) == row:
                del self.outbox[name]
        if takes:
            self.backlog.settle(rows)
        else:
            self.backlog.hand_back(rows, self.now, lambda: jitter)

    @rule(seconds=st.sampled_from([0.5, 3.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def what_is_left_is_looked_at_soon(self) -> None:
        due = self.backlog.next_look()
        assert due is None or due <= self.now + MAX_S + LOOK_S

    def teardown(self) -> None:
        for _ in range(8):
            self.now += MAX_S + LOOK_S
            self.send(9)
            self.answer(True, 0.0, 1.0)
        assert not self.outbox


BacklogMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestBacklog = BacklogMachine.TestCase
