"""The leaderboard as a page of the repository: written by the command that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rtdenoise import machine
from rtdenoise.bundle import Bundle
from rtdenoise.errors import FileFormatError
from rtdenoise.evaluate.contestants import meant_for
from rtdenoise.evaluate.standings import GROUPS, Board, Group, Standing, best, pooled
from rtdenoise.evaluate.tables import figure, is_to_beat, spread, title

INTRODUCTION = """# Models

Every model that ships with rtdenoise beside every untrained filter, on simulated movies that none of them learned from, denoised frame by
frame as a live run does it and scored on the same frames. A model's name leads to its card: data, limits, licence.

Written by `{command}` on {date}; do not edit. Engine {engines}, one thread, {cpu}.

- **PSNR** over the range of the clean movie, and **DynSNR**, of the changes alone: dB. **F1** of events at the best threshold, against the
  true spike times. A long average wins PSNR and erases events: read the three together.
- **wait**: look-ahead in frames, and in ms at the movie's frame rate. **ms**: processor time of one
  thread per frame of this size.
- **\\***: the best untrained filter that waits no longer than the group. **beats**: better than it in PSNR or in DynSNR, and an F1 not
  below the raw movie's (two decimals); *group*: better than the filters of its own group only, quicker ones are as good or better.
  **gain**: PSNR and DynSNR over the starred filters, F1 over raw. **Bold**: best of the group.
"""


def write(
    path: Path, boards: Sequence[Board], pictures: Mapping[str, Path], models: Sequence[Bundle], command: str
) -> Path:
    """The page. pictures: preset -> picture beside it.  models: linked to their cards where these lie beside the page."""
    links = _links(path, models)
    parts = [_introduction(boards, command), _overview(boards, models, links)]
    for preset in dict.fromkeys(board.preset for board in boards):
        here = [board for board in boards if board.preset == preset]
        parts.append(f"## {preset.capitalize()}\n")
        if preset in pictures:
            parts.append(f"![{preset}: quality against look-ahead, and examples]({pictures[preset].name})\n")
        parts.extend(_section(board, links) for board in here)
    try:
        path.write_text("\n".join(parts), encoding="utf-8", newline="\n")
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be written: {error}") from None
    return path


def _overview(boards: Sequence[Board], models: Sequence[Bundle], links: Mapping[str, str]) -> str:
    """One line per model: what it is for, and whether it beats the filters over all movies of that preset."""
    lines = [
        "The verdict over all movies of a preset, whatever the input SNR:\n",
        "| model | method | learned from | wait, frames | size | beats | gain |",
        "|---|---|---|---|---|---|---|",
    ]
    whole = [(board, s) for board in pooled(boards) for s in board.standings if s.verdict]
    for model in models:
        outputs = [(b, s) for b, s in whole if s.contestant.label == model.name]
        verdicts = [f"{board.preset}: {s.verdict.answer}" for board, s in outputs if s.verdict]
        gains = [s.verdict.text for _, s in outputs if s.verdict]
        wait = str(outputs[0][1].contestant.lookahead) if outputs else "-"
        size_mb = sum((model.path / file).stat().st_size for file in model.manifest.checksums) / 1e6
        facts = (
            model.manifest.method,
            meant_for(model) or "-",
            wait,
            f"{size_mb:.1f} MB",
            ", ".join(verdicts) or "-",
            ", ".join(gains) or "-",
        )
        lines.append("| " + " | ".join([links.get(model.name, model.name), *facts]) + " |")
    return "\n".join([*lines, ""])


def _links(page: Path, models: Sequence[Bundle]) -> dict[str, str]:
    """To the card, else to the recipe, where these lie beside the page."""
    files = {model.name: [f"{model.name}/card.md", f"{model.name}/recipe.toml"] for model in models}
    there = {name: [file for file in both if (page.parent / file).is_file()] for name, both in files.items()}
    return {name: f"[{name}]({found[0]})" for name, found in there.items() if found}


def _introduction(boards: Sequence[Board], command: str) -> str:
    engines = sorted({s.engine for board in boards for s in board.standings if s.contestant.trained}) or ["none"]
    facts = {"command": command, "date": datetime.now(UTC).date().isoformat(), "cpu": machine.cpu_name()}
    return INTRODUCTION.format(engines=", ".join(engines), **facts)


def _section(board: Board, links: Mapping[str, str]) -> str:
    lines = [f"### {title(board)}", "", spread(board), ""]
    lines += ["| | wait | PSNR | SSIM | DynSNR | F1 | ms | beats | gain |", "|---|---|---|---|---|---|---|---|---|"]
    for group in GROUPS:
        lines += _rows(board, group, links)
    return "\n".join([*lines, ""])


def _rows(board: Board, group: Group, links: Mapping[str, str]) -> list[str]:
    here = board.of(group)
    if not here:
        return []
    return [f"| **{group.title}** |" + " |" * 8, *(row(board, each, _linked(each, links), here) for each in here)]


def _linked(standing: Standing, links: Mapping[str, str]) -> str:
    """The label, with the model's name as a link to its card."""
    label = standing.contestant.label
    name, _, output = label.partition(" ")
    return " ".join(filter(None, (links[name], output))) if standing.contestant.trained and name in links else label


def row(board: Board, standing: Standing, name: str, among: Sequence[Standing] = ()) -> str:
    """One contestant as a line of a Markdown table; bold where it is the best of `among`."""
    who, verdict = standing.contestant, standing.verdict
    columns = (("psnr", ".1f"), ("ssim", ".3f"), ("dynamic_snr", ".1f"), ("f1", ".3f"))
    figures = [_marked(board, standing, among, measure, form) for measure, form in columns]
    verdicts = [f"**{verdict.answer}**" if verdict.beats else verdict.answer, verdict.text] if verdict else ["", ""]
    wait = f"{who.lookahead} = {standing.ms_late:.0f} ms" if who.lookahead else "0"
    return "| " + " | ".join([name, wait, *figures, f"{standing.ms_per_frame:.1f}", *verdicts]) + " |"


def _marked(board: Board, standing: Standing, among: Sequence[Standing], measure: str, form: str) -> str:
    text = figure(standing[measure], form)
    if among and best(among, measure) is standing:
        text = f"**{text}**"
    return f"{text} \\*" if is_to_beat(board, standing, measure) else text
