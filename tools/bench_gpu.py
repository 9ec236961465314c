"""Every method on this machine's NVIDIA card, and FAST from camera frame to denoised frame, in one run of less than nine minutes.

Networks of the published width with fixed random weights at 512 x 512, batch 1, in half precision behind float32: PyTorch replayed as a
CUDA graph, ONNX Runtime, TensorRT-RTX and TensorRT, as far as they are installed; outputs are compared with PyTorch fp32. Then the
shipped bundles as live streams. Each part has a process of its own and a time limit; where one fails, the report says why, and the
rest goes on. One part at a time has the card; the next ones load their libraries meanwhile.

    python tools/bench_gpu.py                               # writes export/reports/bench-gpu.json
    python tools/bench_gpu.py --methods fast support --bundles fast-simulated --minutes 3
    python tools/bench_gpu.py --dry-run --methods fast umvd # without a card: exports, and builds every TensorRT-RTX plan
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

from gpu_parts import TORCH, Figures, Part, export_bundle, export_network, measure
from pydantic import Field
from rich.console import Console
from rich.table import Table

from rtdenoise import bundle as bundles
from rtdenoise import machine, registry
from rtdenoise.config import Settings
from rtdenoise.engine.trt_build import build_plan

REPORT = Path(__file__).parents[1] / "export" / "reports" / "bench-gpu.json"
ENGINES = (TORCH, "onnxruntime-cuda", "tensorrt-rtx-fp16", "tensorrt-fp16")
GOAL_FPS = 4000.0
"""The project's own: FAST, 4 frames, hop 1, batch 1, full quality, uint16 in and float32 in host memory out, 512 x 512."""
PACKAGES = ("torch", "onnx", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "cuda-bindings", "numpy", "rtdenoise")
LIMIT_S, EXPORT_LIMIT_S = 60.0, 180.0
N_AHEAD = 3
"""Processes that load their libraries while another has the card. Engineering choice."""
NO_CARD = "no NVIDIA driver with a card here: run this where there is one, or --dry-run to check the rest"

Work = Callable[..., object]


class Row(Settings):
    """One part. why_not: why there are no figures."""

    part: Part
    figures: Figures | None = None
    why_not: str = ""


class Report(Settings):
    """The whole run. driver: NVIDIA's own version, and the CUDA that it serves.  exports: what could not be exported, and why.

    fast_fps: the best of the streams of FAST, by engine; goal_met: whether it reaches the project's goal.
    """

    date: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    device: str = ""
    driver: str = ""
    cuda: int | None = Field(default_factory=machine.cuda_driver)
    cpu: str = Field(default_factory=machine.cpu_name)
    versions: dict[str, str] = Field(default_factory=lambda: machine.versions(PACKAGES))
    side: int
    seconds: float = 0.0
    exports: dict[str, str] = {}
    rows: tuple[Row, ...] = ()
    fast_fps: dict[str, float] = {}
    goal_fps: float = GOAL_FPS
    goal_met: bool = False


