"""What can be asked of a running session, and how each request is checked and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from pydantic import Field

from rtdenoise import config
from rtdenoise.control import ControlEndpoint, Ticket
from rtdenoise.engine.backends import AUTO
from rtdenoise.errors import RtDenoiseError
from rtdenoise.handover import Answer
from rtdenoise.settings import EngineSettings, RunSettings
from rtdenoise.summary import Summary

MAX_TEXT = 500


class Ping(config.Settings):
    """Is somebody there, and how is it going?"""

    request: Literal["ping", "status"]


class Mark(config.Settings):
    """Something happened at the rig just now."""

    request: Literal["mark"]
    text: str = Field(min_length=1, max_length=MAX_TEXT, pattern=r"^[^\x00-\x1f\x7f]*$")


class Recalibrate(config.Settings):
    """The next frames of every stream give it a new offset and scale."""

    request: Literal["recalibrate"]


class Latency(config.Settings):
    """Another look-ahead of the running model."""

    request: Literal["latency"]
    latency: Literal["full", "causal"] | int


class Model(config.Settings):
    """Another model, with the engine `auto` would take unless one is named; hop as in EngineSettings."""

    request: Literal["model"]
    model: str = Field(min_length=1, max_length=1000)
    engine: str = AUTO
    latency: Literal["full", "causal"] | int = "full"
    hop: int | None = None


class Stop(config.Settings):
    """End the run in order."""

    request: Literal["stop"]


class Run(Protocol):
    """What a desk needs of a session; everything may raise RtDenoiseError with the reason why not."""

    @property
    def engine(self) -> EngineSettings:
        """What denoises now."""

    @property
    def settings(self) -> RunSettings:
        """What it was started with."""

    def summary(self) -> Summary:
        """How it is going."""

    def mark(self, text: str) -> Mapping[str, Any]:
        """Put a mark on the newest frame."""

    def recalibrate(self) -> str:
        """Calibrate again, and say so in a line."""

    def change_engine(self, engine: EngineSettings, says: str, answer: Answer) -> None:
        """Begin to change the engine, and answer later."""

    def stop(self) -> None:
        """End it in order."""


class Desk:
    """Takes requests for a run. One that cannot be done is refused with the reason, and the run goes on as it was."""

    def __init__(self, endpoint: ControlEndpoint, run: Run) -> None:
        self._endpoint, self._run = endpoint, run
        self._doing: dict[str, Callable[[Ticket, Mapping[str, Any]], None]] = {
            "ping": self._ping,
            "status": self._ping,
            "mark": self._mark,
            "recalibrate": self._recalibrate,
            "latency": self._latency,
            "model": self._model,
            "stop": self._stop,
        }

    def serve(self) -> None:
        """Answer what was asked since the last call; never blocks, and never raises."""
        for ticket, asked in self._endpoint.requests():
            doing = self._doing.get(asked["request"])
            if doing is None:
                known = ", ".join(self._doing)
                self._refuse(ticket, f"unknown request {asked['request'][:40]!r}; known: {known}")
                continue
            try:
                doing(ticket, asked)
            except RtDenoiseError as error:
                self._refuse(ticket, str(error))

    def _ping(self, ticket: Ticket, asked: Mapping[str, Any]) -> None:
        config.build(Ping, asked, "ping")
        now = self._run.summary()
        self._accept(
            ticket,
            f"{now.ready.mode}, {now.ready.model} {now.ready.backend}".rstrip(),
            mode=now.ready.mode,
            model=now.ready.model,
            engine=now.ready.backend,
            policy=self._run.settings.policy,
            acquired=now.acquired,
            delivered=now.delivered,
            dropped=now.dropped,
            in_flight=now.in_flight,
            restarts=now.restarts,
        )

    def _mark(self, ticket: Ticket, asked: Mapping[str, Any]) -> None:
        event = self._run.mark(config.build(Mark, asked, "mark").text)
        self._accept(ticket, f"marked at frame {event['src_frame']}", event=event)

    def _recalibrate(self, ticket: Ticket, asked: Mapping[str, Any]) -> None:
        config.build(Recalibrate, asked, "recalibrate")
        self._accept(ticket, self._run.recalibrate())

    def _latency(self, ticket: Ticket, asked: Mapping[str, Any]) -> None:
        wanted = config.build(Latency, asked, "latency")
        changes = {"latency": wanted.latency}
        self._change(ticket, self._run.engine.model_dump() | changes, f"latency {wanted.latency}")

    def _model(self, ticket: Ticket, asked: Mapping[str, Any]) -> None:
        wanted = config.build(Model, asked, "model")
        changes = {"model": wanted.model, "backend": wanted.engine, "latency": wanted.latency, "hop": wanted.hop}
        self._change(ticket, self._run.engine.model_dump() | changes, f"model {wanted.model}")

    def _change(self, ticket: Ticket, engine: dict[str, Any], says: str) -> None:
        def answer(ok: bool, message: str) -> None:
            self._endpoint.answer(ticket, ok=ok, message=message)

        self._run.change_engine(config.build(EngineSettings, engine, says), says, answer)

    def _stop(self, ticket: Ticket, asked: Mapping[str, Any]) -> None:
        config.build(Stop, asked, "stop")
        self._run.stop()
        self._accept(ticket, "the run ends; frames already taken are still sent")

    def _accept(self, ticket: Ticket, message: str, **more: Any) -> None:
        self._endpoint.answer(ticket, ok=True, message=message, **more)

    def _refuse(self, ticket: Ticket, message: str) -> None:
        self._endpoint.answer(ticket, ok=False, message=message)
