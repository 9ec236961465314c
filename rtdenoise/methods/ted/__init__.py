"""TeD: temporal-gradient empowered denoising with Swin transformers, PhotoniX 2025.

Built from the published description; the weights of the authors' code load by name. Differences, on purpose:

- frames are normalised by the frozen calibration of a field of view, not by mean and sd of the whole movie; rTG, which
  the authors take from counts, is worked out inside the network from normalised frames and the fact `level`, mean over
  sd: one number for a network, where theirs follows each movie. It scales rTG's distance from 1, whose effect on the
  output is 0.1 to 2 % (sheet A 4.9);
- its divisor is the brightest pixel of whole frames, where the authors' tiles of 128 px each have their own; whole frames
  also mean one grid of attention windows (0.015 counts rms at a signal of sd 8.7, sheet A 4.9);
- frames of any size are filled up by mirroring; the authors' code stops unless Y and X are multiples of 8;
- the mask of shifted windows is carried by query and key (see `WindowAttention`);
- an rTG divisor at or below zero, as in movies with their offset subtracted, means full trust instead of a division by it;
- a batch takes crops from several movies and any places, where the authors take one patch per movie and epoch;
- options of the task, off by default: squared error alone, pairs across the scan lines alone, rTG from the input pixels
  alone, the regulariser in a few steps only at the same expectation (see `TedTask`).
"""

from rtdenoise.methods.base import Method
from rtdenoise.methods.ted.network import TedNetwork
from rtdenoise.methods.ted.task import TedTask
from rtdenoise.methods.ted.upstream import from_upstream

METHOD = Method(
    name="ted",
    title="TeD: pixel pairs and temporal gradients on 41 frames",
    reference="10.1186/s43074-025-00173-8",
    network=TedNetwork,
    task=TedTask,
    narrow={"embed": 16, "stem": 12, "heads": 2, "groups": 2, "depth": 2, "drop": 0.0},
    from_upstream=from_upstream,
    terms="The authors published code and weights without a licence: ask them before you use or pass on their weights.",
)

__all__ = ["METHOD", "TedNetwork", "TedTask", "from_upstream"]