class Child:
    """A process of its own that imports what it needs and then waits for its turn."""

    def __init__(self, work: Work, *arguments: object) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_in_child, args=(theirs, work, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def result(self, limit_s: float) -> object:
        """What the work returns. Raises RuntimeError, in one line, when it fails, crashes or takes too long."""
        try:
            self._pipe.send("go")
            if not self._pipe.poll(limit_s):
                raise RuntimeError(f"not done within {limit_s:.0f} s")
            returned, why_not = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise RuntimeError(f"its process ended with code {self._process.exitcode}") from None
        finally:
            self._process.kill()
        if why_not:
            raise RuntimeError(why_not)
        return returned


def _in_child(pipe: Connection, work: Work, arguments: tuple[object, ...]) -> None:
    pipe.recv()
    try:
        pipe.send((work(*arguments), ""))
    except Exception as error:  # whatever any of the libraries raises goes into the report
        pipe.send((None, f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"))


def exported(
    methods: Sequence[str], shipped: Sequence[str], folder: Path, n_workers: int
) -> tuple[ThreadPoolExecutor, dict[str, Future[str]]]:
    """Exports under way, each in its own process: name -> why not, empty when it is there."""
    pool = ThreadPoolExecutor(n_workers)

    def one(work: Work, name: str) -> str:
        try:
            Child(work, name, folder).result(EXPORT_LIMIT_S)
        except RuntimeError as error:
            return str(error)
        return ""

    wanted = [(export_bundle, name) for name in shipped] + [(export_network, name) for name in methods]
    return pool, {f"{work.__name__} {name}": pool.submit(one, work, name) for work, name in wanted}


def parts_of(methods: Sequence[str], shipped: Sequence[str], engines: Sequence[str], side: int) -> list[Part]:
    """FAST as a stream first, then the networks, then the other bundles as streams on TensorRT."""
    networks = [Part(what="network", name=name, engine=engine, side=side) for name in methods for engine in engines]
    streams = [
        Part(what="stream", name=name, engine=engine, side=side, ahead=ahead)
        for name in shipped
        for engine in engines
        for ahead in ((0, 1) if name == bundles.DEMO else (0,))
        if name == bundles.DEMO or engine.startswith("tensorrt")
    ]
    first = [part for part in streams if part.name == bundles.DEMO]
    return [*first, *networks, *(part for part in streams if part not in first)]


def measured(parts: Sequence[Part], exports: dict[str, Future[str]], folder: Path, until: float) -> list[Row]:
    """One after the other on the card, until the time is up."""
    waiting, started, rows = deque(parts), deque[tuple[Part, Child]](), list[Row]()
    while waiting or started:
        while waiting and len(started) < N_AHEAD:
            started.append(((part := waiting.popleft()), Child(measure, part, folder)))
        part, child = started.popleft()
        work = export_network if part.what == "network" else export_bundle
        rows.append(_row(part, child, exports[f"{work.__name__} {part.name}"], until))
        _say(rows[-1])
    return rows


def _row(part: Part, child: Child, export: Future[str], until: float) -> Row:
    try:
        left_s = until - time.monotonic()
        why_not = export.result(timeout=max(0.0, left_s)) and "its export failed, see exports"
        left_s = min(LIMIT_S, until - time.monotonic())
        if left_s <= 0 or why_not:
            return Row(part=part, why_not=why_not or "no time was left")
        return Row(part=part, figures=Figures.model_validate(child.result(left_s)))
    except TimeoutError:
        return Row(part=part, why_not="no time was left for its export")
    except RuntimeError as error:
        return Row(part=part, why_not=str(error))
    finally:
        child._process.kill()


def _say(row: Row) -> None:
    said = f"{row.figures.ms_p50:.3f} ms, {row.figures.fps:.0f} fps" if row.figures else row.why_not
    Console(stderr=True).print(f"{row.part}: {said}", highlight=False, markup=False)


def show(console: Console, report: Report) -> None:
    table = Table(title=f"{report.device}, driver {report.driver}, {report.side} x {report.side}, {report.date}")
    for column in ("what", "ms p50", "ms p99", "fps", "worst sd", "rms sd"):
        table.add_column(column)
    for row in report.rows:
        if (figures := row.figures) is None:
            table.add_row(str(row.part), row.why_not)
            continue
        errors = ("" if e is None else f"{e:.1e}" for e in (figures.worst_sd, figures.rms_sd))
        table.add_row(str(row.part), f"{figures.ms_p50:.3f}", f"{figures.ms_p99:.3f}", f"{figures.fps:.0f}", *errors)
    console.print(table)
    best = max(report.fast_fps.values(), default=0.0)
    console.print(f"FAST: {best:.0f} frames/s of {report.goal_fps:.0f}: {'met' if report.goal_met else 'not met'}")


def dry_run(methods: Sequence[str], folder: Path, side: int, console: Console) -> int:
    """Export the methods and build their TensorRT-RTX plans; returns how many failed."""
    n_failed = 0
    pool, exports = exported(methods, (), folder, 1)
    with pool:
        for method in methods:
            if why_not := exports[f"export_network {method}"].result():
                n_failed += 1
                console.print(f"{method}: not exported: {why_not}", highlight=False, markup=False)
                continue
            n_failed += sum(not _planned(method, kind, folder, side, console) for kind in ("fp32", "fp16"))
    return n_failed


def _planned(method: str, kind: str, folder: Path, side: int, console: Console) -> bool:
    size = int((folder / f"{method}.frames").read_text().split()[0])
    start = time.perf_counter()
    try:
        child = Child(build_plan, "tensorrt_rtx", folder / f"{method}.{kind}.onnx", ((1, size, side, side),))
        plan = child.result(EXPORT_LIMIT_S)
    except RuntimeError as error:
        console.print(f"{method} {kind}: no plan: {error}", highlight=False, markup=False)
        return False
    megabytes, seconds = len(bytes(plan)) / 1e6, time.perf_counter() - start  # type: ignore[call-overload]
    console.print(f"{method} {kind}: plan of {megabytes:.1f} MB in {seconds:.1f} s", highlight=False)
    return True


def _card() -> tuple[str, str]:
    """Name and driver version, as NVIDIA's own tool says."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "NVIDIA card", "unknown"
    name, _, driver = said.partition(",")
    return name.strip(), driver.strip()


def run(args: argparse.Namespace, folder: Path) -> Report:
    """The whole measurement."""
    start = time.monotonic()
    device, driver = _card()
    pool, exports = exported(args.methods, args.bundles, folder, args.workers)
    parts = parts_of(args.methods, args.bundles, args.engines, args.side)
    rows = measured(parts, exports, folder, start + 60 * args.minutes)
    pool.shutdown(wait=False, cancel_futures=True)
    failed = {name: why for name, export in exports.items() if export.done() and (why := export.result())}
    fast = {
        str(r.part): r.figures.fps for r in rows if r.figures and (r.part.what, r.part.name) == ("stream", bundles.DEMO)
    }
    return Report(
        device=device,
        driver=driver,
        side=args.side,
        seconds=round(time.monotonic() - start, 1),
        exports=failed,
        rows=tuple(rows),
        fast_fps=fast,
        goal_met=args.side == 512 and max(fast.values(), default=0.0) >= GOAL_FPS,
    )


def main() -> None:
    methods = registry.names(registry.METHODS)
    shipped = sorted(path.name for path in bundles.BUILTIN.iterdir() if (path / bundles.MANIFEST).is_file())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=methods, choices=methods, metavar="METHOD")
    parser.add_argument("--bundles", nargs="*", default=shipped, choices=shipped, metavar="BUNDLE")
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES)
    parser.add_argument("--side", type=int, default=512, help="of the frames, px")
    parser.add_argument("--minutes", type=float, default=8.5, help="what is not measured by then is left out")
    parser.add_argument("--workers", type=int, default=4, help="exports at a time")
    parser.add_argument("--dry-run", action="store_true", help="no card: export, and build TensorRT-RTX plans")
    parser.add_argument("--json", type=Path, default=REPORT)
    args = parser.parse_args()
    console = Console(width=150)
    if not args.dry_run and machine.cuda_driver() is None:
        sys.stderr.write(f"error: {NO_CARD}\n")
        sys.exit(2)
    folder = Path(tempfile.mkdtemp(prefix="rtdenoise-gpu-"))
    try:
        if args.dry_run:
            sys.exit(1 if dry_run(args.methods, folder, args.side, console) else 0)
        report = run(args, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(console, report)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
