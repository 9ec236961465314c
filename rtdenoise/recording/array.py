"""An OME-Zarr array that grows frame by frame and can be read all the while.

`ome-writers` lays it out. Itself it would either make a file of every frame, or keep the frames of a chunk in memory until the chunk
is full, which a camera that pauses may not reach for hours. So from there on the pixels take another way: several chunks share one
file (a zarr shard) whose table of chunks stands at its start, and every frame is written at once into its place behind the last
one. Nothing is held back, nothing is written twice. A file that is full is never touched again: it may be moved away meanwhile.
"""

from __future__ import annotations

import copy
import io
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from rtdenoise.errors import MissingExtraError
from rtdenoise.frame import Pixels, StreamInfo
from rtdenoise.recording.layout import read_json, write_json

Documents = tuple[dict[str, Any], dict[str, Any]]
CHUNK_S = 0.5
"""Most frames of a chunk, in time. Engineering choice: half of the second that a killed process may cost."""
CHUNK_BYTES = 1 << 20
"""Most bytes of a chunk. Engineering choice: a reader fetches two frames of 512 x 512 uint16 at once, or thirty-two of 256 x 64."""
SHARD_BYTES = 256 << 20
"""Bytes of a file. Engineering choice: eight hours of 512 x 512 at 30 frames/s are 1,700 files, not 860,000."""
_UNKNOWN_FPS = 100.0
_ENTRY_BYTES = 16
_MISSING = (1 << 64) - 1
"""Offset and length of a chunk that is not there. Zarr v3, sharding codec."""


class GrowingArray:
    """Pixels of one series, axes t c z y x. Every (channel, plane) is counted for itself; the array is as long as the longest.

    folder: the OME-Zarr, made here.  documents: what `lay_out` gave.  Raises OSError.
    """

    def __init__(self, folder: Path, documents: Documents) -> None:
        group, facts = documents
        self._facts: dict[str, Any] = copy.deepcopy(facts)
        sharding = facts["codecs"][0]["configuration"]["chunk_shape"]
        self._chunk_frames = sharding[0]
        self._frame_bytes = sharding[-2] * sharding[-1] * np.dtype(facts["data_type"]).itemsize
        self._chunks_per_shard = facts["chunk_grid"]["configuration"]["chunk_shape"][0] // self._chunk_frames
        self._pixels = folder / "0"
        self._n: dict[tuple[int, int], int] = {}
        self._open: dict[tuple[int, int], _Shard] = {}
        self._written_length = -1
        for made in (folder, self._pixels):  # no parents: a folder that is gone must not come back on another disk
            made.mkdir(exist_ok=True)
        write_json(folder / "zarr.json", group)
        self.write_length()

    def put(self, pixels: Pixels, key: tuple[int, int]) -> int:
        """Write the next frame (Y, X) of a (channel, plane); returns its place in time. It counts only once `keep` was called.

        Raises OSError when it cannot be written; what was written before stays.
        """
        time = self._n.get(key, 0)
        i_shard, within = divmod(time, self._chunks_per_shard * self._chunk_frames)
        shard = self._open.get(key)
        if shard is None or shard.number != i_shard:
            shard = self._next_shard(key, i_shard)
        shard.put(pixels.data.cast("B"), within)
        return time

    def keep(self, key: tuple[int, int]) -> None:
        """The frame that was put last is good."""
        self._n[key] = self._n.get(key, 0) + 1

    def lengths(self) -> dict[str, int]:
        """Frames by 'channel,plane'."""
        return {f"{channel},{plane}": n for (channel, plane), n in sorted(self._n.items())}

    def write_length(self) -> None:
        """Let readers see the frames so far. Raises OSError."""
        length = max(self._n.values(), default=0)
        if length == self._written_length:
            self.check()
            return
        self._facts["shape"][0] = length
        write_json(self._pixels / "zarr.json", self._facts)
        self._written_length = length

    def check(self) -> None:
        """Raise OSError when the folder is gone: files that are open would go on taking frames that nobody can find."""
        (self._pixels / "zarr.json").stat()

    def let_go(self) -> None:
        """Close every file; the next frame opens its own again. May be called any number of times."""
        for shard in self._open.values():
            shard.close()
        self._open.clear()

    def _next_shard(self, key: tuple[int, int], i_shard: int) -> _Shard:
        self.check()
        before = self._open.pop(key, None)
        if before is not None:
            before.close()
        path = self._pixels.joinpath("c", str(i_shard), str(key[0]), str(key[1]), "0", "0")
        n_bytes = self._frame_bytes * self._chunk_frames
        shard = self._open[key] = _Shard(path, i_shard, self._chunks_per_shard, n_bytes, self._frame_bytes)
        return shard


