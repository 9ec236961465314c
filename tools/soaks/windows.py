"""Frames with any numbers through the real acquisition and the real stream, and what every output was made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from rtdenoise import acquire
from rtdenoise.engine.base import EngineInfo, Window
from rtdenoise.errors import EndOfStream
from rtdenoise.frame import Frame, FrameStamp, StreamInfo, WindowSpec
from rtdenoise.normalize import Normalization
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing, Slot
from rtdenoise.sources.base import SeriesClock, SourceStats
from rtdenoise.stream import StreamingDenoiser
from soaks.lockstep import Ears, removed, ring_path

SHAPE = (4, 4)
STARTS = (0, 2**31 - 5, 2**53 - 10)
"""Where 32-bit integers and the whole numbers of JavaScript end."""
STEPS = (1, 1, 1, 1, 1, 1, 2, 3, 0, -1, -3, -100)
"""From one camera number to the next: in order, missing, twice, late, and a camera that counts from the beginning again."""


class Untrue(AssertionError):
    """An output is not what it says."""


@dataclass(slots=True, frozen=True)
class Output:
    """place: of the frame in the ring.  src: its camera number.  given: camera numbers of the frames in the engine's window."""

    place: int
    src: int
    window: tuple[int, int]
    complete: bool
    given: list[int]


class NumberedCamera:
    """Gives frames with these camera numbers, as they come; frame i is filled with i."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers, self._at = numbers, 0
        self.clock = SeriesClock()

    def open(self) -> StreamInfo:
        """It waits for nobody and is never late."""
        return StreamInfo("numbered", SHAPE, "uint16")

    def read(self, timeout_s: float = 1.0) -> Frame:
        """The next one."""
        if self._at == len(self._numbers):
            raise EndOfStream("all numbers were given")
        number, place = self._numbers[self._at], self._at
        self._at += 1
        return Frame(np.full(SHAPE, place, np.uint16), FrameStamp(self.clock.series, place, number, place))

    def start(self) -> None:
        """Nothing to do."""

    def stats(self) -> SourceStats:
        """It does not know what it lost."""
        return SourceStats()

    def backlog(self) -> int:
        """None."""
        return 0

    def stop(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class Witness:
    """An engine that gives its frames back and remembers the last window it was given."""

    def __init__(self, spec: WindowSpec) -> None:
        self.window = spec
        self.given: list[int] = []

    def run(self, window: Window, first: int, target: int, n_out: int) -> Window:
        """The frames asked for, unchanged."""
        self.given = window[:, 0, 0].astype(int).tolist()
        return window[target - first : target - first + n_out]

    def prepare(self, window: Window, first: int) -> None:
        """Nothing is worth doing ahead."""

    def reset(self) -> None:
        """Nothing to forget."""

    def describe(self) -> EngineInfo:
        """None of ours."""
        return EngineInfo("witness", "cpu", "witness", "fp32", 1)

    def close(self) -> None:
        """Nothing to release."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class NoWake:
    """Nobody is to be woken."""

    def release(self) -> None:
        """Nobody."""


def acquired(numbers: Sequence[int]) -> SharedRing:
    """The ring that acquisition leaves of a series with these camera numbers."""
    path = ring_path()
    settings = RunSettings.model_validate({"engine": {"model": "identity", "calibration_frames": 1}, "ring_s": 1.0})
    attached: list[SharedRing] = []

    class Opened(Ears):
        """Acquisition has made its ring: let it go on."""

        def send(self, message: tuple[object, ...]) -> None:
            if message[0] == "opened":
                attached.append(SharedRing.attach(path))
                attached[0].ints[Slot.GO] = 1

    try:
        acquire.serve(lambda: NumberedCamera(numbers), settings, path, NoWake(), Opened())  # type: ignore[arg-type]
    finally:
        removed(path)
    return attached[0]


def outputs(spec: WindowSpec, numbers: Sequence[int]) -> list[Output]:
    """Everything that comes out of a window over such a series."""
    ring, engine = acquired(numbers), Witness(spec)
    denoiser = StreamingDenoiser(engine, Normalization(0.0, 1.0), SHAPE)
    found: list[Output] = []

    def note(frames: Iterator[Frame]) -> None:
        for out in frames:
            given = [numbers[place] for place in engine.given]
            found.append(Output(out.stamp.frame, out.stamp.src_frame, out.window or (-1, -1), out.complete, given))

    for place in range(ring.head):
        if (frame := ring.frame(place)) is not None:
            note(denoiser.push(frame))
    note(denoiser.flush())
    return found


def check_outputs(spec: WindowSpec, numbers: Sequence[int]) -> int:
    """Every accepted frame comes out once, in order, and says which frames it was made of. How many that were; raises Untrue."""
    found = outputs(spec, numbers)
    if [o.place for o in found] != list(range(len(found))):
        raise Untrue(f"{spec} on {numbers}: frames {[o.place for o in found]} came out")
    for o in found:
        if wrong := _wrong(spec, o):
            raise Untrue(f"{wrong}: {o}, {spec} on {numbers}")
    return len(found)


def _wrong(spec: WindowSpec, o: Output) -> str:
    """What is not true of an output; '' when all of it is."""
    first, last = o.window
    if o.given and (min(o.given), max(o.given)) != (first, last):
        return "it names other frames than it was made of"
    if sorted(set(o.given)) != list(range(first, last + 1)):
        return "its window spans a hole"
    if o.src not in o.given:
        return "it was made without its own frame"
    if o.complete and (o.given != list(range(first, first + spec.size)) or o.src - first not in spec.emits):
        return "it is called complete and was cut"
    return ""
