"""What a window holds: whatever a camera does to its numbers, every output says truly which frames it was made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from soaks.windows import Output, acquired, outputs

from rtdenoise.frame import WindowSpec
from rtdenoise.shared import Slot

N_CASES = 2000
STARTS = (0, 2**31 - 5, 2**53 - 10)
"""Where 32-bit integers and the whole numbers of JavaScript end."""
STEPS = st.sampled_from((1, 1, 1, 1, 1, 1, 2, 3, 0, -1, -3, -100))
"""From one camera number to the next: in order, missing, twice, late, and a camera that counts from the beginning again."""


@st.composite
def specs(draw: st.DrawFn) -> WindowSpec:
    size = draw(st.integers(1, 61))
    hop = draw(st.integers(1, min(size, 8)))
    first = draw(st.integers(0, size - hop))
    trims = draw(st.booleans())
    fewest = draw(st.integers(1, size)) if trims else size
    return WindowSpec(size, range(first, first + hop), hop, "trim" if trims else "mirror", fewest)


@seed(6)
@settings(max_examples=N_CASES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), st.sampled_from(STARTS), st.lists(STEPS, max_size=70))
def test_every_output_is_made_of_the_frames_it_names_and_none_spans_a_hole_unsaid(
    spec: WindowSpec, start: int, steps: Sequence[int]
) -> None:
    numbers = [max(0, int(n)) for n in np.cumsum([start, *steps], dtype=np.int64)]
    found = outputs(spec, numbers)
    assert [o.place for o in found] == list(range(len(found))), "each accepted frame once, in order"
    for o in found:
        check(spec, o)


def check(spec: WindowSpec, o: Output) -> None:
    """One output against what its engine was really given."""
    first, last = o.window
    assert set(o.given) <= set(range(first, last + 1))
    assert {first, last} <= set(o.given)
    assert sorted(set(o.given)) == list(range(first, last + 1)), "a window never spans a hole"
    assert o.src in o.given
    if o.complete:
        assert o.given == list(range(first, first + spec.size)), "a complete window is whole, in order, not mirrored"
        assert o.src - first in spec.emits


def test_a_frame_that_comes_late_or_twice_is_counted_and_in_no_window() -> None:
    ring = acquired([10, 11, 11, 14, 12, 13, 15])
    assert [frame.stamp.src_frame for k in range(ring.head) if (frame := ring.frame(k))] == [10, 11, 14, 15]
    assert ring.dropped() == {"source: skipped by policy": 2, "acquire: came late or twice": 3}
    assert int(ring.ints[Slot.ACQUIRED]) == ring.head + 5


def test_a_camera_that_counts_from_the_beginning_again_goes_on_behind_a_hole() -> None:
    numbers = [*range(200, 205), *range(5)]
    found = outputs(WindowSpec(3, (1,)), numbers)
    assert [o.src for o in found] == numbers
    assert [o.complete for o in found] == [False, True, True, True, False] * 2
