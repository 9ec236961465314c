"""What the benchmarks share: the head of a report, and processes of their own that are measured in turn."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import Field
from rich.console import Console

from rtdenoise import machine
from rtdenoise.config import Settings
from rtdenoise.engine.graph import Array

EAGER = "pytorch eager"
Form = TypeVar("Form", bound=Hashable)
Spread = tuple[float, float, float]
"""Median, lowest, highest."""


class Head(Settings):
    """When and where a report was made. load: processes that wanted a core; above 0.5 before, figures are not to be trusted."""

    date: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    cpu: str = Field(default_factory=machine.cpu_name)
    cores: int = os.cpu_count() or 1
    load_before: float | None = Field(default_factory=machine.load)
    load_after: float | None = None
    versions: dict[str, str] = Field(default_factory=lambda: machine.versions((*machine.PACKAGES, "torch")))

    def line(self) -> str:
        """One line under a table."""
        return f"{self.cpu}, {self.cores} cores, load {self.load_before} before and {self.load_after} after"


class TorchGraph:
    """A module as a Graph, for the reference only."""

    def __init__(self, module: Any) -> None:  # Any: torch is imported in the processes that need it
        self._module = module

    def run(self, inputs: tuple[Array, ...], *outs: Array) -> None:
        """Run on float32 arrays; one copy into the only output."""
        import torch

        with torch.inference_mode():
            outs[0][...] = self._module(*map(torch.from_numpy, inputs)).numpy()


def in_turn(
    work: Callable[..., None], forms: Sequence[Form], shared: tuple[Any, ...], rounds: int, console: Console
) -> tuple[dict[Form, Any], dict[Form, list[Any]]]:
    """Start `work(form, *shared, pipe)` in a process for every form, then ask each in turn for a measurement, round after round.

    What else the machine does hits all of them alike. A worker first sends its greeting, then one answer for every
    "measure" that it receives until "stop". Returns the greetings and the answers; raises RuntimeError, naming the form,
    when a worker ends before it answers. (Any: greetings and answers are whatever `work` sends.)
    """
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[Form, Connection] = {}
    workers = []
    greetings: dict[Form, Any] = {}
    answers: dict[Form, list[Any]] = {form: [] for form in forms}
    try:
        for form in forms:
            pipes[form], theirs = spawn.Pipe()
            workers.append(spawn.Process(target=work, args=(form, *shared, theirs), daemon=True))
            workers[-1].start()
            theirs.close()  # or a worker that crashes would be waited for without end
            greetings[form] = _answer(form, pipes[form])
            console.print(f"ready: {form}", highlight=False)
        for _ in range(rounds):
            for form, pipe in pipes.items():
                pipe.send("measure")
                answers[form].append(_answer(form, pipe))
    finally:
        for pipe in pipes.values():
            pipe.close()  # the end of the pipe ends its worker
        for worker in workers:
            worker.join()
    return greetings, answers


def serve(pipe: Connection, greeting: object, measure: Callable[[], object]) -> None:
    """The worker's side of `in_turn`."""
    pipe.send(greeting)
    try:
        while pipe.recv() == "measure":
            pipe.send(measure())
    except EOFError:
        return


def apart(work: Callable[..., None], *arguments: object) -> None:
    """Run in a process of its own and wait: thread pools of several libraries disturb each other. Raises RuntimeError when it fails."""
    worker = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    worker.start()
    worker.join()
    if worker.exitcode:
        raise RuntimeError(f"{work.__name__}{arguments}: its process ended with code {worker.exitcode}, see above")


def spread(values: Sequence[float]) -> Spread:
    """Median, lowest, highest."""
    return float(np.median(values)), float(np.min(values)), float(np.max(values))


def save(report: Settings, path: Path) -> None:
    """As indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _answer(form: object, pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError(f"{form}: its process ended before it answered, see above") from None
