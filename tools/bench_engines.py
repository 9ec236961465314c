"""Every method at its published width on every engine of this CPU, beside PyTorch eager of the plain network, in one run.

Same weights (random, fixed), same normalised frames, batch 1, all cores, outputs compared. Every engine has its own process;
they are measured in turn, round after round, and the ratio to eager is taken round by round. Windows are timed as runs of the
compiled graph; FAST per frame at hop 1 through StreamingDenoiser and MergedEngine; the 3-D U-Nets per frame as a stream of
steps against disjoint blocks of 16 frames, with the block's own figure on the same engine beside it.

    python tools/bench_engines.py                                     # all methods; about 25 minutes on two idle cores
    python tools/bench_engines.py --methods fast support --sizes 512 --rounds 3

Rows of other methods that the report already holds stay. Graphs are kept in --cache: a second run is quicker.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_forms import Case, Fact, prepare, why_not
from bench_runners import work
from benching import EAGER, Head, Spread, in_turn, save, spread
from published import OURS
from pydantic import Field
from rich.console import Console
from rich.table import Table

from rtdenoise import machine, registry
from rtdenoise.config import Settings
from rtdenoise.engine.backends import BACKENDS, open_runtime
from rtdenoise.engine.graph import Array
from rtdenoise.errors import RtDenoiseError

ENGINES = ("openvino-fp32", "openvino-bf16", "openvino-int8", "onnxruntime-cpu")
SIDES = {"support": (512, 256), "umvd": (512, 256), "deepvidv2": (512, 256), "fast": (512,)}
"""px; other methods at `SIDE`."""
SIDE = 256
BLOCK: dict[str, Fact] = {"frames": 16}
FACTS: dict[str, dict[str, Fact]] = {"deepcad": BLOCK, "deepcadrt": BLOCK, "deepbid": BLOCK, "srdtrans": {"frames": 32}}
"""Blocks of 16 frames are what the steps are compared with; SRDTrans as in engines sheet 2 (128 would be four times the work)."""
OTHER_FORM = ("ted",)
"""Eager is the published form; ours, with the same output, is measured beside it."""
REPORT = Path(__file__).parents[1] / "export" / "reports" / "bench-engines.json"
CACHE = Path(tempfile.gettempdir()) / "rtdenoise-bench"
CPU_PACKAGES = (*machine.PACKAGES, "torch", "nncf")


@dataclass(slots=True, frozen=True)
class Goal:
    """How many times faster than eager a form must be. engine: on which; the fastest when empty."""

    method: str
    side: int
    form: str
    engine: str
    ratio: float


DENSE = ("support", "umvd", "deepvidv2")
GOALS = (
    Goal("fast", 512, "hop 1", "", 12),
    *(Goal(method, 512, "window", "openvino-bf16", 6) for method in DENSE),
    *(Goal(method, 512, "window", "openvino-int8", 8) for method in DENSE),
    *(Goal(method, 256, "window", "openvino-bf16", 3) for method in DENSE),
    *(Goal(method, 256, "window", "openvino-int8", 5) for method in DENSE),
    Goal("deepcadrt", 256, "step", "", 6),
    Goal("ted", 256, "window", "", 5),
    Goal("srdtrans", 256, "window", "", 4.5),
)
"""The project's own."""


class Row(Settings):
    """One form on one engine. ms: per run of a window, per frame otherwise.  ratio: eager over this, round by round.

    Both are median, lowest and highest round. worst_sd, rms_sd: distance of the output from eager's, in sd of eager's.
    peak_mb: the most memory the process held, its libraries included.
    """

    form: str
    engine: str
    ms: Spread
    ratio: Spread
    worst_sd: float
    rms_sd: float
    peak_mb: float


class CaseReport(Settings):
    """One method at one size. missing: engine -> why it was not measured."""

    head: Head
    method: str
    side: int
    facts: dict[str, Fact]
    rounds: int
    rows: tuple[Row, ...]
    missing: dict[str, str] = {}


class Verdict(Settings):
    """A goal, and what was reached with which engine (the median)."""

    method: str
    side: int
    form: str
    engine: str
    goal: float
    reached: float
    met: bool


class Report(Settings):
    """All that was measured; each case says when."""

    cases: tuple[CaseReport, ...] = ()
    verdicts: tuple[Verdict, ...] = Field(default=(), description="goals whose case was measured")


def measured(case: Case, engines: Sequence[str], rounds: int, cache: Path, console: Console) -> CaseReport:
    """One case on all engines."""
    head = Head(versions=machine.versions(CPU_PACKAGES))
    missing = {engine: why for engine in engines if (why := _unusable(engine))}
    folder = prepare(case, cache, {BACKENDS[engine].graphs for engine in engines if engine not in missing})
    if reason := why_not(folder):
        missing |= {engine: reason for engine in engines if BACKENDS[engine].graphs == "int8"}
    others = [OURS] if case.method in OTHER_FORM else []
    forms = [EAGER, *others, *(engine for engine in engines if engine not in missing)]
    outputs, answers = in_turn(work, forms, (case, folder, os.cpu_count() or 1), rounds, console)
    rows = [_row(form, engine, outputs, answers) for form in outputs[EAGER] for engine in forms]
    head = head.model_copy(update={"load_after": machine.load()})
    facts = dict(case.facts)
    return CaseReport(
        head=head, method=case.method, side=case.side, facts=facts, rounds=rounds, rows=tuple(rows), missing=missing
    )


