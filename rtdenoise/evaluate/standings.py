"""Who stands where: means over seeds, groups by look-ahead, and whether a model beats every untrained filter of its group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rtdenoise.evaluate.compete import Result
from rtdenoise.evaluate.contestants import RAW, Contestant

MEASURES = (
    "psnr",
    "ssim",
    "dynamic_snr",
    "f1",
    "snr",
    "roi_r",
    "pixel_r",
    "peak_ratio",
    "precision",
    "recall",
    "fluctuation_error",
)
"""Fields of `rtdenoise.metrics.Scores` that are averaged over seeds."""


@dataclass(slots=True, frozen=True)
class Group:
    """Contestants that wait about as long. longest: frames of look-ahead, None for any."""

    title: str
    longest: int | None

    def holds(self, lookahead: int) -> bool:
        """Whether somebody in this group could wait so long."""
        return self.longest is None or lookahead <= self.longest


GROUPS = (
    Group("waits for no frame", 0),
    Group("waits for 1 to 3 frames", 3),
    Group("waits for more frames", None),
)


@dataclass(slots=True, frozen=True)
class Interval:
    """A mean over seeds and half the range that the seeds span. nan where a movie has no such thing (events without cells)."""

    mean: float
    spread: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Interval:
        """Of one value per seed."""
        known = [value for value in values if value is not None]
        return cls(float(np.mean(known)), float(np.ptp(known)) / 2) if known else cls(float("nan"), 0.0)


UNKNOWN = Interval(float("nan"), 0.0)


@dataclass(slots=True, frozen=True)
class Verdict:
    """A model against the untrained filters, seed by seed. psnr, dynamic_snr: dB over the best one that waits no longer than its group.
    group_psnr, group_dynamic_snr: over the best one within its group.  f1: over the raw movie.

    beats: better in PSNR or in dynamic SNR, and no fewer events than the raw movie (F1, to two decimals). beats_group: the same
    against its own group alone.
    """

    psnr: Interval
    dynamic_snr: Interval
    f1: Interval
    group_psnr: Interval = UNKNOWN
    group_dynamic_snr: Interval = UNKNOWN

    @property
    def beats(self) -> bool:
        """See the class; a movie without cells asks for no events."""
        return self._keeps_events and (self.psnr.mean > 0 or self.dynamic_snr.mean > 0)

    @property
    def beats_group(self) -> bool:
        """See the class."""
        return self._keeps_events and (self.group_psnr.mean > 0 or self.group_dynamic_snr.mean > 0)

    @property
    def answer(self) -> str:
        """`yes`, `group` when quicker filters are better, or `no`."""
        return "yes" if self.beats else "group" if self.beats_group else "no"

    @property
    def _keeps_events(self) -> bool:
        return bool(np.isnan(self.f1.mean) or round(self.f1.mean, 2) >= 0)

    @property
    def text(self) -> str:
        """Gains in PSNR, dynamic SNR and F1."""
        gains = ((self.psnr.mean, ".1f"), (self.dynamic_snr.mean, ".1f"), (self.f1.mean, ".2f"))
        return " / ".join("-" if np.isnan(gain) else format(gain, f"+{form}") for gain, form in gains)


@dataclass(slots=True, frozen=True)
class Standing:
    """One contestant at one input SNR. means: one per measure.  ms_late: time that the look-ahead takes at the movie's frame rate."""

    contestant: Contestant
    group: Group
    means: dict[str, Interval]
    ms_late: float
    ms_per_frame: float
    engine: str
    results: tuple[Result, ...]
    verdict: Verdict | None = None

    def __getitem__(self, measure: str) -> float:
        """Mean over seeds."""
        return self.means[measure].mean


