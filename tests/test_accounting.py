"""Where every frame went, asked at every step of random runs: bursts, stalls, losses, kills, take-overs, stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from soaks.books import Violation
from soaks.schedules import MODELS, SHAPE, Op, run_schedule

from rtdenoise.ledger import Ledger
from rtdenoise.shared import SharedRing, Slot

N_SCHEDULES = 2000
BURSTS = (1, 3, 8, 30, 70, 130)
"""Around the 64 frames that the ring holds."""
OPS: st.SearchStrategy[Op] = st.one_of(
    st.tuples(st.just("burst"), st.sampled_from(BURSTS)),
    st.tuples(st.just("denoise"), st.sampled_from((1, 2, 5, 30, 100))),
    st.tuples(st.sampled_from(("lose", "skip")), st.integers(1, 3)),
    st.tuples(st.just("kill"), st.integers(1, 300)),
    st.tuples(st.sampled_from(("series", "stall", "wake", "replace", "stop", "denoise")), st.just(1)),
)
SCHEDULES = st.lists(OPS, min_size=1, max_size=8)


@seed(6)
@settings(
    max_examples=N_SCHEDULES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(SCHEDULES, st.sampled_from(MODELS), st.booleans(), st.booleans())
def test_at_every_step_of_a_run_every_frame_is_delivered_dropped_for_a_reason_or_in_flight(
    ops: list[Op], model: str, lossless: bool, patient: bool
) -> None:
    run_schedule(ops, model=model, lossless=lossless, patient=patient)


def test_a_schedule_does_what_it_says() -> None:
    ops: list[Op] = [("burst", 5), ("lose", 2), ("burst", 1), ("denoise", 9), ("series", 1), ("burst", 4)]
    run = run_schedule(ops)
    assert run.camera.produced == int(run.ring.ints[Slot.ACQUIRED]) == 12
    assert int(run.ring.ints[Slot.DELIVERED]) == 10
    assert run.ring.dropped() == {"source: lost in the camera buffer": 2}
    assert [number for _, number, _ in run.sent["denoised"]] == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert [frame.stamp.src_frame for frame in run.readers["raw"].got] == [0, 1, 2, 3, 4, 7, 0, 1, 2, 3]
    assert all(np.all(frame.pixels == frame.stamp.src_frame) for frame in run.readers["raw"].got)
    assert run.readers["raw"].got[0].pixels.shape == SHAPE


def test_a_reader_that_stalls_misses_frames_and_counts_each_of_them() -> None:
    run = run_schedule([("stall", 1), ("burst", 20), ("denoise", 100), ("wake", 1), ("burst", 1)])
    for stream, reader in run.readers.items():
        assert reader.subscriber.missed == 21 - reader.subscriber.received > 10, stream


@pytest.mark.parametrize("lines", range(40, 400, 40))
def test_a_process_killed_at_any_line_leaves_books_that_its_successor_makes_good(lines: int) -> None:
    run = run_schedule([("burst", 30), ("kill", lines), ("denoise", 100)], model="median", patient=True)
    assert run.n_kills == 1
    assert int(run.ring.ints[Slot.DELIVERED]) == 30


def test_a_count_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedRing, "count_drop", lambda *_: None)
    with pytest.raises(Violation, match="acquired"):
        run_schedule([("burst", 130), ("denoise", 100)])


def test_a_frame_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Ledger.deliver
    monkeypatch.setattr(Ledger, "deliver", lambda ledger, number: None if number == 3 else honest(ledger, number))
    with pytest.raises(Violation, match="said to be delivered"):
        run_schedule([("burst", 8), ("denoise", 100)])


def test_a_frame_that_is_settled_late_does_not_wipe_out_the_one_that_overwrote_it() -> None:
    ring = run_schedule([("burst", 130), ("denoise", 200)]).ring
    late = ring.head - ring.capacity - 1
    ring.settle(late + ring.capacity)
    ring.settle(late)
    assert ring.is_settled(late + ring.capacity)
