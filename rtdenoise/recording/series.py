"""The files of one recorded series: pixels, stamps, and the index that says which of them are good."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rtdenoise.frame import Frame
from rtdenoise.recording import layout
from rtdenoise.recording.array import Documents, GrowingArray
from rtdenoise.recording.table import GrowingTable


class SeriesWriter:
    """Takes the frames of one series. Raises OSError when the disk does; what was written before stays good.

    first: number of the first frame in the stream that is recorded.  epoch_ns: perf_counter_ns at which the series started.
    """

    def __init__(
        self, folder: Path, name: str, documents: Documents, columns: Sequence[str], first: Frame, epoch_ns: int
    ) -> None:
        self.name, self.id = name, first.stamp.series
        self.next_frame = 0
        self._folder, self._first = folder, first.stamp.frame
        self._array = GrowingArray(layout.array_folder(folder, name), documents)
        self._stamps = GrowingTable(layout.stamps_file(folder, name), columns)
        began_utc_s = time.time() - (time.perf_counter_ns() - epoch_ns) / 1e9
        self._facts = {"series": self.id, "began_utc_s": began_utc_s, "epoch_ns": epoch_ns}
        self._n_frames = 0
        self._last_good: int | None = None
        self._said: tuple[object, ...] = ()
        self._write_index("recording")

    def number(self, frame: Frame) -> int:
        """Number of a frame within this series."""
        return frame.stamp.frame - self._first

    def put(self, frame: Frame) -> int:
        """Write the pixels; returns their place in time. The frame counts only once `keep` was called."""
        return self._array.put(frame.pixels, frame.stamp.key)

    def keep(self, frame: Frame, time_index: int, more: Sequence[object] = ()) -> None:
        """The pixels that were put last are good: `more` are the columns behind those of `table.STAMPS`."""
        s, number = frame.stamp, self.number(frame)
        self._array.keep(s.key)
        row = (number, time_index, s.src_frame, s.t_src, s.t_in, s.channel, s.plane, s.dropped, *more)
        self._stamps.add(row)
        self._n_frames += 1
        self._last_good, self.next_frame = number, number + 1

    def flush(self, state: str = "recording") -> None:
        """Let readers see every frame so far."""
        self._array.write_length()
        self._stamps.flush()
        self._write_index(state)

    def forget(self) -> int:
        """Give up the stamps that could not be written; returns how many frames they were of."""
        return self._stamps.forget()

    def check(self) -> None:
        """Raise OSError when the folder is not there."""
        self._array.check()

    def let_go(self) -> None:
        """Close the files of the pixels; the next frame opens them again."""
        self._array.let_go()

    def _write_index(self, state: str) -> None:
        facts = (state, self._n_frames)
        if facts == self._said:
            return
        index = {
            "name": self.name,
            "state": state,
            "frames": self._n_frames,
            "last_good_frame": self._last_good,
            "lengths": self._array.lengths(),
            **self._facts,
        }
        layout.write_json(layout.index_file(self._folder, self.name), index)
        self._said = facts
