"""Camera counts to what a network sees: two numbers, frozen when a stream begins."""

from __future__ import annotations

import numpy as np
import pytest

from rtdenoise.errors import ConfigError
from rtdenoise.normalize import HEADROOM, calibrate, calibrate_range


def frames(seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(90, 1000, (8, 200, 200)).astype(np.uint16))


def test_the_range_of_the_first_frames_leaves_headroom_for_brighter_ones() -> None:
    found = calibrate_range(frames())
    assert found.offset == 90
    normal = np.empty((200, 200), np.float32)
    found.apply(frames()[3], normal)
    assert normal.min() >= 0
    assert normal.max() == pytest.approx(1 / HEADROOM, rel=1e-2)


def test_a_hot_pixel_does_not_set_the_range() -> None:
    hot = frames()
    for frame in hot[:2]:
        frame[5, 5] = 60_000
    assert calibrate_range(hot).scale == pytest.approx(calibrate_range(frames()).scale, rel=2e-2)


@pytest.mark.parametrize("rule", [calibrate, calibrate_range])
def test_what_is_normalised_comes_back_in_counts(rule: object) -> None:
    found = rule(frames())  # type: ignore[operator]
    counts = 3 * frames(1)[0].astype(np.float32)  # far above the calibration: nothing is cut
    normal, back = np.empty_like(counts), np.empty_like(counts)
    found.apply(counts, normal)
    found.invert(normal, back)
    np.testing.assert_allclose(back, counts, rtol=1e-5)


@pytest.mark.parametrize("rule", [calibrate, calibrate_range])
def test_a_closed_shutter_cannot_be_calibrated_on(rule: object) -> None:
    with pytest.raises(ConfigError, match="only the value 7: is the shutter closed"):
        rule([np.full((4, 4), 7, np.uint16)])  # type: ignore[operator]
    with pytest.raises(ConfigError, match="at least one frame"):
        rule([])  # type: ignore[operator]
