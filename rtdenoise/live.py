"""`rtdenoise run` for a person: from words on the command line to a session, and its figures as a table."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rtdenoise import bundle as bundles
from rtdenoise import config, logbook, registry
from rtdenoise.engine.filters import FILTERS
from rtdenoise.engine.load import factory_for
from rtdenoise.errors import ConfigError, RtDenoiseError
from rtdenoise.frame import StreamInfo
from rtdenoise.recording.run import outcome as recording_outcome
from rtdenoise.session import Session
from rtdenoise.settings import Endpoints, EngineSettings, Policy, RecordSettings, Remote, RunSettings
from rtdenoise.shared import Slot
from rtdenoise.summary import Summary


@dataclass(slots=True, frozen=True)
class Asked:
    """What the command line said about source and policy."""

    source: str
    path: str | None
    fps: str | None
    frames: int | None
    series: int
    options: tuple[str, ...]
    policy: Policy
    wait_for: tuple[str, ...]
    seconds: float | None
    port: int
    remote: Remote | None = None
    metrics_port: int | None = None
    log_dir: str = "none"
    record: RecordSettings | None = None


def run(console: Console, asked: Asked, engine: EngineSettings, json_path: Path | None) -> None:
    """Run until the source ends, `seconds` are over or Ctrl-C. Raises what went wrong after printing the figures."""
    settings = settings_of(asked, engine)
    ends = settings.endpoints

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    def news(line: str) -> None:
        say(line)
        if session.ready and session.ready.hop and session.ring and not session.ring.ints[Slot.GO]:
            say(lateness(settings.engine, session.ready.latency_frames, session.ring.info))

    session = Session(settings, news)
    with session, ctrl_c_stops(session):
        console.print(f"denoised {ends.denoised}  raw {ends.raw}  status {ends.status}", highlight=False)
        if settings.remote is not None:
            say(f"other machines with a key: bound to {settings.remote.bind}, ports as above")
        if session.metrics is not None:
            say(f"metrics {session.metrics.url}")
        if session.log.path is not None:
            say(f"log {session.log.path}")
        summary = session.run()
    show(console, summary)
    if settings.record is not None:
        say(recording_outcome(settings.record.folder))
    if json_path is not None:
        json_path.write_text(json.dumps(summary.as_dict(), indent=2) + "\n", encoding="utf-8")
    if summary.error:
        raise RtDenoiseError(summary.error)


def lateness(asked: EngineSettings, frames_late: int, info: StreamInfo) -> str:
    """How late frames come out and, where less than the best look-ahead was asked for, what that costs.

    The cost is the one that `rtdenoise evaluate --latency-sweep --annotate` stored in the bundle, of the longest look-ahead
    measured that is not above the one asked for.
    """
    in_ms = f" ({1e3 * info.frame_interval_s * frames_late:.0f} ms)" if info.frame_interval_s else ""
    late = f"output {frames_late} frames late{in_ms}"
    most = factory_for(asked, info.shape).latencies()[-1]
    lookahead = most if asked.latency == "full" else 0 if asked.latency == "causal" else asked.latency
    if asked.model in FILTERS or lookahead >= most:
        return late
    cost = bundles.read(asked.model).manifest.latency_cost_db
    known = [frames for frames in cost if frames <= lookahead]
    if not known:
        return f"{late}; look-ahead {lookahead} of {most}, cost not measured (rtdenoise evaluate --latency-sweep --annotate)"
    return f"{late}; look-ahead {lookahead} of {most} costs {cost[max(known)]:.1f} dB"


@contextmanager
def ctrl_c_stops(session: Session) -> Iterator[None]:
    """The first Ctrl-C, or the first SIGTERM of a service manager, ends the run in order; a second one at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(_signal: int, _frame: object) -> None:
        restore()
        session.stop()

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


def settings_of(asked: Asked, engine: EngineSettings) -> RunSettings:
    """Checked settings of a run. Raises ConfigError naming the option that is wrong."""
    values: dict[str, Any] = {
        "source": {"name": asked.source, "options": _source_options(asked), "n_series": asked.series},
        "engine": engine,
        "endpoints": Endpoints.from_port(asked.port),
        "remote": asked.remote,
        "policy": asked.policy,
        "wait_for": _wait_for(asked),
        "duration_s": asked.seconds,
        "metrics_port": asked.metrics_port,
        "record": asked.record,
        "log_dir": _log_dir(asked.log_dir),
    }
    return config.build(RunSettings, values, "command line")


def policy_of(policy: str, *, lossless: bool) -> Policy:
    """The policy that was named; `--lossless` is short for one of them. Raises ConfigError for an unknown one."""
    if policy not in get_args(Policy):
        raise ConfigError(f"--policy {policy}: unknown; known: {', '.join(get_args(Policy))}")
    return "lossless" if lossless or policy == "lossless" else "latest"


def _log_dir(asked: str) -> Path | None:
    if asked == "none":
        return None
    return Path(asked) if asked else logbook.default_folder()


def show(console: Console, summary: Summary) -> None:
    """The figures of a run as tables."""
    table = Table("stage", "p50 ms", "p95 ms", "p99 ms", title="latency")
    for stage, percentiles in summary.latency_ms.items():
        table.add_row(stage, *(f"{ms:.2f}" for ms in percentiles))
    console.print(table)
    dropped = ", ".join(f"{n} {reason}" for reason, n in summary.dropped.items()) or "0"
    books = "balanced" if summary.balanced else "DO NOT BALANCE"
    console.print(
        f"{summary.acquired} acquired = {summary.delivered} delivered + {dropped} dropped + {summary.in_flight} in flight ({books})",
        highlight=False,
    )
    console.print(
        f"{summary.fps:.1f} frames/s, {summary.ready.mode}, {summary.ready.backend}, taking frames cost {summary.pull_cpu:.1%} of a core"
    )


@contextmanager
def bar(console: Console, label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time left; gives `progress(done, total)`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _source_options(asked: Asked) -> dict[str, Any]:
    options = dict(config.pair(text, "--option") for text in asked.options)
    if asked.path is not None:
        options["path"] = asked.path
    if asked.frames is not None:
        options["n_frames"] = asked.frames
    if asked.fps is not None:
        options |= _fps_options(asked.source, asked.fps)
    if asked.source == "replay" and isinstance(options.get("rate"), float) and asked.policy == "latest":
        options.setdefault("live", True)  # a movie played at a chosen rate stands for a camera
    return options


def _fps_options(source: str, fps: str) -> dict[str, Any]:
    if source == "replay":
        return {"rate": fps if fps in ("file", "max") else _number(fps)}
    if source == "synthetic":
        return {"fps": None, "live": False} if fps == "max" else {"fps": _number(fps)}
    if "frame_rate_hz" in registry.load(registry.SOURCES, source).Settings.model_fields:
        return {"frame_rate_hz": _number(fps)}
    return {"exposure_ms": 1000.0 / _number(fps)}


def _wait_for(asked: Asked) -> dict[str, Any]:
    pairs = dict(config.pair(text, "--wait-for") for text in asked.wait_for)
    return pairs or ({"denoised": 1} if asked.policy == "lossless" else {})


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--fps {text}: not a number") from None
