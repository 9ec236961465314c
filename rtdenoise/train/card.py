"""The card of a model: what it learned from, how the training went, and what it gives on simulated movies it never saw,
through the live stream, beside the untrained filters that wait no longer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rtdenoise import bundle as bundles
from rtdenoise import machine
from rtdenoise.bundle import Bundle
from rtdenoise.evaluate import contestants
from rtdenoise.evaluate.compete import MovieChoice, compete
from rtdenoise.evaluate.page import row
from rtdenoise.evaluate.standings import Board, Standing, boards
from rtdenoise.evaluate.tables import spread
from rtdenoise.methods import base
from rtdenoise.methods.base import Method
from rtdenoise.normalize import CALIBRATION_FRAMES
from rtdenoise.train.recipe import Recipe, SimulatedMovies, load

CARD, SUMS, CURVE, PICTURE = "card.md", "bundle.sha256", "training.json", "training.png"
HEADING = "| | wait | PSNR | SSIM | DynSNR | F1 | ms | beats | gain |\n|---|---|---|---|---|---|---|---|---|"

Curve = tuple[list[float], list[float]]


def measure(bundle: Bundle, groups: Sequence[SimulatedMovies], processes: int = 1) -> Iterator[Board]:
    """Every movie raw, streamed by the bundle, and by each untrained filter that waits no longer than it; one board per
    input SNR of a group.

    Raises ConfigError for movies too short for the window, or too small.
    """
    outputs = contestants.outputs_of(bundle)
    for group in groups:
        yield from boards(compete([*contestants.rivals(outputs), *outputs], list(_movies(group)), processes=processes))


def _movies(group: SimulatedMovies) -> Iterator[MovieChoice]:
    for i, seed in enumerate(group.seeds):
        snr_db = group.snr_db[i % len(group.snr_db)]
        yield MovieChoice(group.preset, seed, snr_db, group.shape, group.n_frames, tuple(sorted(group.change.items())))


def renew(recipe_path: Path, processes: int = 1) -> Path:
    """Measure the bundle of a recipe again and write its card, without training. Returns the card.

    Raises ConfigError or BundleError for a recipe or a bundle that cannot be used.
    """
    recipe, folder = load(recipe_path)
    bundle = bundles.read(folder / recipe.bundle.folder)
    write(folder, recipe, base.load(recipe.method), bundle, list(measure(bundle, recipe.card.score_on, processes)))
    return folder / CARD


def write(folder: Path, recipe: Recipe, method: Method, bundle: Bundle, measured: Sequence[Board]) -> None:
    """`card.md`, `bundle.sha256` and, where matplotlib is installed, `training.png` in the recipe's folder."""
    course = _course(folder, bundle)
    picture = _draw(folder / PICTURE, course.get("curve", []))
    written = text(recipe, method, bundle, measured, course, picture)
    (folder / CARD).write_text(written, encoding="utf-8", newline="\n")
    # Not of the manifest: as text it may have other line ends in a checkout. It holds the same sums.
    lines = [f"{digest}  {name}\n" for name, digest in sorted(bundle.manifest.checksums.items())]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def text(
    recipe: Recipe, method: Method, bundle: Bundle, measured: Sequence[Board], course: Mapping[str, Any], picture: bool
) -> str:
    """The card, in Markdown."""
    facts = ", ".join(f"{name} = {value}" for name, value in bundle.manifest.method_config.items())
    size_kb = sum((bundle.path / name).stat().st_size for name in bundle.manifest.checksums) / 1000
    limits = "\n".join(f"- {line}" for line in recipe.card.limits)
    reference = f"doi:{method.reference}" if method.reference.startswith("10.") else method.reference
    return f"""# {recipe.name}

{method.title} ({reference}), {facts}. Bundle {bundle.hash}, {size_kb:.0f} kB, {bundle.manifest.precision}.

{_learning(recipe, bundle, course, picture)}
{_quality(measured)}
## Limits

{limits}

## Licence

{recipe.card.licence}
{_terms(method)}"""


def _terms(method: Method) -> str:
    return f"\nAbout the published method: {method.terms}\n" if method.terms else ""


def _learning(recipe: Recipe, bundle: Bundle, course: Mapping[str, Any], picture: bool) -> str:
    steps, settings = bundle.manifest.provenance.get("steps"), recipe.train
    made_of = "\n".join(f"- {line}" for line in _data_lines(recipe))
    took = ""
    if "seconds" in course:
        took = f" It took {course['seconds'] / 60:.0f} minutes on {course['device']} ({_count(course['threads'], 'thread')})."
    kept = bundle.manifest.provenance.get("kept_step", steps)
    weights = f" The weights are those of step {kept}, the best on held-out frames." if kept != steps else ""
    drawn = f"\n![The course of the training]({PICTURE})\n" if picture else ""
    return f"""## What it learned from

Noisy frames only; no clean frame was shown.

{made_of}

{steps} steps of {settings.batch} crops of {settings.crop_px} x {settings.crop_px} px,
learning rate {settings.learning_rate:g} ({settings.schedule}), seed {settings.seed}.{weights}{took}
Recipe: `recipe.toml` here; `rtdenoise train` on this folder makes the bundle again.
{drawn}"""


