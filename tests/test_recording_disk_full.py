"""A disk that fills up: said within a second, nothing that is on it is spoilt, and the recording goes on when there is room again."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from recorder_kills import Acquiring

from rtdenoise.files import open_movie
from rtdenoise.recording import table
from rtdenoise.recording.array import _Shard
from rtdenoise.recording.tape import DISK_FULL, TapeState
from rtdenoise.shared import Slot
from tests.recorder_bench import record_in_this_process

FPS = 500


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small disk; the test with a quota runs everywhere")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this container may not mount a disk; the test with a quota runs everywhere")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def stopped(running: Acquiring) -> bool:
    running.hear()
    return any("recording has stopped, disk full" in note for note in running.notes)


def check_what_is_there(run: Path) -> int:
    """Every frame that the tables call good is as it was; returns how many."""
    stamps = table.read_stamps(run / "raw-000.stamps.csv")
    array = zarr.open_group(str(run / "raw-000.ome.zarr"), mode="r")["0"]
    n = min(len(stamps["t"]), array.shape[0])
    np.testing.assert_array_equal(array[:n, 0, 0, -1, -1], stamps["src_frame"][:n] % 65536)
    index = json.loads((run / "raw-000.index.json").read_text(encoding="utf-8"))
    assert index["frames"] <= n
    if index["frames"]:
        assert index["last_good_frame"] == stamps["frame"][index["frames"] - 1]
    return n


def test_a_full_disk_is_said_within_a_second_and_recording_goes_on_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "old.dat"
    ballast.write_bytes(bytes(1 << 20))
    record = {"folder": small_disk / "run", "min_seconds": 0.0}
    options = {"mode": "counter", "shape": [64, 64], "fps": float(FPS)}
    with Acquiring("synthetic", options, small_disk / "run", record=record) as running:
        running.wait_until(lambda: running.slot(Slot.RECORDER_LOST) > 0)
        first_loss = running.ring.head
        running.wait_until(lambda: stopped(running))
        assert running.ring.head - first_loss < FPS
        assert running.slot(Slot.RECORDER_STATE) == TapeState.INTERRUPTED
        head = running.ring.head
        running.wait_until(lambda: running.ring.head > head + 100)  # the acquisition goes on
        kept = check_what_is_there(small_disk / "run")
        assert kept == running.slot(Slot.RECORDED) > 100
        ballast.unlink()
        running.wait_until(lambda: any("recording goes on" in note for note in running.notes))
        running.ring.ints[Slot.STOP] = 1
        running.finish()
        assert running.slot(Slot.RECORDED) + running.slot(Slot.RECORDER_LOST) == running.ring.head
        assert check_what_is_there(small_disk / "run") == running.slot(Slot.RECORDED) > kept
    with open_movie(small_disk / "run") as movie:
        assert movie.info.n_images >= kept


def test_a_quota_that_is_used_up_costs_the_frames_that_did_not_fit_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames 100 to 119 meet a full disk, half of each is written."""
    write, offered = _Shard._write, [0]

    def limited(self: _Shard, content: memoryview, place: int) -> None:
        offered[0] += len(content) > 100  # a frame, not an entry of the table of chunks
        if 100 < offered[0] <= 120 and len(content) > 100:
            write(self, content[: len(content) // 2], place)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, content, place)

    monkeypatch.setattr(_Shard, "_write", limited)
    monkeypatch.setattr("rtdenoise.recording.tape.RETRY_S", 0.0)
    ring, notes = record_in_this_process(tmp_path / "run", n_frames=300)
    assert (int(ring.ints[Slot.RECORDED]), int(ring.ints[Slot.RECORDER_LOST])) == (280, 20)
    assert check_what_is_there(tmp_path / "run") == 280
    stamps = table.read_stamps(tmp_path / "run" / "raw-000.stamps.csv")
    assert sorted(set(range(300)) - set(stamps["src_frame"].tolist())) == list(range(100, 120))
    assert table.read_losses(tmp_path / "run" / "raw.dropped.csv") == [("raw-000", 120, 20, DISK_FULL)]
    assert [words in " ".join(notes) for words in ("recording has stopped, disk full", "goes on; 20 frames")] == [
        True
    ] * 2
    assert ring.ints[Slot.RECORDER_STATE] == TapeState.COMPLETE


def test_a_table_on_a_full_disk_has_whole_lines_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = table.GrowingTable(tmp_path / "t.csv", table.STAMPS)
    row: list[Any] = list(range(len(table.STAMPS)))
    stamps.add(row)
    stamps.flush()
    real_open = Path.open

    def full(self: Path, *args: Any, **named: Any) -> Any:
        file = real_open(self, *args, **named)
        if self.name == "t.csv" and args[:1] == ("r+b",):
            return _HalfWriter(file)
        return file

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        stamps.add(row)
        with pytest.raises(OSError, match="No space"):
            stamps.flush()
    assert len(table.read_stamps(tmp_path / "t.csv")["t"]) == 1
    stamps.flush()
    assert len(table.read_stamps(tmp_path / "t.csv")["t"]) == 2


class _HalfWriter:
    """A file on a disk that takes half of what it is given, then nothing."""

    def __init__(self, file: Any) -> None:
        self._file, self._full = file, False

    def write(self, content: bytes) -> int:
        if self._full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._full = True
        return int(self._file.write(content[: len(content) // 2]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _HalfWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
