"""What a benchmark run gave, with everything needed to judge it; as JSON and as a table."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import Field
from rich.console import Console
from rich.table import Table

from rtdenoise import machine
from rtdenoise.config import Settings

MEANINGS = {
    "copy": "from the source into the shared ring",
    "queue": "arrival -> picked up by the denoiser",
    "denoise": "network and normalisation, per frame that comes in",
    "publish": "handing one denoised frame to ZeroMQ",
    "age": "arrival -> denoised frame handed over, waiting for later frames included",
    "transport": "handed over -> received by another process",
    "total": "arrival -> denoised frame received by another process",
}
"""Stages in the order a frame passes them."""
FLAT_OUT_STAGES = ("copy", "denoise", "publish")
"""Stages that mean something when every queue is full on purpose."""


class Stage(Settings):
    """Latency percentiles in ms."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


class Machine(Settings):
    """Where it was measured. load: see `machine.load`, before the run."""

    cpu: str = Field(default_factory=machine.cpu_name)
    features: tuple[str, ...] | None = Field(default_factory=machine.cpu_features)
    cores: int
    load: float | None = Field(default_factory=machine.load)
    versions: dict[str, str] = Field(default_factory=machine.versions)


class BenchReport(Settings):
    """One run. asked_fps None: as fast as nothing is lost, every queue full, so that only FLAT_OUT_STAGES are given.

    fps: denoised frames per second at the subscriber, without warm-up.  ms_per_frame: of the denoiser alone, measured before the run.
    lookahead_ms: the part of `age` that is waiting for later frames.  lost: messages that the subscriber did not get.
    """

    date: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    machine: Machine
    source: str
    shape: tuple[int, int]
    dtype: str
    model: str
    engine: str
    mode: str
    reason: str
    latency: str
    hop: int
    lookahead_frames: int
    lookahead_ms: float | None
    asked_fps: float | None
    seconds: float
    fps: float
    ms_per_frame: float
    acquired: int
    delivered: int
    dropped: dict[str, int]
    received: dict[str, int]
    lost: dict[str, int]
    pull_cpu: float
    stages: dict[str, Stage]

    def show(self, console: Console) -> None:
        """Print it for a person."""
        rate = f"{self.asked_fps:g} fps" if self.asked_fps else "as fast as nothing is lost"
        size = f"{self.shape[0]} x {self.shape[1]} {self.dtype}"
        table = Table("stage", "p50 ms", "p95 ms", "p99 ms", "what", title=f"{self.model}, {size}, {rate}")
        for name, stage in self.stages.items():
            figures = (f"{ms:.2f}" for ms in (stage.p50_ms, stage.p95_ms, stage.p99_ms))
            table.add_row(name, *figures, MEANINGS[name])
        console.print(table)
        console.print(self._summary(), markup=False, highlight=False)

    def _summary(self) -> str:
        wait = "" if self.lookahead_ms is None else f" = {self.lookahead_ms:.1f} ms"
        dropped = ", ".join(f"{n} {reason}" for reason, n in self.dropped.items()) or "0"
        where = self.machine
        load = "" if where.load is None else f", load {where.load:g} before the run"
        speed = f"{self.fps:.1f} denoised frames/s received; {self.ms_per_frame:.2f} ms per frame in the denoiser"
        if self.mode == "raw only":
            speed = "no denoised frames; for the most that this machine can denoise, use --fps 0"
        return (
            f"{speed}\n"
            f"{self.mode} with {self.engine}: {self.reason}; look-ahead and hop cost {self.lookahead_frames} frames{wait}\n"
            f"{self.acquired} acquired, {self.delivered} delivered, {dropped} dropped, {sum(self.lost.values())} lost on the wire; "
            f"taking frames cost {self.pull_cpu:.1%} of a core\n"
            f"{where.cpu}, {where.cores} cores{load}; "
            + ", ".join(f"{name} {version}" for name, version in where.versions.items())
        )
