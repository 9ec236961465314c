"""The README's table of methods, from what is registered, what ships and what was measured.

    python tools/method_table.py            # write it
    python tools/method_table.py --check    # exit code 1 when the README says something else

Methods are the registered entry points, models the bundles of the package, figures those of `rtdenoise evaluate --all --json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rtdenoise import registry
from rtdenoise.bundle import Bundle
from rtdenoise.evaluate import contestants
from rtdenoise.methods.base import Method
from rtdenoise.methods.base import load as load_method

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
REPORT = ROOT / "export" / "reports" / "quality-models.json"
BEGIN = "<!-- methods: written by tools/method_table.py, do not edit -->"
END = "<!-- methods: end -->"
HEADINGS = ("method", "model", "waits, frames", "MB", "movies", "PSNR", "DynSNR", "F1", "ms", "beats")

Row = Mapping[str, Any]
"""One result or verdict of the report. (Any: JSON.)"""


def main() -> int:
    """0 when the README has the table, or has it now."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    before = README.read_text(encoding="utf-8")
    after = with_block(before, block(json.loads(REPORT.read_text(encoding="utf-8"))))
    if after == before:
        return 0
    if parser.parse_args().check:
        print(
            "README.md: the table of methods is not what is registered and measured; run python tools/method_table.py"
        )
        return 1
    README.write_text(after, encoding="utf-8", newline="\n")
    return 0


def with_block(text: str, made: str) -> str:
    """`text` with what stands between the two comments replaced."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"README.md: needs the lines {BEGIN} and {END}, once each")
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}"


def block(report: Mapping[str, Any]) -> str:
    """Where the figures come from, and the table: untrained filters, models by look-ahead, methods without a model."""
    methods = [load_method(name) for name in registry.names(registry.METHODS)]
    shipped = contestants.shipped()
    models = [(method, bundle) for method in methods for bundle in shipped if bundle.manifest.method == method.name]
    models.sort(key=lambda pair: (lookahead(pair[1]), pair[1].name))
    have = {method.name for method, _ in models}
    measured = Measured(report)
    lines = [
        "| " + " | ".join(HEADINGS) + " |",
        "|---" * len(HEADINGS) + "|",
        *(line(filter_cells(name, preset, measured)) for preset, name in measured.filters(models)),
        *(line(model_cells(method, bundle, measured)) for method, bundle in models),
        *(line([title(method), "no model yet"]) for method in methods if method.name not in have),
    ]
    return "\n".join([measured.origin(), "", *lines])


class Measured:
    """The report of a leaderboard."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        self._report = report
        self._results: list[Row] = report["results"]

    def origin(self) -> str:
        """What was measured where, one sentence."""
        shapes = {"{} x {}".format(*row["shape"]) for row in self._results}
        seeds = len({row["seed"] for row in self._results})
        cpu, date = self._report["machine"]["cpu"], self._report["date"][:10]
        return f"Measured {date} on one thread of an {cpu}, frames of {' and '.join(sorted(shapes))} px, {seeds} movies per input."

    def inputs(self, preset: str) -> list[float | None]:
        """Input SNRs that were asked for; None: the preset's own."""
        return list(dict.fromkeys(row["snr_db"] for row in self._results if row["preset"] == preset))

    def gains(self, label: str, preset: str, measure: str, form: str) -> str:
        """Mean over the raw movie, one value per input SNR; empty when it was not measured."""
        pairs = [
            (self._mean(label, preset, snr, measure), self._mean("raw", preset, snr, measure))
            for snr in self.inputs(preset)
        ]
        gains = [own - raw for own, raw in pairs if own is not None and raw is not None]
        return " / ".join(signed(gain, form) for gain in gains)

    def ms(self, label: str, preset: str) -> str:
        """Median per frame."""
        own = [row["ms_per_frame"] for row in self._of(label, preset)]
        return f"{median(own):.1f}" if own else ""

    def waits(self, label: str, preset: str) -> str:
        """Look-ahead, frames."""
        own = self._of(label, preset)
        return str(own[0]["lookahead_frames"]) if own else ""

    def answer(self, label: str, preset: str) -> str:
        """Whether it beats the untrained filters over all inputs: `yes`, `group` or `no`."""
        own = [v for v in self._report["over_all_inputs"] if (v["model"], v["preset"]) == (label, preset)]
        return "" if not own else "**yes**" if own[0]["beats"] else "group" if own[0]["beats_group"] else "no"

    def filters(self, models: Sequence[tuple[Method, Bundle]]) -> list[tuple[str, str]]:
        """(preset, filter) of those that the models are measured against, quickest first."""
        shown = {(bundle.name, meant_for(bundle)) for _, bundle in models}
        verdicts = [v for v in self._report["over_all_inputs"] if (v["model"], v["preset"]) in shown]
        found = {(v["preset"], name) for v in verdicts for name in v["rivals"].values() if name != contestants.RAW}
        return sorted(found, key=lambda pair: (pair[0], int(self.waits(pair[1], pair[0]))))

    def _of(self, label: str, preset: str) -> list[Row]:
        return [row for row in self._results if (row["model"], row["preset"]) == (label, preset)]

    def _mean(self, label: str, preset: str, snr_db: float | None, measure: str) -> float | None:
        own = [row[measure] for row in self._of(label, preset) if row["snr_db"] == snr_db]
        known = [value for value in own if value is not None]
        return fmean(known) if known else None


def model_cells(method: Method, bundle: Bundle, measured: Measured) -> list[str]:
    preset = meant_for(bundle)
    size_mb = sum((bundle.path / file).stat().st_size for file in bundle.manifest.checksums) / 1e6
    facts = [title(method), model_name(bundle), str(lookahead(bundle)), f"{size_mb:.1f}", preset]
    return [*facts, *(figures(bundle.name, preset, measured) or ["not measured yet"])]


def filter_cells(name: str, preset: str, measured: Measured) -> list[str]:
    return ["*untrained*", f"`{name}`", measured.waits(name, preset), "", preset, *figures(name, preset, measured)]


def figures(label: str, preset: str, measured: Measured) -> list[str]:
    """Gains over the raw movie, cost and verdict; empty when it was not measured."""
    if not measured.ms(label, preset):
        return []
    forms = (("psnr", "+.1f"), ("dynamic_snr", "+.1f"), ("f1", "+.2f"))
    gains = [measured.gains(label, preset, measure, form) for measure, form in forms]
    return [*gains, measured.ms(label, preset), measured.answer(label, preset)]


def signed(gain: float, form: str) -> str:
    """Nothing gained and nothing lost is +0."""
    text = format(gain, form)
    return text if float(text) else text.replace("-", "+")


def line(cells: Sequence[str]) -> str:
    """One line of the table, filled up with empty cells."""
    return "| " + " | ".join([*cells, *[""] * (len(HEADINGS) - len(cells))]) + " |"


def title(method: Method) -> str:
    """The method's name, linked to its publication where that has a DOI."""
    name = method.title.partition(":")[0]
    return f"[{name}](https://doi.org/{method.reference})" if method.reference.startswith("10.") else name


def model_name(bundle: Bundle) -> str:
    """Linked to its card where it has one."""
    card = f"models/{bundle.name}/card.md"
    return f"[{bundle.name}]({card})" if (ROOT / card).is_file() else bundle.name


def meant_for(bundle: Bundle) -> str:
    return contestants.meant_for(bundle) or "calcium"


def lookahead(bundle: Bundle) -> int:
    return contestants.outputs_of(bundle)[0].lookahead


if __name__ == "__main__":
    sys.exit(main())
