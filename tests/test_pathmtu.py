"""How large packets may be: what arrives decides, and what does not."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from link.pathmtu import AGAIN_S, BASE_BYTES, BLACK_HOLE, LARGEST_BYTES, SIZES, TRIES, PathMtu


def searched(most: int, now: float = 0.0) -> PathMtu:
    """On a path that carries so much, until nothing is left to be tried."""
    mtu = PathMtu()
    while (size := mtu.due(now)) is not None:
        mtu.trying(size)
        if size <= most:
            mtu.carried(size)
        else:
            mtu.lost(size)
    return mtu


def test_what_the_path_carries_is_found_and_no_more() -> None:
    found = {most: searched(most).size for most in (1200, 1351, 1352, 1452, 1500, 9000, 65_535)}
    assert found == {1200: 1200, 1351: 1200, 1352: 1352, 1452: 1452, 1500: 1452, 9000: 8952, 65_535: LARGEST_BYTES}


def test_a_size_is_tried_thrice_one_at_a_time_and_after_ten_minutes_anew() -> None:
    mtu, first = PathMtu(), SIZES[0]
    for _ in range(TRIES):
        assert mtu.due(0.0) == first
        mtu.trying(first)
        assert mtu.due(0.0) is None, "it is under way"
        mtu.lost(first)
    assert mtu.due(5.0) is None
    assert mtu.due(5.0 + AGAIN_S - 1) is None
    assert mtu.due(5.0 + AGAIN_S) == first
    mtu.trying(first)
    mtu.carried(first)
    assert mtu.due(5.0 + AGAIN_S) == SIZES[1]


def test_large_ones_that_vanish_one_after_the_other_are_another_path() -> None:
    mtu = searched(1452)
    for _ in range(3):
        for _ in range(BLACK_HOLE - 1):
            mtu.lost(1452)
        mtu.carried(1452)
    for _ in range(50):
        mtu.lost(BASE_BYTES)
    assert mtu.size == 1452, "on a line that loses a few all the time"
    for _ in range(BLACK_HOLE):
        mtu.carried(BASE_BYTES)
        mtu.lost(1400)
    assert mtu.size == BASE_BYTES, "small ones pass a black hole"
    assert mtu.due(0.0) == SIZES[0]


def test_a_middling_one_that_passes_hides_no_black_hole() -> None:
    mtu = searched(9000)
    for _ in range(BLACK_HOLE):
        assert mtu.size == 8952
        mtu.lost(1500)
        assert mtu.due(AGAIN_S * 9) is None or mtu.size == BASE_BYTES, "nothing is tried while it is in doubt"
        mtu.carried(1280)
    assert mtu.size == BASE_BYTES
    mtu = searched(9000)
    for _ in range(2):
        for _ in range(BLACK_HOLE - 1):
            mtu.lost(1500)
        mtu.carried(1500)
    assert mtu.size == 8952


def test_what_was_tried_on_the_path_before_says_nothing_of_this_one() -> None:
    mtu = PathMtu()
    mtu.trying(SIZES[0])
    mtu.restart()
    mtu.carried(SIZES[0])
    assert mtu.size == BASE_BYTES
    mtu.lost(SIZES[1])
    assert mtu.due(0.0) == SIZES[0]


class Path(RuleBasedStateMachine):
    """A path that carries what it likes, and changes; packets arrive or do not, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.mtu = PathMtu()
        self.now = 0.0
        self.carries = 1500
        self.under_way: list[tuple[int, int]] = []
        """Sizes, and what the path carried when each was sent."""
        self.arrived = {BASE_BYTES}
        """Sizes of tries that did, since the last restart."""

    @rule(most=st.sampled_from([1200, 1300, 1400, 1500, 9000, 65_535]))
    def becomes(self, most: int) -> None:
        self.carries = most

    @rule(seconds=st.sampled_from([1.0, AGAIN_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def another_path(self) -> None:
        self.mtu.restart()
        self.arrived = {BASE_BYTES}

    @rule()
    def tries(self) -> None:
        if (size := self.mtu.due(self.now)) is not None:
            assert size > self.mtu.size
            self.mtu.trying(size)
            self.under_way.append((size, self.carries))

    @rule()
    def sends(self) -> None:
        self.under_way.append((self.mtu.size, self.carries))

    @rule(data=st.data())
    def is_heard_of(self, data: st.DataObject) -> None:
        if not self.under_way:
            return
        size, carried = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if size <= carried:
            self.arrived.add(size)
            self.mtu.carried(size)
        else:
            before = self.mtu.size
            self.mtu.lost(size)
            if self.mtu.size < before:
                self.arrived = {BASE_BYTES}

    @invariant()
    def only_what_arrived_is_used(self) -> None:
        assert self.mtu.size in self.arrived


TestPath = Path.TestCase
TestPath.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
