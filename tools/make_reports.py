"""Judge every shipped bundle for every target and write `export/reports/<bundle>-<target>.json`; then the tables of export/README.md.

    python tools/make_reports.py [bundle ...] [--target NAME ...] [--missing] [--threads 1]

About one to five minutes per bundle on two cores. What is refused is written, too. Measures no speed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import report_table

from rtdenoise import bundle as bundles
from rtdenoise import catalogue
from rtdenoise.errors import EngineError
from rtdenoise.export import parity
from rtdenoise.export import target as targets
from rtdenoise.export.clips import clips_of
from rtdenoise.export.fidelity import reference
from rtdenoise.export.parity import Gap
from rtdenoise.export.prove import extended
from rtdenoise.export.report import Report, stamped
from rtdenoise.export.target import Target
from rtdenoise.export.weights import load_network

SHAPE = (128, 160)
"""At which graphs are compared with PyTorch on probe frames, px: every target's own 512 x 512 takes minutes per bundle."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", default=catalogue.registered()["bundles"])
    parser.add_argument("--target", nargs="*", default=report_table.names())
    parser.add_argument("--missing", action="store_true", help="leave those alone that have a report")
    parser.add_argument("--threads", type=int, default=0)
    asked = parser.parse_args()
    for name in asked.bundles:
        wanted = [target for target in asked.target if not (asked.missing and report_file(name, target).is_file())]
        for report in judged(name, wanted, asked.threads) if wanted else ():
            file = report_file(name, report.target.name)
            file.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n")
            print(file.name, report.refused or "within tolerance", flush=True)
    report_table.write()


def report_file(bundle: str, target: str) -> Path:
    return report_table.REPORTS / f"{bundle}-{target}.json"


def judged(name: str, wanted_targets: list[str], threads: int) -> Iterator[Report]:
    base = bundles.read(name)
    clips = clips_of(base)
    wanted = reference(base, clips.judged, threads)
    for target in (targets.find(t).model_copy(update={"shape": SHAPE}) for t in wanted_targets):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            gaps = shipped_gaps(name, target) if target.precision == "fp32" else []
            try:
                _, report = extended(base, target, Path(folder), gaps=gaps, clips=clips, wanted=wanted, threads=threads)
            except EngineError as error:
                report = stamped(Report(bundle=name, target=target)).model_copy(update={"refused": str(error)})
        yield report


def shipped_gaps(name: str, target: Target) -> list[Gap]:
    """The shipped FP32 graphs against PyTorch."""
    base = bundles.read(name)
    _, network = load_network(base)
    graphs = {role: base.graph(role).read_bytes() for role in base.manifest.graphs}
    return parity.compare(network, graphs, network.deploy(), target)


if __name__ == "__main__":
    main()