def _unusable(engine: str) -> str:
    """Why this machine cannot run it; empty when it can."""
    try:
        open_runtime(engine, 1)
    except RtDenoiseError as error:
        return str(error)
    return ""


def _row(
    form: str,
    engine: str,
    outputs: dict[str, dict[str, Array]],
    answers: dict[str, list[tuple[dict[str, float], float]]],
) -> Row:
    ms = np.array([figures[form] for figures, _ in answers[engine]])
    eager = np.array([figures[form] for figures, _ in answers[EAGER]])
    wanted = outputs[EAGER][form].astype(np.float64)
    error = (outputs[engine][form] - wanted) / wanted.std()
    return Row(
        form=form,
        engine=engine,
        ms=spread(ms),
        ratio=spread(eager / ms),
        worst_sd=float(np.abs(error).max()),
        rms_sd=float(np.sqrt(np.square(error).mean())),
        peak_mb=answers[engine][-1][1],
    )


def verdicts(cases: Sequence[CaseReport]) -> list[Verdict]:
    """Of every goal that can be judged."""
    found = []
    for goal in GOALS:
        rows = [
            row
            for case in cases
            if (case.method, case.side) == (goal.method, goal.side) and case.facts == FACTS.get(case.method, {})
            for row in case.rows
            if row.form == goal.form and row.engine not in (EAGER, OURS) and goal.engine in ("", row.engine)
        ]
        if rows:
            best = max(rows, key=lambda row: row.ratio[0])
            reached = best.ratio[0]
            found.append(
                Verdict(
                    method=goal.method,
                    side=goal.side,
                    form=goal.form,
                    engine=best.engine,
                    goal=goal.ratio,
                    reached=reached,
                    met=reached >= goal.ratio,
                )
            )
    return found


def merged(old: Report, new: CaseReport) -> Report:
    """The report with this case in place of an older one."""
    kept = [case for case in old.cases if (case.method, case.side, case.facts) != (new.method, new.side, new.facts)]
    cases = [*kept, new]
    return Report(cases=tuple(cases), verdicts=tuple(verdicts(cases)))


def show(console: Console, report: CaseReport) -> None:
    table = Table(title=f"{report.method} at {report.side} x {report.side}, {report.rounds} rounds")
    for column in ("form", "engine", "ms (lowest .. highest)", "times eager", "worst sd", "rms sd", "MB"):
        table.add_column(column)
    for row in report.rows:
        ms, ratio = (f"{m:.1f} ({low:.1f} .. {high:.1f})" for m, low, high in (row.ms, row.ratio))
        table.add_row(row.form, row.engine, ms, ratio, f"{row.worst_sd:.1e}", f"{row.rms_sd:.1e}", f"{row.peak_mb:.0f}")
    console.print(table)
    for engine, why in report.missing.items():
        console.print(f"{engine}: {why}", highlight=False)
    console.print(report.head.line())


def show_verdicts(console: Console, found: Sequence[Verdict]) -> None:
    table = Table(title="Goals: times faster than PyTorch eager")
    for column in ("method", "px", "form", "engine", "goal", "reached", ""):
        table.add_column(column)
    for v in found:
        met = "met" if v.met else "NOT MET"
        table.add_row(v.method, str(v.side), v.form, v.engine, f"{v.goal:g}", f"{v.reached:.1f}", met)
    console.print(table)


def cases_of(methods: Sequence[str], sides: Sequence[int] | None, *, narrow: bool = False) -> list[Case]:
    """What to measure. sides: instead of the published ones.  narrow: each method's small network, for a quick look."""
    return [
        Case(method, side, _narrow(method) if narrow else FACTS.get(method, {}))
        for method in methods
        for side in sides or SIDES.get(method, (SIDE,))
    ]


def _narrow(method: str) -> dict[str, Fact]:
    from rtdenoise.methods import base

    return dict(base.load(method).narrow)


def arguments(
    description: str | None, methods: Sequence[str], engines: Sequence[str], report: Path
) -> argparse.Namespace:
    """What a benchmark of the published networks can be asked."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=methods, choices=registry.names(registry.METHODS))
    parser.add_argument("--sizes", type=int, nargs="+", help="sides of square frames, px, instead of the usual ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=engines, choices=engines)
    parser.add_argument("--narrow", action="store_true", help="each method's small network: a quick look")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder that keeps the exported graphs")
    parser.add_argument("--json", type=Path, default=report)
    return parser.parse_args()


def main() -> None:
    known = registry.names(registry.METHODS)
    first = list(dict.fromkeys(goal.method for goal in GOALS))
    order = [*first, *(name for name in known if name not in first)]
    args = arguments(__doc__, order, ENGINES, REPORT)
    console = Console(width=150)
    report = Report(**json.loads(args.json.read_text(encoding="utf-8"))) if args.json.exists() else Report()
    for case in cases_of(args.methods, args.sizes, narrow=args.narrow):
        console.rule(f"{case.method} {case.side}")
        new = measured(case, args.engines, args.rounds, args.cache, console)
        show(console, new)
        report = merged(report, new)
        save(report, args.json)
    show_verdicts(console, report.verdicts)


if __name__ == "__main__":
    main()
