"""Which streams have been seen (RFC 9000 §2.1)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from masque.h3.ids import SeenStreams


@given(st.lists(st.integers(0, 40) | st.integers(0, (1 << 60) - 1), max_size=60), st.integers(0, 3))
def test_it_behaves_as_a_set(ordinals: list[int], bits: int) -> None:
    seen = SeenStreams()
    model: set[int] = set()
    for ordinal in ordinals:
        stream_id = ordinal << 2 | bits
        assert (stream_id in seen) == (stream_id in model)
        assert seen.add(stream_id) == (stream_id not in model)
        model.add(stream_id)
        assert seen.end == (max(model) >> 2) + 1 << 2
    for ordinal in range(50):
        assert (ordinal << 2 | bits in seen) == (ordinal << 2 | bits in model)


def test_streams_in_order_leave_no_gap() -> None:
    seen = SeenStreams()
    assert all(seen.add(stream_id) for stream_id in range(0, 400_000, 4))
    assert seen.gap_count == 0


def test_streams_out_of_order_close_their_gaps() -> None:
    seen = SeenStreams()
    for first in range(0, 4000, 40):
        for stream_id in range(first + 36, first - 4, -4):
            assert seen.add(stream_id)
            assert seen.gap_count <= 1
    assert seen.gap_count == 0


def test_a_stream_that_never_comes_costs_one_gap() -> None:
    seen = SeenStreams()
    assert all(seen.add(stream_id) for stream_id in range(4, 40_000, 4))
    assert seen.gap_count == 1
    assert 0 not in seen
