"""Engines whose frames stay on the card: the newest raw frame goes up, denoised counts come home, nothing else moves between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rtdenoise.engine.base import Counts, EngineInfo, Window
from rtdenoise.engine.card import N_HOMES, CardRing, Constants, Homes, Intake, Memory, Shape
from rtdenoise.engine.device import Device, DeviceGraph
from rtdenoise.engine.resident_forms import Form
from rtdenoise.engine.store import n_kept
from rtdenoise.frame import Pixels, WindowSpec
from rtdenoise.normalize import Normalization

UNIT = Normalization(0.0, 1.0)


@dataclass(slots=True, frozen=True)
class Residence:
    """What a resident engine is made of. shape: of frames, (Y, X).  padded: as the network wants them.

    n_rows: most frames that one run gives.  ingests: by pixel type.  form: takes its memory and begins when it is called.
    """

    card: Device
    window: WindowSpec
    shape: Shape
    padded: Shape
    n_rows: int
    ingests: Mapping[str, DeviceGraph]
    form: Callable[[Memory, Constants], Form]
    info: EngineInfo


class ResidentStore:
    """Frames in a ring on the card. A run is queued and comes home beside the work for the next one; see WindowStore."""

    most_ahead = N_HOMES - 2

    def __init__(self, residence: Residence, memory: Memory) -> None:
        shape, padded, spec = residence.shape, residence.padded, residence.window
        self.constants = Constants(memory)
        self.form = residence.form(memory, self.constants)
        self._card, self._shape, self._is_padded = memory.card, shape, shape != padded
        self.ring = CardRing(memory, padded, n_kept(spec))
        self._homes = Homes(memory, residence.n_rows, padded)
        # A run is waited for before the next but `most_ahead` begins: so many frames may not have arrived until then.
        n_places = (self.most_ahead + 1) * spec.hop + 1
        self._intake = Intake(memory, residence.ingests, self.constants, shape, padded, n_places)
        self._marks = [0] * N_HOMES
        self._n_runs = 0
        self._cropped = np.empty(shape, np.float32)
        memory.card.synchronize()

    @property
    def n_frames(self) -> int:
        """Frames put since the last reset."""
        return self.ring.n_frames

    def put(self, pixels: Pixels) -> None:
        """Copy to pinned memory; queue the upload, the normalisation and the place in the ring."""
        self.ring.put(self._intake.put(pixels))

    def denoise(self, frames: Sequence[int], first: int, target: int, n_out: int) -> int:
        """Queue a run and its way home."""
        ticket = self._n_runs
        place = ticket % N_HOMES
        self.form.queue(self.ring, frames, first, target, n_out, self._homes.open(place))
        self._homes.fetch(place, n_out)
        self._marks[place] = self._intake.n_put
        self._n_runs += 1
        return ticket

    def counts(self, ticket: int, i: int, out: Counts | None) -> Counts:
        """Wait for the run; see WindowStore."""
        place = ticket % N_HOMES
        if self._homes.wait(place):
            self._intake.note_arrived(self._marks[place])
        row: Counts = self._homes.arrays[place][i, : self._shape[0], : self._shape[1]]
        if out is None and not self._is_padded:
            return row
        out = self._cropped if out is None else out
        np.copyto(out, row)
        return out

    def prepare(self, first: int) -> None:
        """Nothing can be done ahead: a run is queued with its newest frame."""

    def reset(self) -> None:
        """Forget all frames and what was computed of them."""
        self.ring.reset()
        self.form.reset()


class ResidentEngine:
    """An engine for streams that keep their frames on the card; for single windows in host memory too, all frames up each time.

    Memory on the card is taken here, so that what does not fit is known at the start, and given back by `close`.
    Raises EngineError when the card has no room.
    """

    def __init__(self, residence: Residence) -> None:
        self.window = residence.window
        self._info = residence.info
        self._memory = Memory(residence.card)
        try:
            self._store = ResidentStore(residence, self._memory)
            self._normalise(UNIT)
        except BaseException:
            self._memory.free()
            raise
        self._out = np.empty((residence.n_rows, *residence.shape), np.float32)

    def keep(self, normalization: Normalization) -> ResidentStore:
        """The engine's frames, none at first, for a stream normalised so. Ends the stream that it was kept for before."""
        self._normalise(normalization)
        self._store.reset()
        return self._store

    def run(self, window: Window, first: int, target: int, n_out: int) -> NDArray[np.float32]:
        """(n_out, Y, X) of a window in host memory; see Engine.run. Ends a stream whose frames are kept here."""
        store = self._store
        if self._normalization != UNIT:
            self._normalise(UNIT)
        store.ring.reset()
        for frame in window:
            store.put(frame)
        ticket = store.denoise(range(len(window)), first, target, n_out)
        for i in range(n_out):
            store.counts(ticket, i, self._out[i])
        return self._out[:n_out]

    def prepare(self, window: Window, first: int) -> None:
        """Nothing can be done ahead."""

    def reset(self) -> None:
        """Frame numbers start again at 0."""
        self._store.reset()

    def describe(self) -> EngineInfo:
        """What was bound."""
        return self._info

    def close(self) -> None:
        """Give the memory on the card back; the engine cannot run any more."""
        self._memory.free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _normalise(self, normalization: Normalization) -> None:
        self._store.constants.put(normalization)
        self._normalization = normalization
