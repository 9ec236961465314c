"""What a window holds: whatever a camera does to its numbers, every output says truly which frames it was made of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from soaks.windows import STARTS, STEPS, Untrue, acquired, check_outputs, outputs

from rtdenoise.frame import WindowSpec
from rtdenoise.shared import Slot
from rtdenoise.stream import StreamingDenoiser

N_CASES = 2000


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
@given(specs(), st.sampled_from(STARTS), st.lists(st.sampled_from(STEPS), max_size=70))
def test_every_output_is_made_of_the_frames_it_names_and_none_spans_a_hole_unsaid(
    spec: WindowSpec, start: int, steps: Sequence[int]
) -> None:
    numbers = [start]
    for step in steps:
        numbers.append(max(0, numbers[-1] + step))
    check_outputs(spec, numbers)


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


def test_a_stream_that_does_not_close_its_window_at_a_hole_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    push = StreamingDenoiser.push
    unsaid = lambda self, frame: push(self, frame.restamped(dropped=0))  # noqa: E731
    monkeypatch.setattr(StreamingDenoiser, "push", unsaid)
    with pytest.raises(Untrue, match="hole"):
        check_outputs(WindowSpec(3, (1,)), [0, 1, 2, 5, 6, 7])
