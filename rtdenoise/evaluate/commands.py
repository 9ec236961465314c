"""What `rtdenoise evaluate` does: from what was asked for to tables, pictures, files."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rtdenoise import bundle as bundles
from rtdenoise.bundle import DEMO, Bundle
from rtdenoise.engine.filters import FILTERS
from rtdenoise.errors import ConfigError, FileFormatError, MissingExtraError
from rtdenoise.evaluate import contestants, external, folder, page, readings, tables
from rtdenoise.evaluate import recording as recordings
from rtdenoise.evaluate.compete import MovieChoice, compete
from rtdenoise.evaluate.standings import Board, boards, pooled
from rtdenoise.settings import EngineSettings
from rtdenoise.simulate import preset as simulation

COMMON = "calcium"
"""The preset on which every model is compared, whatever it is meant for."""
SQUARE_PX, FRAMES = 160, 800
CALCIUM_SNR_DB = (0.0, 10.0)
"""Movies of the leaderboard: enough cells and events to tell models apart within minutes on two cores. Engineering choice."""
RECORDED_FRAMES = 500
"""Of a recording: all of them, and every output, are in memory. Engineering choice."""


@dataclass(slots=True, frozen=True)
class Outputs:
    """Files that were asked for."""

    json: Path | None = None
    png: Path | None = None
    page: Path | None = None

    def check(self) -> None:
        """Raises what is wrong with the files now, not after minutes: ConfigError, FileFormatError or MissingExtraError."""
        if self.png and self.page:
            raise ConfigError("--write draws its pictures beside the page; leave --png out")
        for path in (self.json, self.png, self.page):
            if path is not None and not path.absolute().parent.is_dir():
                raise FileFormatError(f"{path}: there is no folder {path.absolute().parent}; make it first")
        if (self.png or self.page) and find_spec("matplotlib") is None:
            raise MissingExtraError("matplotlib", "evaluate")

    def save_json(self, console: Console, facts: dict[str, Any]) -> None:
        """Write it where it was asked for. Raises FileFormatError."""
        if self.json is None:
            return
        try:
            self.json.write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n", encoding="utf-8", newline="\n")
        except OSError as error:
            raise FileFormatError(f"{self.json}: cannot be written: {error}") from None
        _say(console, self.json)


@dataclass(slots=True, frozen=True)
class Asked:
    """Which models on which simulated movies; what is empty or None is chosen by what the models were made for."""

    models: tuple[str, ...]
    every: bool
    presets: tuple[str, ...]
    snr_db: tuple[float, ...]
    seeds: int
    first_seed: int
    size: int | None
    frames: int | None
    backend: str = "auto"
    processes: int = 1
    wide: bool = False


@dataclass(slots=True, frozen=True)
class Reading:
    """How a recording is read; see `rtdenoise.evaluate.recording.load`."""

    frames: int | None = None
    fps: float | None = None
    channel: int = 0
    channels: int | None = None
    dataset: str | None = None

    def load(self, path: Path) -> recordings.Recorded:
        """Raises FileFormatError or ConfigError."""
        return recordings.load(
            path, n_frames=self.frames, fps=self.fps, channel=self.channel, channels=self.channels, dataset=self.dataset
        )


def leaderboard(console: Console, err: Console, asked: Asked, saved: Outputs) -> None:
    """Every model beside every untrained filter. Raises ConfigError, BundleError, EngineError or MissingExtraError."""
    saved.check()
    models = chosen_models(asked)
    made = list[Board]()
    for preset in asked.presets or presets_of(models):
        made += _on_preset(console, err, asked, preset, models)
    for board in pooled(made):
        console.print(f"\n[bold]{board.preset}, all its movies[/bold]")
        for line in tables.sentences(board):
            console.print(line, highlight=False, soft_wrap=True)
    command = command_line()
    saved.save_json(console, tables.report(made, command))
    pictures = _draw(saved, made)
    for picture in pictures.values():
        _say(console, picture)
    if saved.page is not None:
        _say(console, page.write(saved.page, made, pictures, models, command))


def _on_preset(console: Console, err: Console, asked: Asked, preset: str, models: Sequence[Bundle]) -> list[Board]:
    """The models that are meant for it; all of them on the common preset, and when they were named."""
    everybody = asked.models or preset == COMMON
    here = [model for model in models if everybody or contestants.meant_for(model) in (preset, None)]
    everyone = [*contestants.untrained(), *(output for model in here for output in contestants.outputs_of(model))]
    choices = movies(asked, preset)
    with bar(err, f"{preset}: {len(everyone)} outputs, {len(choices)} movies") as progress:
        results = compete(everyone, choices, backend=asked.backend, processes=asked.processes, progress=progress)
    made = boards(results)
    for board in made:
        console.print(tables.table(board))
        if asked.wide:
            console.print(tables.wide(board))
    return made


def movies(asked: Asked, preset: str, side_px: int = SQUARE_PX) -> list[MovieChoice]:
    """The simulated movies of one preset, of `side_px` unless a size was asked for. Raises ConfigError for an unknown one."""
    known = simulation(preset)
    snrs: tuple[float | None, ...] = asked.snr_db or (CALCIUM_SNR_DB if known.kind == "calcium" else (known.snr_db,))
    side = asked.size or (None if known.kind == "voltage" else side_px)  # its strips are short and wide
    frames = asked.frames or FRAMES
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    return [MovieChoice(preset, seed, snr, (side, side) if side else None, frames) for snr in snrs for seed in seeds]


def chosen_models(asked: Asked) -> list[Bundle]:
    """Bundles to compare. Raises ConfigError when nothing was asked for, or one has seen a seed of the test."""
    if not (asked.models or asked.every):
        raise ConfigError("say what to evaluate: -m MODEL or --all on simulated movies, or a MOVIE")
    named = [bundles.read(name) for name in asked.models if name not in FILTERS]
    found = named + [
        model for model in contestants.shipped() if asked.every and model.path not in {n.path for n in named}
    ]
    for model in found:
        contestants.check_seeds(model, range(asked.first_seed, asked.first_seed + asked.seeds))
    return found


def presets_of(models: Sequence[Bundle]) -> list[str]:
    """What the models are meant for; calcium first, and for those that do not say."""
    wanted = {contestants.meant_for(model) or COMMON for model in models} or {COMMON}
    return sorted(wanted, key=lambda name: (name != COMMON, name))


def _draw(saved: Outputs, made: Sequence[Board]) -> dict[str, Path]:
    """Preset -> picture, where one was asked for."""
    target = saved.png or (saved.page.parent / "leaderboard.png" if saved.page else None)
    if target is None:
        return {}
    from rtdenoise.evaluate import pictures

    drawn = {}
    presets = list(dict.fromkeys(board.preset for board in made))
    for preset in presets:
        alone = len(presets) == 1 and saved.page is None
        path = target if alone else target.with_name(f"{target.stem}-{preset}{target.suffix}")
        drawn[preset] = pictures.leaderboard(path, [board for board in made if board.preset == preset])
    return drawn


def recording(
    console: Console,
    err: Console,
    movie: Path,
    models: Sequence[str],
    reading: Reading,
    saved: Outputs,
    *,
    backend: str,
) -> None:
    """A recording without truth. Raises FileFormatError for the file, and what a bundle or an engine can raise."""
    saved.check()
    recorded = reading.load(movie)
    asked = [EngineSettings(model=name, backend=backend, hop=contestants.hop_of(name)) for name in models or (DEMO,)]
    with err.status(f"{movie.name}: {len(recorded.counts)} frames, {len(asked)} outputs"):
        seen = recordings.examine(recorded, asked)
    _show(console, seen, saved)


def against(
    console: Console,
    movie: Path,
    denoised: Path,
    reading: Reading,
    saved: Outputs,
    *,
    truth: Path | None,
    first_frame: int | None,
) -> None:
    """A file that another program denoised. Raises FileFormatError for files, ConfigError when they do not fit together."""
    saved.check()
    raw, output = reading.load(movie), reading.load(denoised)
    start = external.check_alignment(raw, output, first_frame)
    if truth is None:
        _show(console, recordings.compare(raw, output.name, output.counts, start), saved)
        return
    scores = external.score(raw, output, folder.read_truth(truth), start)
    console.print(external.table(scores, len(output.counts)))
    saved.save_json(console, external.report(scores, truth, command_line()))
    if saved.png is not None:
        _say(console, readings.picture(recordings.compare(raw, output.name, output.counts, start), saved.png))


def _show(console: Console, seen: recordings.Examination, saved: Outputs) -> None:
    console.print(readings.table(seen))
    saved.save_json(console, readings.report(seen, command_line()))
    if saved.png is not None:
        _say(console, readings.picture(seen, saved.png))


def command_line() -> str:
    """What was typed, for reports."""
    return f"rtdenoise {shlex.join(sys.argv[1:])}"


def _say(console: Console, path: Path | None) -> None:
    if path is not None:
        console.print(f"-> {path}", highlight=False, soft_wrap=True)


@contextmanager
def bar(console: Console, label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time left; gives `progress(done, total)`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
