"""The execution forms on a card: what is queued for a window of frames that lie there.

Addresses are fixed, so that each network is recorded once and replayed with one launch; only copies go to changing places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from rtdenoise.bundle import StepFacts
from rtdenoise.engine.card import CardRing, Constants, Memory, Run, Shape, replay
from rtdenoise.engine.device import Device, DeviceGraph
from rtdenoise.engine.merged import Merging, block_starts
from rtdenoise.engine.stepped import graph_shapes, padded
from rtdenoise.errors import WindowError
from rtdenoise.frame import WindowSpec


class Form(Protocol):
    """`queue(ring, frames, first, target, n_out, home)`: queue a run on the window of these frames of the ring, see Engine.run, that
    leaves the counts of frames target .. target+n_out-1 at the address `home`. `reset()`: frame numbers start again at 0.
    """

    def queue(self, ring: CardRing, frames: Sequence[int], first: int, target: int, n_out: int, home: int) -> None: ...  # noqa: D102

    def reset(self) -> None: ...  # noqa: D102


class WindowForm:
    """All T frames each run. finish: normalised -> counts, for `spec.hop` frames."""

    def __init__(
        self,
        memory: Memory,
        constants: Constants,
        network: DeviceGraph,
        finish: DeviceGraph,
        emits: tuple[int, ...],
        spec: WindowSpec,
        shape: Shape,
    ) -> None:
        self._card, self._position, self._frame_bytes = memory.card, spec.emits[0], 4 * shape[0] * shape[1]
        self._window = memory.frames(spec.size, shape)
        self._counts = memory.frames(spec.hop, shape)
        denoised, chosen = memory.frames(len(emits), shape), memory.frames(spec.hop, shape)
        first_row = denoised + emits.index(spec.emits[0]) * self._frame_bytes

        def work() -> None:
            network.enqueue((self._window, denoised))
            self._card.copy(chosen, first_row, spec.hop * self._frame_bytes)
            finish.enqueue((chosen, constants.scale, constants.offset, self._counts))

        self._work = replay(self._card, work)

    def queue(self, ring: CardRing, frames: Sequence[int], first: int, target: int, n_out: int, home: int) -> None:
        """See Form. Raises WindowError for another position than the stream's."""
        if target - first != self._position:
            raise WindowError(f"this engine emits from position {self._position} of its window, not {target - first}")
        ring.gather(frames, self._window)
        self._work()
        self._card.copy(home, self._counts, n_out * self._frame_bytes)

    def reset(self) -> None:
        """Nothing is remembered between windows."""