class _Shard:
    """One file of several chunks: a table of (offset, length), then the chunks in order of time."""

    def __init__(self, path: Path, number: int, n_chunks: int, chunk_bytes: int, frame_bytes: int) -> None:
        self.number = number
        self._n_chunks, self._chunk_bytes, self._frame_bytes = n_chunks, chunk_bytes, frame_bytes
        self._begun = -1
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            part.write_bytes(np.full(2 * n_chunks, _MISSING, "<u8").tobytes())
            part.replace(path)
        self._file = path.open("r+b", buffering=0)

    def put(self, pixels: memoryview, frame: int) -> None:
        """Write the `frame`-th frame. On an OSError the chunk is as if it had never come; its space is given back."""
        table = self._n_chunks * _ENTRY_BYTES
        chunk = frame * self._frame_bytes // self._chunk_bytes
        start, place = table + chunk * self._chunk_bytes, table + frame * self._frame_bytes
        try:
            if chunk != self._begun:
                self._file.truncate(start + self._chunk_bytes)
            self._write(pixels, place)
            if chunk != self._begun:
                entry = np.array([start, self._chunk_bytes], "<u8")
                self._write(entry.data.cast("B"), chunk * _ENTRY_BYTES)
        except OSError:
            self._give_back(place, start + self._chunk_bytes)
            raise
        self._begun = chunk

    def close(self) -> None:
        """Close the file; everything is in it already."""
        with suppress(OSError):  # a network drive may say only now that it is gone; that was noticed before
            self._file.close()

    def _write(self, content: memoryview, place: int) -> None:
        self._file.seek(place, io.SEEK_SET)
        while content:
            content = content[self._file.write(content) :]

    def _give_back(self, place: int, end: int) -> None:
        """Free what half a frame took of a full disk: the stamps of the frames before it need a few bytes."""
        with suppress(OSError):
            self._file.truncate(place)
            self._file.truncate(end)


def chunk_frames(frame_bytes: int, interval_s: float | None) -> int:
    """Frames of one chunk: `CHUNK_S` of them at most, and `CHUNK_BYTES`."""
    fps = 1.0 / interval_s if interval_s else _UNKNOWN_FPS
    return max(1, min(int(CHUNK_S * fps), CHUNK_BYTES // frame_bytes))


def lay_out(info: StreamInfo, dtype: str) -> Documents:
    """The two `zarr.json` of an empty OME-Zarr 0.5, group and array, as `ome-writers` makes them, with chunks that can grow.

    Raises MissingExtraError, OSError.
    """
    try:
        from ome_writers import AcquisitionSettings, Dimension, OmeZarrFormat, create_stream
    except ImportError as error:
        raise MissingExtraError("ome-writers", "live") from error

    pixel: dict[str, Any] = {"unit": "micrometer", "scale": info.um_per_px} if info.um_per_px else {}
    second: dict[str, Any] = {"unit": "second", "scale": info.frame_interval_s} if info.frame_interval_s else {}
    (y, x) = info.shape
    axes = [
        Dimension(name="t", type="time", count=None, **second),
        Dimension(name="c", type="channel", count=info.channels, chunk_size=1),
        Dimension(name="z", type="space", count=info.planes, chunk_size=1),
        Dimension(name="y", type="space", count=y, chunk_size=y, **pixel),
        Dimension(name="x", type="space", count=x, chunk_size=x, **pixel),
    ]
    form = OmeZarrFormat(backend="zarr-python")
    with tempfile.TemporaryDirectory(prefix="rtdenoise-") as name:
        folder = Path(name, "layout.ome.zarr")
        create_stream(AcquisitionSettings(root_path=str(folder), dimensions=axes, dtype=dtype, format=form)).close()
        group, array = read_json(folder / "zarr.json"), read_json(folder / "0" / "zarr.json")
    _make_extensible(array, y * x * np.dtype(dtype).itemsize, info.frame_interval_s)
    return group, array


def _make_extensible(facts: dict[str, Any], frame_bytes: int, interval_s: float | None) -> None:
    """Turn the chunks of the layout into shards whose table stands at the start and has no checksum, so that it can grow."""
    n_frames = chunk_frames(frame_bytes, interval_s)
    n_chunks = max(1, SHARD_BYTES // (frame_bytes * n_frames))
    grid = facts["chunk_grid"]["configuration"]
    one = grid["chunk_shape"][1:]
    table = [{"name": "bytes", "configuration": {"endian": "little"}}]
    sharding = {
        "chunk_shape": [n_frames, *one],
        "codecs": facts["codecs"],
        "index_codecs": table,
        "index_location": "start",
    }
    facts["codecs"] = [{"name": "sharding_indexed", "configuration": sharding}]
    grid["chunk_shape"] = [n_frames * n_chunks, *one]
