"""Reading in one request what lies side by side."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers.batches import MAX_BITS, MAX_REGISTERS, Batch, Span, Table, batches


def holding(address: int, size: int = 1) -> Span:
    return Span(Table.HOLDING, address, size)


def test_neighbours_are_read_together_and_strangers_apart() -> None:
    spans = {"c": holding(2, 2), "a": holding(0), "b": holding(1), "far": holding(10), "coil": Span(Table.COIL, 4, 1)}
    assert batches(spans) == [
        Batch(Span(Table.COIL, 4, 1), ("coil",)),
        Batch(holding(0, 4), ("a", "b", "c")),
        Batch(holding(10), ("far",)),
    ]


def test_a_gap_is_read_along_where_it_is_allowed() -> None:
    spans = {"a": holding(0), "b": holding(4)}
    assert len(batches(spans, max_gap=2)) == 2
    assert batches(spans, max_gap=3) == [Batch(holding(0, 5), ("a", "b"))]


def test_bits_of_one_register_are_one_request() -> None:
    spans = {f"bit{number}": holding(7) for number in range(16)}
    ((span, names),) = batches(spans)
    assert (span, len(names)) == (holding(7), 16)


def test_a_value_is_not_torn_at_the_limit() -> None:
    spans = {"most": holding(0, 124), "pair": holding(124, 2)}
    assert [batch.span for batch in batches(spans)] == [holding(0, 124), holding(124, 2)]


@pytest.mark.parametrize(("table", "limit"), [(Table.COIL, MAX_BITS), (Table.INPUT, MAX_REGISTERS)])
def test_the_limits_are_the_protocols(table: Table, limit: int) -> None:
    spans = {str(address): Span(table, address, 1) for address in range(limit + 1)}
    assert [batch.span.size for batch in batches(spans)] == [limit, 1]


def test_a_span_is_called_by_its_name_and_place() -> None:
    assert str(holding(3)) == "holding register 3"
    assert str(Span(Table.DISCRETE_INPUT, 3, 2)) == "discrete inputs 3 to 4"


some_spans = st.dictionaries(
    st.text(st.characters(codec="ascii"), min_size=1, max_size=3),
    st.builds(Span, st.sampled_from(Table), st.integers(0, 300), st.integers(1, 20)),
    max_size=40,
)


@given(some_spans, st.integers(20, MAX_REGISTERS), st.integers(0, 10))
def test_whatever_is_asked_comes_whole_and_once_within_the_limits(
    spans: dict[str, Span], max_registers: int, max_gap: int
) -> None:
    found = batches(spans, max_registers=max_registers, max_gap=max_gap)
    assert sorted(name for batch in found for name in batch.names) == sorted(spans)
    for batch in found:
        table, address, size = batch.span
        assert size <= (MAX_BITS if table.holds_bits else max_registers)
        asked: set[int] = set()
        for name in batch.names:
            span = spans[name]
            assert span.table is table
            assert address <= span.address
            assert span.end <= batch.span.end
            asked |= set(range(span.address, span.end))
        gap = 0
        for each in range(address, batch.span.end):
            gap = 0 if each in asked else gap + 1
            assert gap <= max_gap
    assert len(found) <= len(spans)


@given(some_spans)
def test_without_gaps_no_two_batches_touch_that_could_be_one(spans: dict[str, Span]) -> None:
    found = batches(spans)
    for one, other in itertools.pairwise(found):
        if one.span.table is other.span.table and one.span.end >= other.span.address:
            limit = MAX_BITS if one.span.table.holds_bits else MAX_REGISTERS
            assert max(one.span.end, spans[other.names[0]].end) - one.span.address > limit