@dataclass(slots=True, frozen=True)
class Board:
    """All standings at one input SNR of one preset. Groups without a contestant have no rivals either."""

    preset: str
    snr_db: float | None
    standings: tuple[Standing, ...]

    @property
    def title(self) -> str:
        """The preset and what comes in."""
        return f"{self.preset}, {self.snr_in_db:.0f} dB in"

    @property
    def snr_in_db(self) -> float:
        """What was asked for, else what came out."""
        results = self.standings[0].results
        return self.snr_db if self.snr_db is not None else float(np.mean([result.snr_in_db for result in results]))

    @property
    def raw(self) -> Standing:
        """The movie as it was recorded."""
        return next(standing for standing in self.standings if standing.contestant.model == RAW)

    @property
    def clean_f1(self) -> float:
        """What finding events in the clean movie itself gives; nan without cells."""
        return Interval.of(result.clean_f1 for result in self.raw.results).mean

    def of(self, group: Group) -> list[Standing]:
        """In the order of their dynamic SNR, filters before models."""
        here = [standing for standing in self.standings if standing.group == group]
        return sorted(here, key=lambda s: (s.contestant.trained, s.contestant.model != RAW, s["dynamic_snr"]))

    def rivals(self, group: Group) -> list[Standing]:
        """Untrained filters that wait no longer than this group."""
        return [s for s in self.standings if not s.contestant.trained and group.holds(s.contestant.lookahead)]

    def best_rival(self, group: Group, measure: str) -> Standing:
        """The untrained filter to beat."""
        return best(self.rivals(group), measure)

    def best_of_group(self, group: Group, measure: str) -> Standing | None:
        """The best untrained filter that waits as long as this group; the raw movie is none."""
        here = [s for s in self.of(group) if not s.contestant.trained and s.contestant.model != RAW]
        return best(here, measure) if here else None


def best(standings: Sequence[Standing], measure: str) -> Standing:
    """The highest mean; one without the measure comes last."""
    return max(standings, key=lambda s: s[measure] if np.isfinite(s[measure]) else -np.inf)


def boards(results: Sequence[Result]) -> list[Board]:
    """One per preset and input SNR, in the order of the results. The raw movie must be among the contestants."""
    made = []
    for name, snr_db in dict.fromkeys((result.choice.preset, result.choice.snr_db) for result in results):
        here = [result for result in results if (result.choice.preset, result.choice.snr_db) == (name, snr_db)]
        plain = Board(name, snr_db, tuple(_standings(here)))
        made.append(Board(name, snr_db, tuple(_judged(standing, plain) for standing in plain.standings)))
    return made


def pooled(made: Sequence[Board]) -> list[Board]:
    """One board per preset, over the movies of all its input SNRs."""
    whole = []
    for preset in dict.fromkeys(board.preset for board in made):
        standings = [standing for board in made if board.preset == preset for standing in board.standings]
        plain = Board(preset, None, tuple(_standings([result for s in standings for result in s.results])))
        whole.append(Board(preset, None, tuple(_judged(standing, plain) for standing in plain.standings)))
    return whole


def group_of(contestant: Contestant) -> Group:
    """The first group that waits as long."""
    return next(group for group in GROUPS if group.holds(contestant.lookahead))


def _standings(results: Sequence[Result]) -> Iterable[Standing]:
    for contestant in dict.fromkeys(result.contestant for result in results):
        own = tuple(result for result in results if result.contestant == contestant)
        yield Standing(
            contestant=contestant,
            group=group_of(contestant),
            means={name: Interval.of(getattr(result.scores, name) for result in own) for name in MEASURES},
            ms_late=1e3 * contestant.lookahead / own[0].frame_rate_hz,
            ms_per_frame=float(np.median([result.ms_per_frame for result in own])),
            engine=own[0].engine,
            results=own,
        )


def _judged(standing: Standing, board: Board) -> Standing:
    if not standing.contestant.trained:
        return standing
    group = standing.group
    verdict = Verdict(
        psnr=_gain(standing, board.best_rival(group, "psnr"), "psnr"),
        dynamic_snr=_gain(standing, board.best_rival(group, "dynamic_snr"), "dynamic_snr"),
        f1=_gain(standing, board.raw, "f1"),
        group_psnr=_gain(standing, board.best_of_group(group, "psnr"), "psnr"),
        group_dynamic_snr=_gain(standing, board.best_of_group(group, "dynamic_snr"), "dynamic_snr"),
    )
    return replace(standing, verdict=verdict)


def _gain(standing: Standing, rival: Standing | None, measure: str) -> Interval:
    """Over the rival on the same movies."""
    if rival is None:
        return UNKNOWN
    pairs = zip(standing.results, rival.results, strict=True)
    values = [(getattr(own.scores, measure), getattr(other.scores, measure)) for own, other in pairs]
    return Interval.of(a - b for a, b in values if a is not None and b is not None)
