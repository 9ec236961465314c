"""What is recorded is what was taken: readable while it is written, complete to the second after a kill, honest about the rest."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorder_kills
import zarr
from recorder_kills import Acquiring, pixels_on_disk

from rtdenoise.errors import EndOfStream, RecordingError
from rtdenoise.files import open_movie
from rtdenoise.frame import Frame, FrameStamp, StreamInfo
from rtdenoise.recording import events, layout, table
from rtdenoise.recording.array import CHUNK_S, GrowingArray, chunk_frames, lay_out
from rtdenoise.recording.tape import DISK_GONE, OVERWRITTEN, Tape, TapeState
from rtdenoise.shared import Slot
from rtdenoise.sources.replay import ReplaySource
from tests.recorder_bench import acquire_in_this_process, marked, record_in_this_process

COUNTER = {"mode": "counter", "shape": [24, 32]}
QUICK = {**COUNTER, "fps": 1000.0, "n_frames": 200}


def series_of(folder: Path, name: str = "raw-000") -> tuple[dict[str, Any], dict[str, Any], Any]:
    """(index, stamps, array) of a series, read with what is in anybody's Python."""
    index = json.loads((folder / f"{name}.index.json").read_text(encoding="utf-8"))
    array = zarr.open_group(str(folder / f"{name}.ome.zarr"), mode="r")["0"]
    return index, table.read_stamps(folder / f"{name}.stamps.csv"), array


def test_every_frame_is_on_disk_once_in_order_with_its_stamp(tmp_path: Path) -> None:
    _, notes = acquire_in_this_process(tmp_path / "run", QUICK)
    index, stamps, array = series_of(tmp_path / "run")
    assert array.shape == (200, 1, 1, 24, 32)
    np.testing.assert_array_equal(array[:, 0, 0, -1, -1], np.arange(200))
    for column in ("frame", "t", "src_frame"):
        np.testing.assert_array_equal(stamps[column], np.arange(200))
    assert (np.diff(stamps["t_in"]) > 0).all()
    assert (index["frames"], index["last_good_frame"], index["state"]) == (200, 199, "complete")
    assert any("recording to" in note and "room for" in note for note in notes)


def test_the_layout_is_a_valid_ome_zarr_with_units(tmp_path: Path) -> None:
    yaozarrs = pytest.importorskip("yaozarrs", reason="yaozarrs comes with ome-writers of the live extra")
    acquire_in_this_process(tmp_path / "run", QUICK)
    path = tmp_path / "run" / "raw-000.ome.zarr"
    yaozarrs.validate_zarr_store(str(path))
    image = zarr.open_group(str(path), mode="r").attrs["ome"]["multiscales"][0]
    assert [(axis["name"], axis.get("unit")) for axis in image["axes"][:1]] == [("t", "second")]
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"][0] == pytest.approx(0.001)


def test_two_channels_and_two_planes_are_kept_apart(tmp_path: Path) -> None:
    ring, _ = record_in_this_process(tmp_path / "run", n_frames=203, channels=2, planes=2)
    index, stamps, array = series_of(tmp_path / "run")
    assert array.shape[:3] == (51, 2, 2)
    assert index["lengths"] == {"0,0": 51, "0,1": 51, "1,0": 51, "1,1": 50}
    assert len(stamps["t"]) == ring.head == 203
    for row in zip(*(stamps[name] for name in ("t", "src_frame", "channel", "plane")), strict=True):
        time_index, number, channel, plane = map(int, row)
        np.testing.assert_array_equal(array[time_index, channel, plane], marked(number, channel, plane))


def test_series_have_files_of_their_own(tmp_path: Path) -> None:
    ring, _ = acquire_in_this_process(tmp_path / "run", {**QUICK, "n_frames": 30}, n_series=3)
    assert layout.series_names(tmp_path / "run") == ["raw-000", "raw-001", "raw-002"]
    ids = set()
    for name in layout.series_names(tmp_path / "run"):
        index, stamps, array = series_of(tmp_path / "run", name)
        ids.add(index["series"])
        assert (stamps["frame"].tolist(), array.shape[0]) == (list(range(30)), 30)
    assert len(ids) == 3
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert facts["totals"]["recorded"] == ring.ints[Slot.RECORDED] == 90
    assert facts["versions"]["ome-writers"]
    assert facts["settings"]["source"]["name"] == "synthetic"


def test_a_copy_taken_while_recording_opens_and_lacks_nothing_older_than_a_second(tmp_path: Path) -> None:
    options = {**COUNTER, "fps": 250.0}
    with Acquiring("synthetic", options, tmp_path / "run", ring_s=30.0) as running:
        running.wait_until(lambda: running.ring.head > 500)
        head, now = running.ring.head, time.perf_counter_ns()
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        ages_s = [(now - running.ring.epoch_ns(n) - running.ring.frame(n).stamp.t_in) / 1e9 for n in range(head)]  # type: ignore[union-attr]
        wanted = sum(age > 1.0 for age in ages_s)
        there = pixels_on_disk(tmp_path / "copy")
        assert 200 < wanted <= len(there)
        for n, pixels in enumerate(there[:wanted]):
            np.testing.assert_array_equal(pixels, running.ring.frame(n).pixels)  # type: ignore[union-attr]
    with open_movie(tmp_path / "copy") as movie:
        assert movie.info.n_images >= wanted


