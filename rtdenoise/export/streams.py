"""Clips through the stream that the live path runs, in every form that a bundle's graphs run in."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle
from rtdenoise.engine.dial import Latency
from rtdenoise.engine.load import EngineChoice, EngineFactory
from rtdenoise.export.clips import Clip
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.stream import StreamingDenoiser

Stack = NDArray[np.float32]


@dataclass(slots=True, frozen=True)
class Form:
    """One way to run a bundle. name: as in reports.  bundle, latency: what makes it run so."""

    name: str
    bundle: Bundle
    latency: Latency = "full"

    def factory(self, backend: str, shape: tuple[int, int], threads: int) -> EngineFactory:
        """Few runs per frame; FAST frame by frame, as only so its older and newest frames are computed apart."""
        factory = EngineFactory(EngineChoice(str(self.bundle.path), backend, self.latency, 1, threads), shape)
        return factory if self.bundle.manifest.merge == "halving" else factory.with_hop(factory.hops()[-1])


def forms_of(bundle: Bundle) -> list[Form]:
    """The full output, and of a network run as a stream the output without look-ahead, which its window gives."""
    if bundle.manifest.step is None:
        return [Form("stages" if bundle.manifest.stages else "window", bundle)]
    return [Form("step", bundle), Form("window", bundle, "causal")]


@contextlib.contextmanager
def all_forms_of(bundle: Bundle) -> Iterator[list[Form]]:
    """Those of `forms_of`, and of a network in two stages the whole as well."""
    if bundle.manifest.stages is None:
        yield forms_of(bundle)
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        whole = Path(folder) / bundle.path.name
        shutil.copytree(bundle.path, whole)
        yield [*forms_of(bundle), Form("window", bundles.annotate(whole, stages=None))]


def streamed(factory: EngineFactory, clip: Clip) -> Stack:
    """(T, Y, X) counts: every frame of the clip, denoised."""
    out = np.empty(clip.counts.shape, np.float32)
    with factory.make() as engine:
        stream = StreamingDenoiser(engine, clip.normalization, clip.shape)
        for i, counts in enumerate(clip.counts):
            for frame in stream.push(Frame(counts, FrameStamp("0", i, i, 0))):
                out[frame.stamp.frame] = frame.pixels
        for frame in stream.flush():
            out[frame.stamp.frame] = frame.pixels
    return out
