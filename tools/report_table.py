"""The tables of export/README.md, from the targets and the reports: python tools/report_table.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "export" / "reports"
TARGETS = ROOT / "export" / "targets"
README = ROOT / "export" / "README.md"
BEGIN, END = "<!-- tables: tools/report_table.py -->", "<!-- end of tables -->"


def names() -> list[str]:
    """All targets, CPU first."""
    return sorted(path.stem for path in TARGETS.glob("*.toml"))


def tables() -> str:
    """One table of the targets that have reports, and one per target of its bundles."""
    reports = {name: _reports(name) for name in names()}
    listed = {name: found for name, found in reports.items() if found}
    parts = [_targets(listed), *(_bundles(name, found) for name, found in listed.items())]
    return "\n\n".join(parts)


def write() -> None:
    """Put the tables into the README."""
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


def with_tables(text: str) -> str:
    """`text` with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def _reports(target: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(REPORTS.glob(f"*-{target}.json"))]


def _targets(listed: dict[str, list[dict[str, Any]]]) -> str:
    head = ["target", "device", "graphs", "judged with", "PSNR loss dB", "bright %", "trace r", "bundles within"]
    rows = []
    for name, reports in listed.items():
        target = reports[0]["target"]
        limits, kept = target["tolerance"], sum(not report["refused"] for report in reports)
        engines = ", ".join(target["engines"])
        row = [f"`{name}`", target["device"], target["graphs"], engines, f"<= {limits['loss_db']:g}"]
        rows.append(
            [*row, f"<= {limits['bright_percent']:g}", f">= {limits['trace_r']:g}", f"{kept} of {len(reports)}"]
        )
    return _table(head, rows)


def _bundles(name: str, reports: list[dict[str, Any]]) -> str:
    half = reports[0]["target"]["precision"] == "fp16"
    head = ["bundle", "PSNR loss dB", "bright %", "trace r", "max error sd", "kB", "verdict"]
    rows = [_row(report, half) for report in reports]
    devices = ", ".join(sorted({report["device"] for report in reports}))
    days = sorted({report["date"][:10] for report in reports})
    head += ["largest activation"] if half else []
    return f"### {name}\n\nMeasured on {devices}, {' to '.join(dict.fromkeys((days[0], days[-1])))}.\n\n{_table(head, rows)}"


def _row(report: dict[str, Any], half: bool) -> list[str]:
    found = [row for fidelity in report["fidelity"] for row in fidelity["rows"]]
    figures = ["", "", "", ""]
    if found:
        figures = [
            f"{max(row['loss_db'] for row in found if row['loss_db'] is not None):+.3f}",
            f"{max(row['bright_percent'] for row in found):.2f}",
            f"{min(row['trace_r'] for row in found):.4f}",
            f"{max(row['worst'] for row in found):.2g}",
        ]
    graphs = sum(size for file, size in report["bytes"].items() if not file.endswith(".npz"))
    reason = report["refused"].removeprefix(f"{report['bundle']}: ").partition("; ")[0]
    verdict = f"refused: {reason}" if reason else report["how"] or "within tolerance"
    peak = [f"{report['peak_activation']:.0f}"] if half and report["peak_activation"] is not None else [""] * half
    return [report["bundle"], *figures, f"{graphs / 1000:.0f}", verdict, *peak]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    write()