def test_a_killed_process_costs_at_most_the_last_second(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the tool that does the same 200 times."""
    monkeypatch.setattr(sys, "argv", ["recorder_kills.py", "--kills", "2", "--fps", "400", "--seed", "5"])
    with pytest.raises(SystemExit) as ended:
        recorder_kills.main()
    said = capsys.readouterr().out
    assert ended.value.code == 0, said
    assert "2 kills, 0 broken promises" in said
    assert " 0 on disk" not in said


def test_a_paused_camera_leaves_nothing_in_memory(tmp_path: Path) -> None:
    """ome-writers would wait for a full chunk."""
    info = StreamInfo("paused", (8, 8), "uint16", frame_interval_s=0.001)
    array = GrowingArray(tmp_path / "a.ome.zarr", lay_out(info, "uint16"))
    assert chunk_frames(128, 0.001) == CHUNK_S * 1000
    array.put(np.full((8, 8), 7, np.uint16), (0, 0))
    array.keep((0, 0))
    array.write_length()
    seen = zarr.open_group(str(tmp_path / "a.ome.zarr"), mode="r")["0"]
    assert seen.shape[0] == 1
    assert int(seen[0].min()) == 7
    array.let_go()


def test_many_files_hold_a_long_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtdenoise.recording.array.SHARD_BYTES", 4096)
    info = StreamInfo("long", (8, 8), "int16", frame_interval_s=0.25)
    array = GrowingArray(tmp_path / "a.ome.zarr", lay_out(info, "int16"))
    for k in range(100):
        array.put(np.full((8, 8), k - 50, np.int16), (0, 0))
        array.keep((0, 0))
    array.write_length()
    array.let_go()
    kept = zarr.open_group(str(tmp_path / "a.ome.zarr"), mode="r")["0"]
    np.testing.assert_array_equal(kept[:, 0, 0, 3, 3], np.arange(100) - 50)
    assert len(list((tmp_path / "a.ome.zarr" / "0" / "c").iterdir())) == 4


def test_a_disk_that_is_too_slow_loses_frames_of_the_recording_counts_them_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ring holds 16 frames, each takes the disk 10 ms, and the camera brings 1,000 in a second."""

    def slowly(self: GrowingArray, pixels: Any, key: tuple[int, int]) -> int:
        time.sleep(0.01)
        return put(self, pixels, key)

    put = GrowingArray.put
    monkeypatch.setattr(GrowingArray, "put", slowly)
    ring, notes = record_in_this_process(tmp_path / "run", n_frames=400, capacity=16, interval_s=0.001)
    written, lost = int(ring.ints[Slot.RECORDED]), int(ring.ints[Slot.RECORDER_LOST])
    assert written + lost == ring.head == 400
    assert lost > 100
    assert any("too slow" in note for note in notes)
    losses = table.read_losses(tmp_path / "run" / "raw.dropped.csv")
    assert sum(n for _, _, n, reason in losses if reason == OVERWRITTEN) == lost
    _, stamps, array = series_of(tmp_path / "run")
    np.testing.assert_array_equal(array[:, 0, 0, -1, -1], stamps["src_frame"])
    assert len(stamps["t"]) == written
    assert stamps["frame"][-1] == 399 or losses[-1][1] == stamps["frame"][-1] + 1


def test_a_file_that_another_program_holds_open_costs_no_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows refuses to replace it."""
    refusals = [0]
    write_length = GrowingArray.write_length

    def refused(self: GrowingArray) -> None:
        refusals[0] += 1
        if 3 <= refusals[0] < 15:
            raise PermissionError(13, "held open", "zarr.json")
        write_length(self)

    monkeypatch.setattr(GrowingArray, "write_length", refused)
    monkeypatch.setattr("rtdenoise.recording.tape.FLUSH_S", 0.01)
    ring, notes = record_in_this_process(tmp_path / "run", n_frames=200, interval_s=0.002)
    assert (int(ring.ints[Slot.RECORDED]), int(ring.ints[Slot.RECORDER_LOST])) == (200, 0)
    assert sum("another program has it open" in note for note in notes) == 1
    assert series_of(tmp_path / "run")[2].shape[0] == 200


def test_a_recorder_that_fails_stops_nobody_and_every_frame_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Tape.write

    def broken(self: Tape, frame: Frame, *args: Any, **named: Any) -> None:
        if frame.stamp.src_frame == 50:
            raise ValueError("a mistake of ours")
        write(self, frame, *args, **named)

    monkeypatch.setattr(Tape, "write", broken)
    ring, notes = record_in_this_process(tmp_path / "run", n_frames=200)
    assert (int(ring.ints[Slot.RECORDED]), int(ring.ints[Slot.RECORDER_LOST])) == (50, 150)
    assert ring.ints[Slot.RECORDER_CURSOR] == ring.head  # a lossless run does not wait for it
    assert ring.ints[Slot.RECORDER_STATE] == TapeState.FAILED
    assert "a mistake of ours" in notes[-1]


def test_frames_that_the_camera_lost_stand_in_the_table_of_losses(tmp_path: Path) -> None:
    record_in_this_process(tmp_path / "run", n_frames=50, missing=lambda k: 3 if k == 20 else 0)
    _, stamps, _ = series_of(tmp_path / "run")
    assert stamps["dropped"][20] == 3
    assert stamps["src_frame"][20] - stamps["src_frame"][19] == 4
    assert [loss[:3] for loss in table.read_losses(tmp_path / "run" / "raw.dropped.csv")] == [("raw-000", 20, 3)]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not delete a folder whose files are open")
def test_a_folder_that_vanishes_is_announced_within_a_second_and_the_acquisition_goes_on(tmp_path: Path) -> None:
    with Acquiring("synthetic", {**COUNTER, "fps": 500.0}, tmp_path / "run") as running:
        running.wait_until(lambda: running.slot(Slot.RECORDED) > 50)
        shutil.rmtree(tmp_path / "run")
        gone = time.monotonic()
        running.wait_until(lambda: any("recording has stopped" in note for note in running.notes))
        assert time.monotonic() - gone < 1.0
        head = running.ring.head
        running.wait_until(lambda: running.ring.head > head + 100)
        assert running.slot(Slot.RECORDER_STATE) == TapeState.INTERRUPTED
        running.ring.ints[Slot.STOP] = 1
        running.finish()
        assert running.slot(Slot.RECORDED) + running.slot(Slot.RECORDER_LOST) == running.ring.head
    assert not (tmp_path / "run").exists()
    assert DISK_GONE.removeprefix("recorder: ") in " ".join(running.notes)


@pytest.mark.parametrize(
    ("prepare", "more", "says"),
    [
        (lambda run: run.mkdir() or (run / "old.txt").touch(), {}, "has old.txt in it"),
        (lambda run: run.touch(), {}, "cannot record there"),
        (lambda run: None, {"min_seconds": 1e12}, "room for"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_the_first_frame(
    tmp_path: Path, prepare: Any, more: dict[str, Any], says: str
) -> None:
    prepare(tmp_path / "run")
    with pytest.raises(RecordingError, match=says):
        acquire_in_this_process(tmp_path / "run", QUICK, record=more)


def test_events_are_lines_that_any_process_can_add(tmp_path: Path) -> None:
    tmp_path.joinpath("run").mkdir()
    events.append(tmp_path / "run", {"t": 12, "frame": 3, "src_frame": 4, "text": "licked"})
    with (tmp_path / "run" / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"text": "half a li')
    (event,) = events.read(tmp_path / "run")
    assert (event["text"], event["src_frame"]) == ("licked", 4)
    assert abs(event["utc_s"] - time.time()) < 60


def replayed(path: Path, **settings: Any) -> list[Frame]:
    source = ReplaySource(ReplaySource.Settings(path=path, **settings))
    source.open()
    source.start()
    frames = []
    try:
        while True:
            frame = source.read(5.0)
            assert frame is not None
            frames.append(Frame(frame.pixels.copy(), frame.stamp))
    except EndOfStream:
        return frames
    finally:
        source.close()


def told(stamp: FrameStamp) -> tuple[int, ...]:
    return (stamp.src_frame, stamp.channel, stamp.plane, stamp.t_src, stamp.dropped)


def test_a_replay_is_what_was_recorded_with_its_stamps_gaps_and_timing(tmp_path: Path) -> None:
    ring, _ = record_in_this_process(
        tmp_path / "run", n_frames=60, channels=2, interval_s=0.004, missing=lambda k: 5 if k == 30 else 0
    )
    frames = replayed(tmp_path / "run")
    _, stamps, _ = series_of(tmp_path / "run")
    taken = [ring.frame(n) for n in range(60)]
    assert [told(frame.stamp) for frame in frames] == [told(frame.stamp) for frame in taken if frame]
    for frame, original in zip(frames, taken, strict=True):
        assert original is not None
        np.testing.assert_array_equal(frame.pixels, original.pixels)
    lasted_ns = frames[-1].stamp.t_in - frames[0].stamp.t_in
    recorded_ns = int(np.ptp(stamps["t_in"]))
    assert lasted_ns >= recorded_ns
    assert lasted_ns < recorded_ns + 1_000_000_000
    assert len(replayed(tmp_path / "run", rate="max")) == 60


def test_a_recording_loops_without_a_step_back(tmp_path: Path) -> None:
    record_in_this_process(tmp_path / "run", n_frames=10)
    frames = replayed(tmp_path / "run", rate="max", loop=True, n_frames=25)
    assert [frame.stamp.src_frame for frame in frames] == list(range(25))
    assert (np.diff([frame.stamp.t_src for frame in frames]) > 0).all()
