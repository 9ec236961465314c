"""The viewer: what it pairs, what it says, what it paints. The window parts run without a screen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ["QT_QPA_PLATFORM"] = "offscreen"
pytest.importorskip("pyqtgraph", reason="the viewer needs pip install 'rtdenoise[live]'")
QtWidgets = pytest.importorskip("PySide6.QtWidgets", reason="the viewer needs pip install 'rtdenoise[live]'")

from rtdenoise.errors import MissingExtraError, RtDenoiseError  # noqa: E402
from rtdenoise.frame import Frame, FrameStamp, Pixels  # noqa: E402
from rtdenoise.publish import Publisher, StatusPublisher  # noqa: E402
from rtdenoise.viewer import app, theme  # noqa: E402
from rtdenoise.viewer.contrast import Grey, Levels, levels_of  # noqa: E402
from rtdenoise.viewer.feed import Feed, Picture, RawHistory  # noqa: E402
from rtdenoise.viewer.panes import round_length  # noqa: E402
from rtdenoise.viewer.report import report  # noqa: E402
from rtdenoise.viewer.traces import Region, RegionMean, RegionTraces, Trace  # noqa: E402
from rtdenoise.viewer.window import FIRST_FRAMES, ViewerWindow  # noqa: E402
from rtdenoise.wire import Drops, Message, StreamFacts  # noqa: E402

SHAPE = (48, 64)
ANY_PORT = "tcp://127.0.0.1:*"


class Rig:
    """Publishers of a run and a feed that listens to them, on a clock that the test moves."""

    def __init__(self) -> None:
        facts = {"source": "test", "um_per_px": 0.5}
        self.raw = Publisher(ANY_PORT, StreamFacts("raw", **facts), frame_bytes=6144, lossless=True)  # type: ignore[arg-type]
        self.denoised = Publisher(ANY_PORT, StreamFacts("denoised", **facts), frame_bytes=6144, lossless=True)  # type: ignore[arg-type]
        self.status = StatusPublisher(ANY_PORT)
        self.now_s = 100.0
        self.feed = Feed(self.raw.endpoint, self.denoised.endpoint, self.status.endpoint, clock=lambda: self.now_s)
        assert self.raw.wait_for_subscribers(1, timeout_s=10)
        assert self.denoised.wait_for_subscribers(1, timeout_s=10)
        self.look: Callable[[], object] = self.feed.look

    def send_raw(self, k: int, pixels: Pixels | None = None, series: str = "a", channel: int = 0) -> None:
        self.raw.publish(frame(k, pixels, series, channel), Drops())
        self._look_until(lambda n=self.feed.raw.received: self.feed.raw.received > n)

    def send_denoised(self, k: int, pixels: Pixels | None = None, series: str = "a", channel: int = 0) -> None:
        self.denoised.publish(frame(k, pixels, series, channel), Drops())
        self._look_until(lambda n=self.feed.denoised.received: self.feed.denoised.received > n)

    def start(self, series: str = "a", **fields: object) -> None:
        """Announce a series; repeated, because nobody knows when the status subscriber has joined."""
        deadline = time.monotonic() + 10
        while (self.feed.start is None or self.feed.start.series != series) and time.monotonic() < deadline:
            self.status.start({"series": series, **fields})
            self.look()

    def say(self, **counters: object) -> None:
        self.status.status(counters)
        self._look_until(lambda old=self.feed.status: self.feed.status is not old)

    def _look_until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not happened():
            assert time.monotonic() < deadline, "nothing arrived"
            self.look()

    def close(self) -> None:
        self.feed.close()
        for publisher in (self.raw, self.denoised, self.status):
            publisher.close()


def frame(k: int, pixels: Pixels | None = None, series: str = "a", channel: int = 0) -> Frame:
    """Frame k, 30 per second; every pixel is k unless given."""
    made = np.full(SHAPE, k, np.uint16) if pixels is None else pixels
    return Frame(made, FrameStamp(series, k, k, t_in=int(k * 1e9 / 30), channel=channel))


def message(k: int, pixels: Pixels | None = None, series: str = "a") -> Message:
    return Message(frame(k, pixels, series), StreamFacts("raw"), Drops())


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def qt() -> object:
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["test"])


@pytest.fixture
def window(rig: Rig, qt: object) -> Iterator[ViewerWindow]:
    window = ViewerWindow(rig.feed)
    window._timer.stop()
    window.show()
    rig.look = window.look
    yield window
    window.close()


def shown_frames(picture: Picture) -> tuple[int | None, int | None]:
    raw, denoised = picture.raw, picture.denoised
    return raw and raw.frame.stamp.src_frame, denoised and denoised.frame.stamp.src_frame  # type: ignore[return-value]


def test_raw_and_denoised_on_screen_are_the_same_camera_frame_though_one_comes_later(rig: Rig) -> None:
    for k in range(8):
        rig.send_raw(k)
        if k >= 3:
            rig.send_denoised(k - 3)
            assert shown_frames(rig.feed.picture) == (k - 3, k - 3)
            assert rig.feed.picture.paired


def test_a_denoised_frame_without_its_raw_frame_is_marked(rig: Rig) -> None:
    rig.send_raw(0)
    rig.send_denoised(1)
    assert not rig.feed.picture.paired
    assert "NOT THE SAME FRAME" in report(rig.feed).raw_caption


def test_raw_frames_are_shown_when_denoised_ones_stop(rig: Rig) -> None:
    rig.send_raw(0)
    rig.send_denoised(0)
    rig.now_s += 0.5
    rig.send_raw(1)
    assert shown_frames(rig.feed.picture) == (0, 0)
    rig.now_s += 0.7
    rig.send_raw(2)
    assert shown_frames(rig.feed.picture) == (2, 0)
    said = report(rig.feed)
    assert said.state.startswith("raw only")
    assert (said.raw_notice, said.denoised_notice) == ("", "NOT DENOISING")


def test_the_run_says_why_it_does_not_denoise(rig: Rig) -> None:
    rig.start()
    rig.send_raw(0)
    rig.say(mode="raw only", message="engine cannot keep up")
    assert report(rig.feed).state == "raw only: engine cannot keep up"


def test_a_frozen_picture_is_called_frozen_after_a_second(rig: Rig) -> None:
    rig.send_raw(0)
    rig.send_denoised(0)
    rig.now_s += 0.9
    assert not rig.feed.stale()
    rig.now_s += 0.2
    said = report(rig.feed)
    assert "NOTHING HAS ARRIVED FOR 1.1 s" in said.state
    assert "FROZEN" in said.raw_notice
    assert "FROZEN" in said.denoised_notice


def test_slow_imaging_is_not_called_frozen(rig: Rig) -> None:
    rig.start(frame_interval_s=2.0)
    rig.send_raw(0)
    rig.now_s += 5.0
    assert not rig.feed.stale()
    rig.now_s += 2.0
    assert rig.feed.stale()


def test_the_end_is_told_with_its_reason_and_holds_for_its_own_series_only(rig: Rig) -> None:
    rig.start()
    rig.send_raw(0)
    rig.status.end(count=1, reason="camera unplugged", dropped={"source: gap": 3}, acquired=4)
    rig._look_until(lambda: rig.feed.ended() is not None)
    rig.now_s += 60
    said = report(rig.feed)
    assert said.state == "END  1 frames, 3 lost (3 source: gap): camera unplugged"
    assert said.raw_notice == ""
    rig.start("b")
    rig.send_raw(0, series="b")
    assert rig.feed.ended() is None


def test_saturated_pixels_are_told(rig: Rig) -> None:
    rig.start(saturation=4095)
    pixels = np.zeros(SHAPE, np.uint16)
    rig.send_raw(0, pixels)
    assert "SATURATED" not in report(rig.feed).raw_caption
    pixels[:12] = 4095
    rig.send_raw(1, pixels)
    assert "25 % SATURATED" in report(rig.feed).raw_caption


def test_losses_are_told_by_place(rig: Rig) -> None:
    rig.start()
    rig.send_raw(0)
    rig.send_raw(4)
    rig.say(acquired=9, delivered=3, dropped={"input: drop_oldest": 5, "source: gap": 1})
    value, detail, colour = report(rig.feed).cells["LOST"]
    assert (value, detail, colour) == ("9", "5 input: drop_oldest, 3 wire: raw, 1 source: gap", theme.BAD)
    rig.now_s += 10
    assert report(rig.feed).cells["LOST"][2] == theme.WARN


def test_the_age_on_screen_counts_from_arrival_on_the_clock_of_the_run(rig: Rig) -> None:
    rig.start(epoch_ns=time.perf_counter_ns() - 2_000_000_000, lookahead_frames=3, lookahead_ms=100.0)
    rig.send_denoised(30)
    age_ms = rig.feed.age_ms()
    assert age_ms is not None
    assert 1000 <= age_ms < 6000
    rig.feed.note_painted()
    said = report(rig.feed)
    assert said.cells["AGE ON SCREEN"][0].endswith("ms")
    assert "look-ahead 3 frames = 100 ms" in said.state


def test_no_age_is_told_when_the_clocks_cannot_be_compared(rig: Rig) -> None:
    rig.start(host="another computer")
    rig.send_denoised(0)
    rig.feed.note_painted()
    assert report(rig.feed).cells["AGE ON SCREEN"][0] == "-"


def test_one_channel_is_shown_until_another_is_chosen(rig: Rig) -> None:
    for k in range(4):
        rig.send_denoised(k, channel=k % 2)
    assert (rig.feed.keys, shown_frames(rig.feed.picture)[1]) == ([(0, 0), (1, 0)], 2)
    rig.feed.choose_key((1, 0))
    rig.send_denoised(5, channel=1)
    assert shown_frames(rig.feed.picture)[1] == 5


def test_before_the_first_frame_the_viewer_waits(rig: Rig) -> None:
    rig.feed.look()
    assert report(rig.feed).state.startswith("Waiting")
    assert not rig.feed.stale()


def test_the_memory_of_raw_frames_is_bounded_in_bytes_and_in_frames() -> None:
    n_bytes = message(0).frame.pixels.nbytes
    for history, n_kept in ((RawHistory(max_bytes=5 * n_bytes), 5), (RawHistory(max_frames=3), 3)):
        for k in range(20):
            history.add(message(k))
        assert len(history) == n_kept
        assert history.partner(message(19)) is not None
        assert history.partner(message(19 - n_kept)) is None
        assert history.partner(message(19, series="b")) is None


def test_levels_ignore_a_few_extreme_pixels_and_what_is_no_number() -> None:
    pixels = np.random.default_rng(1).normal(100, 10, (256, 256)).astype(np.float32)
    pixels[0, :5] = np.inf, -np.inf, np.nan, 1e9, -1e9
    levels = levels_of([pixels])
    assert levels is not None
    assert 70 < levels.black < 85
    assert 115 < levels.white < 140
    assert levels_of([]) is None
    assert levels_of([np.full((4, 4), np.nan)]) is None


def test_counts_become_greys_without_new_memory_and_negatives_are_kept_apart() -> None:
    grey = Grey()
    counts = np.array([[-200, -100, 0, 100, 200]], np.int16)
    shown = grey.of(counts, Levels(-100, 100))
    assert shown.tolist() == [[0, 0, 127, 255, 255]]
    assert grey.of(np.array([[np.nan, -np.inf, np.inf, 0, 100]], np.float32), Levels(-100, 100)).tolist() == [
        [0, 0, 255, 127, 255]
    ]
    assert grey.of(counts, Levels(0, 1)) is shown


@pytest.mark.parametrize("ellipse", [True, False])
def test_the_mean_of_a_region_is_that_of_the_pixels_with_their_centre_inside(ellipse: bool) -> None:
    pixels = np.random.default_rng(2).integers(0, 4096, SHAPE).astype(np.uint16)
    region = Region(10.3, 5.2, 21.0, 13.5, ellipse)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    inside = (x >= 10.3) & (x < 31.3) & (y >= 5.2) & (y < 18.7)
    if ellipse:
        inside = ((x - 20.8) / 10.5) ** 2 + ((y - 11.95) / 6.75) ** 2 <= 1
    mean = RegionMean(region, SHAPE)
    assert mean.n_pixels == inside.sum()
    assert mean.of(pixels) == pytest.approx(pixels[inside].mean(), rel=1e-5)


def test_a_region_outside_the_picture_has_no_mean() -> None:
    assert np.isnan(RegionMean(Region(-50, -50, 10, 10), SHAPE).of(np.zeros(SHAPE)))


def test_a_trace_keeps_the_newest_points_in_order() -> None:
    trace = Trace(capacity=10)
    for k in range(37):
        trace.add(k / 10, float(k))
        times, values = trace.since(0.0)
        assert values.tolist() == list(range(max(0, k - 9), k + 1))
        assert (times * 10).round().tolist() == values.tolist()
    assert trace.since(3.45)[1].tolist() == [35, 36]


def test_no_line_is_drawn_through_frames_that_nobody_saw() -> None:
    trace = Trace()
    for k in (0, 1, 2, 3, 5, 30, 31):
        trace.add(k / 30, float(k))
    np.testing.assert_array_equal(trace.since(0)[1], [0, 1, 2, 3, 5, np.nan, 30, 31])


def test_another_region_or_series_starts_the_trace_again() -> None:
    traces = RegionTraces()
    traces.add(message(0), traces.raw)
    assert len(traces.raw) == 0
    for region, series, n in ((Region(0, 0, 8, 8), "a", 1), (Region(0, 0, 8, 8), "a", 2), (Region(1, 0, 8, 8), "a", 1)):
        traces.watch(region)
        traces.add(message(n, series=series), traces.raw)
        assert len(traces.raw) == n
    traces.add(message(0, series="b"), traces.raw)
    assert (len(traces.raw), traces.newest_s) == (1, 0.0)


@pytest.mark.parametrize(("at_most", "expected"), [(137.0, 100.0), (0.6, 0.5), (20.0, 20.0), (4.99, 2.0)])
def test_scale_bars_have_round_lengths(at_most: float, expected: float) -> None:
    assert round_length(at_most) == pytest.approx(expected)


def noise(mean: float, seed: int) -> Pixels:
    return np.random.default_rng(seed).normal(mean, 10, SHAPE).astype(np.float32)


def test_contrast_is_set_by_the_first_frames_and_then_stays(rig: Rig, window: ViewerWindow) -> None:
    for k in range(FIRST_FRAMES + 2):
        rig.send_denoised(k, noise(100, seed=k))
    levels = window.levels
    assert levels is not None
    assert 60 < levels.black < 90
    rig.send_denoised(50, noise(200, seed=50))
    assert window.levels == levels
    window.auto_levels()
    assert window.levels is not None
    assert window.levels.black > 150


def test_both_pictures_are_painted_with_the_levels_that_were_typed(rig: Rig, window: ViewerWindow) -> None:
    ramp = np.linspace(0, 1000, SHAPE[0] * SHAPE[1]).round().reshape(SHAPE)
    rig.send_raw(0, ramp.astype(np.uint16))
    rig.send_denoised(0, ramp.astype(np.float32))
    for field, text in ((window.controls._black, "200"), (window.controls._white, "600")):
        field.setText(text)
        field.setModified(True)
        field.editingFinished.emit()
    assert window.levels == Levels(200, 600)
    expected = np.clip((ramp - 200) / 400 * 255, 0, 255)
    for pane in (window.raw_pane, window.denoised_pane):
        np.testing.assert_allclose(pane.image.image, expected, atol=1.1)


def test_nonsense_typed_as_a_level_changes_nothing(rig: Rig, window: ViewerWindow) -> None:
    rig.send_denoised(0, noise(100, seed=0))
    before = window.levels
    for text in ("", "bright", "-1e12"):
        window.controls._white.setText(text)
        window.controls._white.setModified(True)
        window.controls._white.editingFinished.emit()
    assert window.levels == before


def test_zooming_one_picture_zooms_the_other(rig: Rig, window: ViewerWindow) -> None:
    rig.send_raw(0)
    rig.send_denoised(0)
    QtWidgets.QApplication.processEvents()
    window.raw_pane.view.setRange(xRange=(10, 20), yRange=(10, 20), padding=0)
    QtWidgets.QApplication.processEvents()
    raw, denoised = (np.array(pane.view.viewRange()) for pane in (window.raw_pane, window.denoised_pane))
    np.testing.assert_allclose(raw, denoised, atol=0.2)
    assert raw[0, 1] - raw[0, 0] < 40


def test_dragging_the_region_on_one_picture_moves_it_on_both_and_changes_the_trace(
    rig: Rig, window: ViewerWindow
) -> None:
    step = np.where(np.arange(SHAPE[1]) < 32, 10, 50).astype(np.float32) * np.ones(SHAPE, np.float32)
    for k in range(3):
        rig.send_denoised(k, step)
    first, second = window._region._outlines
    first.setPos((40, 20))
    assert tuple(second.pos()) == (40, 20)
    assert len(window.traces.denoised) == 0
    rig.send_denoised(3, step)
    assert window.traces.denoised.since(0)[1].tolist() == [50.0]


def test_every_frame_that_arrives_is_in_the_trace_though_not_every_one_is_painted(
    rig: Rig, window: ViewerWindow
) -> None:
    rig.send_raw(0)
    for k in range(1, 40):
        rig.raw.publish(frame(k), Drops())
    rig._look_until(lambda: rig.feed.raw.received == 40)
    assert window.traces.raw.since(0)[1].tolist() == list(range(40))


def test_a_choice_of_channels_is_offered_only_where_there_is_one(rig: Rig, window: ViewerWindow) -> None:
    rig.send_denoised(0)
    assert not window.controls._channel.isVisible()
    rig.send_denoised(1, channel=1)
    assert window.controls._channel.isVisible()
    window.controls.key_chosen.emit((1, 0))
    rig.send_denoised(3, channel=1)
    assert shown_frames(rig.feed.picture)[1] == 3


def test_a_change_of_frame_size_is_followed(rig: Rig, window: ViewerWindow) -> None:
    rig.send_denoised(0, noise(100, seed=0))
    rig.send_denoised(1, np.full((20, 30), 7, np.float32))
    assert window.denoised_pane.image.image.shape == (20, 30)
    assert len(window.traces.denoised) == 1


def test_the_window_says_what_the_report_says(rig: Rig, window: ViewerWindow) -> None:
    rig.start(lookahead_frames=0)
    rig.send_raw(0)
    rig.send_denoised(0)
    rig.say(mode="denoising", acquired=1, delivered=1, dropped={"input: drop_oldest": 2})
    window.refresh()
    assert window.strip.text().startswith("denoising")
    assert window.cells["LOST"].text() == "2 2 input: drop_oldest"
    for lut in ("fire", "green", "grey"):
        window.controls.lut_chosen.emit(lut)
        assert not window.grab().isNull()


def test_without_a_display_the_viewer_says_so_in_one_line() -> None:
    with pytest.raises(RtDenoiseError, match=r"no display: .* ssh -X"):
        app.require_display("linux", {})
    for platform, environ in (
        ("linux", {"DISPLAY": ":0"}),
        ("linux", {"QT_QPA_PLATFORM": "offscreen"}),
        ("win32", {}),
        ("darwin", {}),
    ):
        app.require_display(platform, environ)


@pytest.mark.parametrize("package", ["pyqtgraph", "PySide6.QtWidgets"])
def test_a_missing_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rtdenoise\[live\]'"):
        app.main()


def test_the_viewer_runs_alone_saves_a_screenshot_and_ends_with_0(tmp_path: Path) -> None:
    png = tmp_path / "view.png"
    code = (
        "from pathlib import Path; from rtdenoise.viewer import app\n"
        f"raise SystemExit(app.main(duration_s=0.2, screenshot=Path({str(png)!r})))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
    assert png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(sys.platform == "win32", reason="a test cannot send Ctrl-C to another console on Windows")
def test_ctrl_c_ends_the_viewer_with_0() -> None:
    code = (
        "import rtdenoise.viewer.app as app; from PySide6 import QtCore, QtWidgets\n"
        "qt = QtWidgets.QApplication([]); QtCore.QTimer.singleShot(0, lambda: print('up', flush=True)); raise SystemExit(app.main())"
    )
    viewer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert viewer.stdout is not None
    assert viewer.stdout.readline() == b"up\n"
    viewer.send_signal(signal.SIGINT)
    assert viewer.wait(timeout=60) == 0
    viewer.stdout.close()


def test_a_screenshot_that_cannot_be_written_is_an_error(tmp_path: Path, qt: object) -> None:
    with pytest.raises(RtDenoiseError, match="screenshot cannot be written"):
        app.main(
            ANY_PORT.replace("*", "9"),
            ANY_PORT.replace("*", "9"),
            ANY_PORT.replace("*", "9"),
            duration_s=0.05,
            screenshot=tmp_path / "no" / "x.png",
        )