class MergedForm:
    """Blocks whose overlapping outputs are averaged, oldest first (see `rtdenoise.engine.merged`), all of it on the card.

    Blocks are not cut in time as on a processor: what would be saved after the newest frame is less than a second launch costs.
    merge: K frames in N predictions each -> counts; K is the hop, N `merge_depth`.
    """

    def __init__(
        self,
        memory: Memory,
        constants: Constants,
        network: DeviceGraph,
        merge: DeviceGraph,
        block: int,
        hop: int,
        latency: Merging,
        shape: Shape,
    ) -> None:
        self._card, self._block, self._hop, self._latency = memory.card, block, hop, latency
        self._frame_bytes = 4 * shape[0] * shape[1]
        self._depth = merge_depth(block, hop, latency)
        self._window, self._denoised = memory.frames(block, shape), memory.frames(block, shape)
        n_blocks = -(-block // hop) + 1
        self._blocks = [memory.frames(block, shape) for _ in range(n_blocks)]
        self._starts = [-1] * n_blocks
        self._stack, self._counts = memory.frames(hop * self._depth, shape), memory.frames(hop, shape)
        weights = memory.take(4 * self._depth)
        _upload(self._card, weights, halving_weights(self._depth))
        addresses = (self._stack, weights, constants.scale, constants.offset, self._counts)
        self._run = replay(self._card, lambda: network.enqueue((self._window, self._denoised)))
        self._merge = replay(self._card, lambda: merge.enqueue(addresses))

    def queue(self, ring: CardRing, frames: Sequence[int], first: int, target: int, n_out: int, home: int) -> None:
        """See Form."""
        starts = block_starts(first, first + len(frames), self._block, self._hop)
        for begin in range(0, n_out, self._hop):
            n_here = min(self._hop, n_out - begin)
            for i in range(n_here):
                self._stack_up(i, target + begin + i, starts, ring, frames, first)
            self._merge()
            self._card.copy(home + begin * self._frame_bytes, self._counts, n_here * self._frame_bytes)

    def reset(self) -> None:
        """Forget all blocks."""
        self._starts = [-1] * len(self._starts)

    def _stack_up(
        self, row: int, frame: int, starts: list[int], ring: CardRing, frames: Sequence[int], first: int
    ) -> None:
        """Copy every prediction of a frame to its place; the oldest fills those of blocks that do not exist: (a + a) / 2 is a."""
        here = [start for start in starts if start <= frame < start + self._block]
        here = here[:1] if self._latency == "causal" else here
        to = self._stack + row * self._depth * self._frame_bytes
        for start in [here[0]] * (self._depth - len(here)) + here:
            block = self._block_output(start, ring, frames, first)
            self._card.copy(to, block + (frame - start) * self._frame_bytes, self._frame_bytes)
            to += self._frame_bytes

    def _block_output(self, start: int, ring: CardRing, frames: Sequence[int], first: int) -> int:
        """Address of the block that starts at frame `start`, computed at most once."""
        if start in self._starts:
            return self._blocks[self._starts.index(start)]
        slot = self._starts.index(min(self._starts))
        ring.gather(frames[start - first : start - first + self._block], self._window)
        self._run()
        self._card.copy(self._blocks[slot], self._denoised, self._block * self._frame_bytes)
        self._starts[slot] = start
        return self._blocks[slot]


class SteppedForm:
    """The network run as a stream (see `rtdenoise.engine.stepped`): its states stay on the card and change places every step."""

    def __init__(
        self,
        memory: Memory,
        constants: Constants,
        step: DeviceGraph,
        finish: DeviceGraph,
        facts: StepFacts,
        shape: Shape,
    ) -> None:
        self._card, self._facts, self._hop = memory.card, facts, len(facts.emits)
        side = padded(facts, shape)
        self._frame_bytes = 4 * side[0] * side[1]
        sizes = [4 * int(np.prod(s)) for s in graph_shapes(facts, shape)]
        n_inputs = len(facts.inputs)
        self._inputs = [memory.take(size) for size in sizes[:n_inputs]]
        self._state_bytes = sizes[n_inputs:]
        self._states = [[memory.take(size) for size in self._state_bytes] for _ in ("even", "odd")]
        denoised, self._counts = memory.frames(self._hop, side), memory.frames(self._hop, side)
        self._steps = [self._recorded(step, parity, denoised) for parity in (0, 1)]
        addresses = (denoised, constants.scale, constants.offset, self._counts)
        self._finish = replay(self._card, lambda: finish.enqueue(addresses))
        self._parity = 0
        self._next_stop: int | None = None

    def queue(self, ring: CardRing, frames: Sequence[int], first: int, target: int, n_out: int, home: int) -> None:
        """See Form. One step where the window follows the last one, else all of them from empty states."""
        if self._next_stop != first + self._facts.size:
            self._forget()
            for behind in range(self._facts.inputs[0][0], 0, -self._hop):
                self._step(ring, frames, behind)
        self._step(ring, frames, 0)
        self._next_stop = first + self._facts.size + self._hop
        self._finish()
        self._card.copy(home, self._counts, n_out * self._frame_bytes)

    def reset(self) -> None:
        """Forget the states."""
        self._next_stop = None

    def _recorded(self, step: DeviceGraph, parity: int, denoised: int) -> Run:
        addresses = (*self._inputs, *self._states[parity], denoised, *self._states[1 - parity])
        return replay(self._card, lambda: step.enqueue(addresses))

    def _forget(self) -> None:
        for address, n_bytes in zip(self._states[self._parity], self._state_bytes, strict=True):
            self._card.clear(address, n_bytes)

    def _step(self, ring: CardRing, frames: Sequence[int], behind: int) -> None:
        """The step that ends `behind` frames before the window does."""
        for (first, stop), address in zip(self._facts.inputs, self._inputs, strict=True):
            start = max(0, first - behind)
            ring.gather(frames[start : start + stop - first], address)
        self._steps[self._parity]()
        self._parity = 1 - self._parity


def merge_depth(block: int, hop: int, latency: Merging) -> int:
    """Most predictions that a frame may have: those on the grid of the hop, and the block that ends a segment."""
    return 1 if latency == "causal" else min(block, -(-block // hop) + 1)


def halving_weights(n: int) -> list[float]:
    """What averaging each newer prediction half and half comes to (FAST sheet 1.3): ... 1/8, 1/4, 1/2, the oldest as the second."""
    return [2.0 ** -min(n - 1, n - rank) for rank in range(n)]


def _upload(card: Device, address: int, values: list[float]) -> None:
    host = card.pinned((len(values),), np.float32)
    host[:] = values
    card.upload(address, host)
    card.synchronize()
