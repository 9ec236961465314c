"""Traces of cells while the mouse is on the rig: dF/F of every region, frame by frame, in the manner of CaImAn's OnACID.

    python online_dff.py --out traces.csv                                # finds cells in the first frames
    python online_dff.py --rois labels.npy --offset 100 --out traces.jsonl

Regions are given (a label image, 0 is background) or found where neighbouring pixels brighten together. F0 is a running
percentile, as in CaImAn's `detrend_df_f` (the 8th of the last 500 frames there); the change of a ring around each region is
taken away in part, as in Suite2p. Memory is bounded: the sums of the search, then `window` values per region. What this is not: no
demixing of overlapping cells, no spikes; feed the stream to OnACID for these.

Each row: frame of the stream, frame of the camera, seconds, frames that never arrived before it, 1 when its window was whole,
then dF/F of each region. The file is flushed after every row.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, uniform_filter

from rtdenoise.errors import RtDenoiseError
from rtdenoise.subscribe import Subscriber
from rtdenoise.wire import DENOISED_ENDPOINT, Message

Image = NDArray[np.float32]
Labels = NDArray[np.intp]
Values = NDArray[np.float64]
SETTLING = 10
"""Frames before changes are believed."""
FIRST = ("frame", "src_frame", "t_s", "missed", "complete")


class LocalCorrelation:
    """Where neighbouring pixels brighten together, from running sums alone.

    Changes are those of the last tenth of a second against the last second (at 30 frames/s), of a cell against its surround, so
    that neither shape, bleaching and drift nor the shared glow of the neuropil count; only brightening does, for that is what a
    calcium transient is. Engineering choices.
    """

    def __init__(self, first: Image, radius_px: int) -> None:
        self._shifts = ((radius_px, 0), (0, radius_px), (radius_px, radius_px), (radius_px, -radius_px))
        self._radius_px = radius_px
        self._fast, self._slow = first.copy(), first.copy()
        self._products = [np.zeros(first.shape) for _ in self._shifts]
        self.n_frames = 1

    def add(self, image: Image) -> None:
        """Another frame."""
        self._fast += np.float32(0.3) * (image - self._fast)
        change = self._fast - self._slow
        self._slow += np.float32(1 / 30) * (image - self._slow)
        self.n_frames += 1
        if self.n_frames > SETTLING:
            seen = uniform_filter(change, self._radius_px) - uniform_filter(change, 4 * self._radius_px + 1)
            np.maximum(seen, 0, out=seen)
            for k, shift in enumerate(self._shifts):
                self._products[k] += seen * np.roll(seen, shift, (0, 1))

    def image(self) -> Image:
        """(Y, X) covariance with the pixels a radius away, averaged over eight directions, as a standard deviation in counts."""
        total = np.zeros_like(self._products[0])
        for products, (dy, dx) in zip(self._products, self._shifts, strict=True):
            total += products + np.roll(products, (-dy, -dx), (0, 1))
        return np.sqrt(total / (2 * len(self._shifts) * self.n_frames)).astype(np.float32)


def find_regions(activity: Image, radius_px: int, n_most: int, contrast: float = 5.0) -> Labels:
    """Label image of discs around the peaks of an activity image, strongest first, until they drown in the rest.

    contrast: how far above the median, in robust standard deviations, the mean of a disc must be. Engineering choice.
    """
    disc = _disc(radius_px)
    score = uniform_filter(activity, radius_px)
    middle = float(np.median(score))
    spread = 1.4826 * float(np.median(np.abs(score - middle))) + 1e-12
    labels = np.zeros(activity.shape, np.intp)
    left = score.copy()
    for k in range(1, n_most + 1):
        y, x = np.unravel_index(int(np.argmax(left)), left.shape)
        if left[y, x] < middle + contrast * spread:
            break
        _paint(labels, disc, int(y), int(x), k)
        _paint(left, _disc(2 * radius_px), int(y), int(x), -np.inf)
    return labels


class Regions:
    """Mean counts of labelled regions and of the rings around them, the same memory for every frame."""

    def __init__(self, labels: Labels, gap_px: int = 2, width_px: int = 5) -> None:
        self.n = int(labels.max())
        cells = [labels == k for k in range(1, self.n + 1)]
        if self.n == 0 or not all(cell.any() for cell in cells):
            raise RtDenoiseError(
                "the label image has no region, or a number without pixels; number the regions 1, 2, 3 ..."
            )
        self._cells = _Means(cells)
        free = labels == 0
        rings = [
            free & binary_dilation(cell, iterations=gap_px + width_px) & ~binary_dilation(cell, iterations=gap_px)
            for cell in cells
        ]
        self._rings = _Means([ring if ring.any() else free for ring in rings])

    def means(self, image: Image) -> tuple[Values, Values]:
        """(N,) mean of each region, and of the ring around it that belongs to no region."""
        return self._cells.of(image), self._rings.of(image)


class _Means:
    """Means over several sets of pixels, which may overlap."""

    def __init__(self, sets: Sequence[NDArray[np.bool_]]) -> None:
        indices = [np.flatnonzero(pixels) for pixels in sets]
        self._sizes = np.array([len(found) for found in indices])
        self._starts = np.concatenate(([0], np.cumsum(self._sizes)[:-1]))
        self._indices = np.concatenate(indices)

    def of(self, image: Image) -> Values:
        sums = np.add.reduceat(image.ravel()[self._indices], self._starts, dtype=np.float64)
        means: Values = sums / self._sizes
        return means


class RunningBaseline:
    """dF/F of each region: F0 is a low percentile of its last `window` values.

    neuropil: share of the change in the ring that is taken from the region; 0.7 is Suite2p's default.
    """

    def __init__(self, n: int, window: int, percentile: float, neuropil: float) -> None:
        self._cells, self._rings = np.zeros((window, n)), np.zeros((window, n))
        self._n_seen = 0
        self._percentile, self._neuropil = percentile, neuropil

    def dff(self, cells: Values, rings: Values) -> Values:
        """(N,) dF/F of these counts, which also become part of the baseline. Not a number where F0 is not above 0."""
        at = self._n_seen % len(self._cells)
        self._rings[at] = rings
        self._n_seen += 1
        ring_f0 = np.percentile(self._rings[: self._n_seen], self._percentile, axis=0)
        self._cells[at] = cells - self._neuropil * (rings - ring_f0)
        f0 = np.percentile(self._cells[: self._n_seen], self._percentile, axis=0)
        dff: Values = np.divide(self._cells[at] - f0, f0, out=np.full(len(f0), np.nan), where=f0 > 0)
        return dff


def main() -> None:
    """Find or load regions, then write a row per frame."""
    asked = arguments()
    with Subscriber(asked.endpoint) as stream, _output(asked.out) as out:
        incoming = messages(stream, asked.idle)
        with suppress(KeyboardInterrupt):
            run(incoming, stream, out, asked)


def run(incoming: Iterator[Message], stream: Subscriber, out: TextIO, asked: argparse.Namespace) -> None:
    """The loop: everything that arrives becomes a row."""
    labels = np.load(asked.rois, allow_pickle=False) if asked.rois else search(incoming, asked)
    regions = Regions(labels.astype(np.intp))
    if asked.save_rois:
        np.save(asked.save_rois, labels)
    print(f"{regions.n} regions", file=sys.stderr, flush=True)
    as_json = asked.out != "-" and Path(asked.out).suffix == ".jsonl"
    names = [*FIRST, *(f"roi{k}" for k in range(1, regions.n + 1))]
    if not as_json:
        print(",".join(names), file=out, flush=True)
    baseline = RunningBaseline(regions.n, asked.window, asked.percentile, asked.neuropil)
    for n, message in enumerate(incoming, start=1):
        stamp = message.frame.stamp
        dff = baseline.dff(*regions.means(np.asarray(message.frame.pixels, np.float32) - np.float32(asked.offset)))
        when_s = (stamp.t_src or stamp.t_in) / 1e9
        row: list[object] = [stamp.frame, stamp.src_frame, round(when_s, 6), stream.missed, int(message.frame.complete)]
        row += [round(float(value), 5) if np.isfinite(value) else None for value in dff]
        print(_json_row(row) if as_json else _csv_row(row), file=out, flush=True)
        if n == asked.frames:
            return


def search(incoming: Iterator[Message], asked: argparse.Namespace) -> Labels:
    """Regions from the first frames of the stream."""
    sums: LocalCorrelation | None = None
    for message in incoming:
        image = np.asarray(message.frame.pixels, np.float32)
        if sums is None:
            sums = LocalCorrelation(image, asked.radius)
        else:
            sums.add(image)
        if sums.n_frames >= asked.find_frames:
            break
    if sums is None:
        raise RtDenoiseError(f"{asked.endpoint}: no frame came; is a run going? Start one with: rtdenoise run")
    labels = find_regions(sums.image(), asked.radius, asked.most)
    if not labels.any():
        raise RtDenoiseError(f"nothing flickers in {sums.n_frames} frames; raise --find-frames, or give --rois")
    return labels


def messages(stream: Subscriber, idle_s: float | None) -> Iterator[Message]:
    """Every frame in order, until after the first none has come for `idle_s`."""
    heard_s = None
    while idle_s is None or heard_s is None or time.monotonic() - heard_s < idle_s:
        message = stream.read(0.1)
        if message is not None:
            heard_s = time.monotonic()
            yield message


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--endpoint", default=DENOISED_ENDPOINT)
    parser.add_argument("--out", default="-", help="*.csv or *.jsonl; -: CSV to the terminal")
    parser.add_argument("--rois", type=Path, help="label image (Y, X) as *.npy, 0 is background")
    parser.add_argument("--save-rois", type=Path, help="write the label image that was used")
    parser.add_argument("--find-frames", type=int, default=300, help="frames to search for cells in")
    parser.add_argument("--radius", type=int, default=6, help="of a cell, in pixels")
    parser.add_argument("--most", type=int, default=50, help="cells to find at most")
    parser.add_argument("--offset", type=float, default=0.0, help="counts without light")
    parser.add_argument("--percentile", type=float, default=8.0, help="of the last --window frames that is F0")
    parser.add_argument("--neuropil", type=float, default=0.7, help="share of the surround's change to take away")
    parser.add_argument("--window", type=int, default=500, help="frames")
    parser.add_argument("--frames", type=int, help="stop after so many rows")
    parser.add_argument("--idle", type=float, help="stop when nothing has come for so many seconds")
    return parser.parse_args()


def _output(name: str) -> AbstractContextManager[TextIO]:
    return nullcontext(sys.stdout) if name == "-" else Path(name).open("w", encoding="utf-8")


def _csv_row(row: list[object]) -> str:
    return ",".join("" if value is None else str(value) for value in row)


def _json_row(row: list[object]) -> str:
    return json.dumps({**dict(zip(FIRST, row, strict=False)), "dff": row[len(FIRST) :]})


def _disc(radius_px: int) -> NDArray[np.bool_]:
    y, x = np.ogrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    inside: NDArray[np.bool_] = y * y + x * x <= radius_px * radius_px
    return inside


def _paint(target: NDArray[np.generic], disc: NDArray[np.bool_], y: int, x: int, value: float) -> None:
    radius = disc.shape[0] // 2
    rows = slice(max(0, y - radius), y + radius + 1)
    columns = slice(max(0, x - radius), x + radius + 1)
    part = disc[max(0, radius - y) :, max(0, radius - x) :]
    area = target[rows, columns]
    np.copyto(area, value, where=part[: area.shape[0], : area.shape[1]], casting="unsafe")


if __name__ == "__main__":
    try:
        main()
    except RtDenoiseError as error:
        sys.exit(f"online_dff: {error}")
