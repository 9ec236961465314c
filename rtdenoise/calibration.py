"""Which normalisation a stream begins with: one rule for the live path and for files."""

from __future__ import annotations

from collections.abc import Sequence

from rtdenoise import bundle as bundles
from rtdenoise.engine import filters
from rtdenoise.errors import ConfigError
from rtdenoise.frame import Pixels
from rtdenoise.normalize import Normalization, calibrate, calibrate_range
from rtdenoise.settings import EngineSettings

NEUTRAL = Normalization(0.0, 1.0)


def frames_needed(engine: EngineSettings) -> int:
    """Frames of a stream that must be here before it can begin; 1 where nothing is calibrated."""
    if engine.model in filters.FILTERS or engine.normalization == "bundle":
        return 1
    return 1 if bundles.read(engine.model).manifest.normalization.rule == "fixed" else engine.calibration_frames


def rule_of(engine: EngineSettings) -> str:
    """How its streams are calibrated; empty where nothing is, because the model brings its own numbers or needs none.

    Models of one rule can take over each other's calibrations of a field of view.
    """
    if engine.model in filters.FILTERS or engine.normalization == "bundle":
        return ""
    rule = bundles.read(engine.model).manifest.normalization.rule
    return "" if rule == "fixed" else rule


def starting_normalization(engine: EngineSettings, first_frames: Sequence[Pixels]) -> Normalization:
    """The frozen normalisation of a stream, from its first frames (fewer than asked for when the series is shorter).

    Untrained filters need none; bundles whose rule is `fixed` bring their own; `min-max` looks at the range of the
    frames, `mean-sd` at their mean and sd.
    A field without any contrast (a closed shutter) takes its level, and the contrast of the training data.
    """
    if engine.model in filters.FILTERS:
        return NEUTRAL
    shipped = bundles.read(engine.model).manifest.normalization
    if engine.normalization == "bundle" or shipped.rule == "fixed":
        return Normalization(shipped.offset, shipped.scale)
    try:
        return (calibrate_range if shipped.rule == "min-max" else calibrate)(first_frames)
    except ConfigError:
        return Normalization(float(first_frames[0].flat[0]), shipped.scale)
