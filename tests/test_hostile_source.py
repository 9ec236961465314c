"""Whatever a sender does, acquisition goes on or ends with a name for why, and every frame and every misdeed is counted once."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from hypothesis import example, given
from hypothesis import settings as hypothesis_settings

from rtdenoise import acquire
from rtdenoise.settings import loopback
from rtdenoise.shared import SharedRing, Slot, State
from rtdenoise.sources.base import SourceStats
from tests.hostile import PRELUDE, Deed, Expected, Sender, Shot, expect, schedules, shots
from tests.runs import free_port, settings

FIRST = 2000


def wait_for(what: Any, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


def heard(ears: Connection, wanted: Sequence[str], told: list[Any]) -> Any:
    """Everything said until one of the wanted words; all of it is kept in `told`."""
    while not told or told[-1][0] not in wanted:
        assert ears.poll(20), f"said nothing but {told}"
        told.append(ears.recv())
    return told[-1]


def acquired(
    format_: Literal["scanimage", "array"], deeds: Sequence[Deed], dtype: str
) -> tuple[list[int], dict[str, int], list[Any]]:
    """Let a sender loose on an acquisition: numbers in the ring after the prelude, drops and acquired, and what was said."""
    endpoint, told = loopback(free_port()), list[Any]()
    asked = settings("scanimage" if format_ == "scanimage" else "zmq", {"endpoint": endpoint}, ring_s=0.5)
    sender = Sender(format_, endpoint, dtype)
    ears, mouth = multiprocessing.Pipe(duplex=False)
    wake = multiprocessing.get_context("spawn").Semaphore(0)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "frames.ring"
        worker = threading.Thread(
            target=acquire.serve,
            args=(lambda: acquire.open_source(asked.source), asked, path, wake, mouth),
            daemon=True,
        )
        worker.start()
        assert sender.joined()
        sender.prelude()
        assert heard(ears, ("opened", "error"), told)[0] == "opened"
        ring = SharedRing.attach(path)
        ring.ints[Slot.GO] = 1
        wait_for(lambda: ring.state == State.RUNNING)
        every = list(shots(deeds, FIRST))
        if deeds and deeds[-1].kind in ("reshape", "retype", "restart"):
            last = None
        else:
            last = 1 + max((s.number for s in every if s.good and s.deed.kind != "astray"), default=FIRST)
            every.append(Shot(last, Deed("good")))
        sender.send(Shot(FIRST - 1, Deed("good")))
        for shot in every:
            sender.send(shot)
        if last is not None:
            wait_for(lambda: ring.head and (f := ring.frame(ring.head - 1)) is not None and f.stamp.src_frame == last)
            ring.ints[Slot.STOP] = 1
        heard(ears, ("ended", "error"), told)
        worker.join(10)
        frames = [ring.frame(k) for k in range(ring.head)]
        numbers = [frame.stamp.src_frame for frame in frames if frame is not None]
        totals = {**ring.dropped(), "acquired": int(ring.ints[Slot.ACQUIRED]), "state": int(ring.state)}
        ring.close()
    sender.close()
    assert not worker.is_alive()
    return numbers, totals, told


def check(format_: Literal["scanimage", "array"], deeds: list[Deed], dtype: str = "uint16") -> None:
    numbers, totals, told = acquired(format_, deeds, dtype)
    wanted = expect(deeds, FIRST)
    if wanted.end == "ok":
        top = max([FIRST - 1, *wanted.delivered])
        last = numbers[-1]
        wanted.dropped += last - top - 1
        wanted.delivered.append(last)
    assert numbers == [FIRST - 1, *wanted.delivered]
    lost = sum(n for reason, n in totals.items() if reason.startswith("source"))
    assert lost == wanted.dropped
    assert totals["acquired"] == len(numbers) + lost
    assert_named_end(wanted, totals, told)
    line = SourceStats(bad=wanted.bad, repeated=wanted.repeated, late=wanted.late, time_back=wanted.time_back).trouble()
    notes = [words[1] for words in told if words[0] == "note"]
    assert [note.partition(": ")[2] for note in notes if "came" in note or "frames" in note] == ([line] if line else [])


def assert_named_end(wanted: Expected, totals: dict[str, int], told: list[Any]) -> None:
    if wanted.end == "geometry":
        assert told[-1][:2] == ("error", "GeometryChanged")
        assert totals["state"] == State.FAILED
    else:
        assert told[-1] == ("ended", None)
        assert totals["state"] == State.ENDED


@hypothesis_settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(schedules())
@example(
    [
        Deed("miss", 5),
        Deed("late"),
        Deed("late"),
        Deed("repeat"),
        Deed("garbage", 3),
        Deed("lie", 2),
        Deed("astray"),
        Deed("restart"),
    ]
)
def test_whatever_scanimage_sends_every_frame_and_every_misdeed_is_counted_once(deeds: list[Deed]) -> None:
    check("scanimage", deeds)


@hypothesis_settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(schedules())
@example([Deed("nan"), Deed("blank"), Deed("saturated"), Deed("time back"), Deed("miss", 2), Deed("retype")])
def test_whatever_another_program_sends_every_frame_and_every_misdeed_is_counted_once(deeds: list[Deed]) -> None:
    check("array", deeds, "float32")


def test_a_sender_that_is_unplugged_is_named_once_and_waited_for() -> None:
    endpoint, told = loopback(free_port()), list[Any]()
    asked = settings("zmq", {"endpoint": endpoint, "stall_timeout_s": 0.1}, ring_s=0.5)
    sender = Sender("array", endpoint)
    ears, mouth = multiprocessing.Pipe(duplex=False)
    wake = multiprocessing.get_context("spawn").Semaphore(0)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "frames.ring"
        make = lambda: acquire.open_source(asked.source)  # noqa: E731
        worker = threading.Thread(target=acquire.serve, args=(make, asked, path, wake, mouth), daemon=True)
        worker.start()
        assert sender.joined()
        sender.prelude()
        heard(ears, ("opened",), told)
        ring = SharedRing.attach(path)
        ring.ints[Slot.GO] = 1
        wait_for(lambda: ring.state == State.RUNNING)
        sender.close()
        assert "has sent nothing for" in heard(ears, ("note",), told)[1]
        again = Sender("array", endpoint)
        assert again.joined()
        again.send(Shot(PRELUDE[-1] + 1, Deed("good")))
        told.clear()
        assert heard(ears, ("note",), told)[1] == "frames are coming again"
        ring.ints[Slot.STOP] = 1
        assert heard(ears, ("ended", "error"), told)[0] == "ended"
        worker.join(10)
        assert ring.head == 1
        ring.close()
        again.close()
