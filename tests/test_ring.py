"""The ring: linear numbers, contiguous windows, no copies."""

import pytest

from rtdenoise.errors import WindowError
from rtdenoise.ring import FrameRing, bounce


def filled(n: int, capacity: int) -> FrameRing:
    ring = FrameRing((2, 3), capacity)
    for k in range(n):
        ring.next_slot()[...] = k
        ring.commit()
    return ring


@pytest.mark.parametrize("n", [1, 4, 5, 6, 23])
def test_every_window_of_the_last_frames_is_one_contiguous_view_in_order(n: int) -> None:
    ring = filled(n, 5)
    for first in range(max(0, n - 5), n):
        for stop in range(first + 1, n + 1):
            window = ring.window(first, stop)
            assert window[:, 0, 0].tolist() == list(range(first, stop))
            assert window.flags.c_contiguous
            assert window.base is not None


@pytest.mark.parametrize(("first", "stop"), [(0, 3), (7, 9), (5, 5), (-1, 2)])
def test_a_window_that_is_not_in_the_ring_is_refused(first: int, stop: int) -> None:
    with pytest.raises(WindowError, match="not in the ring"):
        filled(8, 5).window(first, stop)


def test_reset_starts_the_numbers_again_and_keeps_the_memory() -> None:
    ring = filled(9, 4)
    memory = ring.next_slot().__array_interface__["data"][0] // 4096
    ring.reset()
    ring.next_slot()[...] = 7
    assert ring.commit() == 0
    assert ring.window(0, 1)[0, 0, 0] == 7
    assert abs(ring.window(0, 1).__array_interface__["data"][0] // 4096 - memory) <= 1


def test_bounce_mirrors_about_the_first_and_the_last_frame() -> None:
    assert [bounce(i, 4) for i in range(-4, 9)] == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert [bounce(i, 1) for i in (-3, 0, 5)] == [0, 0, 0]
