"""What happened a moment ago is so for a moment."""

from componentbase.lately import LATELY_S, Lately


def test_it_is_so_for_a_while_after_it_happened_and_not_before() -> None:
    now_s = 0.0
    it = Lately(lambda: now_s)
    assert not it.is_so()
    it.happened()
    assert it.is_so()
    now_s = LATELY_S / 2
    it.happened()
    now_s = LATELY_S
    assert it.is_so()
    now_s = 1.5 * LATELY_S
    assert not it.is_so()
