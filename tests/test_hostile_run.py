"""A camera that goes wrong in the middle: what it had given comes out, the run ends with a name for why, the books balance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from soaks import books
from soaks.schedules import SHAPE, Op, ScheduledRun

from rtdenoise.frame import Pixels
from rtdenoise.shared import Slot, State

OPS: list[Op] = [("burst", 12), ("denoise", 5), ("burst", 20), ("denoise", 100)]
BAD_AT = 15


def run_with(
    bad: Callable[[int], Pixels], dtype: str = "uint16", model: str = "running-mean", patient: bool = True
) -> ScheduledRun:
    """A run whose frame BAD_AT is what `bad` makes of it."""
    run = ScheduledRun(OPS, model, lossless=False, patient=patient)
    run.camera.dtype, good = dtype, run.camera.make
    run.camera.make = lambda number: bad(number) if number == BAD_AT else good(number)
    run.go()
    return run


@pytest.mark.parametrize(
    "bad",
    [
        lambda number: np.zeros((2, 9), np.uint16),
        lambda number: np.zeros(SHAPE, np.uint8),
        lambda number: np.zeros((*SHAPE, 3), np.uint16),
    ],
    ids=["another region", "another type", "colours"],
)
@pytest.mark.parametrize("model", ["identity", "median"])
def test_a_frame_of_another_geometry_ends_the_run_by_name_and_what_came_before_is_kept(
    bad: Callable[[int], Pixels], model: str
) -> None:
    run = run_with(bad, model=model)
    ring = run.ring
    assert ring.state == State.FAILED
    assert ring.dropped() == {"acquire: bad frame": 1}
    assert int(ring.ints[Slot.DELIVERED]) == BAD_AT
    books.check_end(ring, BAD_AT + 1)
    assert [src for _, _, src in run.sent["denoised"]] == list(range(BAD_AT))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, np.float32(3e38)], ids=str)
@pytest.mark.parametrize("model", ["identity", "running-mean", "median"])
def test_pixels_that_are_no_counts_come_out_and_are_forgotten_with_their_window(value: float, model: str) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        run = run_with(lambda number: np.full(SHAPE, value, np.float32), "float32", model)
    assert run.ring.state == State.ENDED
    assert int(run.ring.ints[Slot.DELIVERED]) == run.camera.produced == 32
    books.check_end(run.ring, run.camera.produced)
    last = run.readers["denoised"].got[-1].pixels
    assert np.all((last > BAD_AT) & (last < 32)), "the last window, of at most 10 frames, no longer holds it"