def _quality(measured: Sequence[Board]) -> str:
    if not measured:
        return "## What it gives\n\nThe recipe names no movies to score it on: nothing was measured.\n"
    models = [standing for board in measured for standing in board.standings if standing.contestant.trained]
    engine = ", ".join(sorted({standing.engine for standing in models}))
    tables = "\n".join(_board(board) for board in measured)
    return f"""## What it gives

Simulated movies with seeds that training never saw, frame by frame through the live stream, calibrated on the first
{CALIBRATION_FRAMES} frames; frames without a full window at the ends are left out for all. {_outputs(models)}PSNR over the range of
the clean movie, DynSNR of the changes alone: dB. F1 of events at the best threshold. wait: look-ahead. ms: processor
time of one thread per frame of this size ({engine}, {machine.cpu_name()}). gain: PSNR and DynSNR over the best
untrained filter that waits no longer (\\*), F1 over raw; beats: better in one of the two, and F1 not below raw's.
Measured {datetime.now(UTC).date().isoformat()}.

{tables}"""


def _outputs(models: Sequence[Standing]) -> str:
    if len({standing.contestant.latency for standing in models}) < 2:
        return ""
    return "The plain output merges every window that holds\na frame or waits for the best one, `causal` takes the newest. "


def _board(board: Board) -> str:
    """The raw movie, the filters to beat, the model's outputs."""
    models = [standing for standing in board.standings if standing.contestant.trained]
    starred = {board.best_rival(s.group, measure).contestant for s in models for measure in ("psnr", "dynamic_snr")}
    shown = [s for s in board.standings if s is board.raw or s.contestant in starred or s.contestant.trained]
    shown.sort(key=lambda s: (s.contestant.trained, s.contestant.lookahead))
    start, stop = board.raw.results[0].span
    height, width = board.raw.results[0].shape
    changed = "".join(f", {name} = {value}" for name, value in board.raw.results[0].choice.change)
    movies = f"{_count(len(board.raw.results), 'movie')} of {stop - start} frames of {height} x {width}"
    lines = "\n".join(row(board, standing, standing.contestant.label) for standing in shown)
    return f"### {board.title}{changed}: {movies}\n\n{spread(board)}\n\n{HEADING}\n{lines}\n"


def _course(folder: Path, bundle: Bundle) -> dict[str, Any]:
    """`training.json`, else what the bundle says of its validations."""
    file = folder / CURVE
    if file.is_file():
        course: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return course
    return {"curve": bundle.manifest.provenance.get("validation", [])}


def _draw(path: Path, entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is a picture of the curve now; without matplotlib the one that is there stays."""
    panels = {
        label: lines for label, lines in (("loss", _losses(entries)), ("gain over raw, dB", _gains(entries))) if lines
    }
    if not panels or find_spec("matplotlib") is None:
        return path.is_file() and bool(panels)
    from rtdenoise.evaluate import pictures

    pictures.training(path, panels)
    return True


def _losses(entries: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    named = {"training": "loss", "held-out frames": "validation_loss"}
    lines = {label: _curve(entries, lambda entry, key=key: entry.get(key)) for label, key in named.items()}
    return {label: line for label, line in lines.items() if line[0]}


def _gains(entries: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    names = dict.fromkeys(name for entry in entries for name in entry.get("gain_db", {}))
    return {name: _curve(entries, lambda entry, name=name: entry.get("gain_db", {}).get(name)) for name in names}


def _curve(entries: Sequence[Mapping[str, Any]], value: Any) -> Curve:
    """(Any: a function of an entry that may have nothing to say.)"""
    known = [(entry["step"], value(entry)) for entry in entries if value(entry) is not None]
    return [step for step, _ in known], [float(found) for _, found in known]


def _data_lines(recipe: Recipe) -> Iterator[str]:
    for pattern in recipe.data.movies:
        yield f"files `{pattern}`"
    for group in recipe.data.simulated:
        size = f"{group.n_frames} frames of {group.shape[0]} x {group.shape[1]} px"
        changed = "".join(f", {name} = {value}" for name, value in group.change.items())
        snrs = ", ".join(f"{snr:g}" for snr in group.snr_db)
        yield f"{_count(len(group.seeds), 'simulated movie')} `{group.preset}`{changed}: {size}, input SNR {snrs} dB"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
