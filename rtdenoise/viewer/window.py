"""The window: looks at the feed up to 60 times a second and shows what is there."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

from rtdenoise.frame import Pixels
from rtdenoise.viewer import theme
from rtdenoise.viewer.contrast import Grey, Levels, levels_of
from rtdenoise.viewer.feed import Feed, Picture
from rtdenoise.viewer.labels import label, quiet_label
from rtdenoise.viewer.panels import Cell, Controls, TracePlot
from rtdenoise.viewer.panes import LinkedRegion, Pane
from rtdenoise.viewer.report import Report, report
from rtdenoise.viewer.traces import Region, RegionTraces
from rtdenoise.wire import Message

PAINT_MS = 16
"""Not more than 60 pictures a second: no screen or eye takes more."""
SLOW_EVERY = 6
"""Numbers and traces are redrawn every this many looks, 10 times a second: readable, and a fifth of the work."""
FIRST_FRAMES = 10
"""Pictures that the fixed contrast is taken from. Engineering choice: a third of a second."""


class ViewerWindow(QtWidgets.QMainWindow):
    """Raw and denoised side by side. Owns its feed; closes it with the window."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self.feed = feed
        self.levels: Levels | None = None
        self.raw_pane, self.denoised_pane = Pane("RAW", theme.RAW), Pane("DENOISED", theme.DENOISED)
        self.controls, self.plot, self.traces = Controls(), TracePlot(), RegionTraces()
        self.cells = {name: Cell(name) for name in ("AGE ON SCREEN", "FRAMES IN", "SHOWN", "LOST")}
        self.strip = label("strip")
        self.strip.setWordWrap(True)
        self._model, self._pixel = quiet_label(), quiet_label()
        self._region = LinkedRegion([self.raw_pane, self.denoised_pane], self.traces.watch)
        self._greys = {self.raw_pane: Grey(), self.denoised_pane: Grey()}
        self._shape: tuple[int, ...] = ()
        self._n_levelled = self._n_looks = 0
        self._cursor: tuple[int, int] | None = None
        self._lay_out()
        self._connect()
        self._timer = QtCore.QTimer(self, interval=PAINT_MS, timerType=QtCore.Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self.look)
        self._timer.start()

    def look(self) -> None:
        """Take what has arrived; paint it if there is a newer picture."""
        n_keys = len(self.feed.keys)
        arrivals = self.feed.look()
        if len(self.feed.keys) != n_keys:
            self.controls.set_keys(self.feed.keys, self.feed.key)
        if arrivals.changed:
            self._adopt(self.feed.picture)
        for message in arrivals.raw:
            self.traces.add(message, self.traces.raw)
        for message in arrivals.denoised:
            self.traces.add(message, self.traces.denoised)
        if arrivals.changed:
            self.paint()
            self.feed.note_painted()
        self._n_looks += 1
        if self._n_looks % SLOW_EVERY == 0:
            self.refresh()

    def refresh(self) -> None:
        """Redraw the numbers, the state line and the traces."""
        said = report(self.feed)
        self._show_report(said)
        self._show_pixel()
        self.plot.draw(self.traces, self.controls.history_s)

    def auto_levels(self) -> None:
        """Contrast from the pictures on screen, once."""
        levels = levels_of(self._shown_pixels())
        if levels is not None:
            self.set_levels(levels)
            self._n_levelled = FIRST_FRAMES

    def set_levels(self, levels: Levels) -> None:
        """Use these levels on both pictures until somebody asks for others."""
        self.levels = levels
        self.controls.set_levels(levels)
        self.paint()

    def paint(self) -> None:
        """Show the current picture with the current contrast."""
        for pane, message in self._panes_and_messages():
            if message is not None and self.levels is not None:
                pane.show_pixels(self._greys[pane].of(message.frame.pixels, self.levels))

    def closeEvent(self, event: QtGui.QCloseEvent) -> None:  # noqa: N802 - Qt's name
        """Stop looking and disconnect."""
        self._timer.stop()
        self.feed.close()
        super().closeEvent(event)

    def _adopt(self, picture: Picture) -> None:
        """Take contrast from the first pictures of a geometry, and put the region where a frame of this size has a middle."""
        newest = picture.denoised or picture.raw
        if newest is None:
            return
        shape = (newest.frame.pixels.shape[0], newest.frame.pixels.shape[1])
        if shape != self._shape:
            self._shape, self._n_levelled = shape, 0
            side = max(4.0, round(min(shape) / 8))
            self._region.place(
                Region(shape[1] / 2 - side / 2, shape[0] / 2 - side / 2, side, side, ellipse=True), shape
            )
        if self._n_levelled in (0, FIRST_FRAMES - 1):
            n_levelled = self._n_levelled
            self.auto_levels()
            self._n_levelled = n_levelled
        self._n_levelled += 1

    def _panes_and_messages(self) -> list[tuple[Pane, Message | None]]:
        picture = self.feed.picture
        return [(self.raw_pane, picture.raw), (self.denoised_pane, picture.denoised)]

    def _shown_pixels(self) -> list[Pixels]:
        return [message.frame.pixels for _, message in self._panes_and_messages() if message is not None]

    def _show_report(self, said: Report) -> None:
        self.strip.setText(said.state)
        self.strip.setStyleSheet(theme.strip_style(said.colour))
        for name, (value, detail, colour) in said.cells.items():
            self.cells[name].put(value, detail, colour)
        self.raw_pane.set_caption(said.raw_caption)
        self.denoised_pane.set_caption(said.denoised_caption)
        self.raw_pane.set_notice(said.raw_notice)
        self.denoised_pane.set_notice(said.denoised_notice)
        self._model.setText(said.model)
        for pane in (self.raw_pane, self.denoised_pane):
            pane.set_um_per_px(said.um_per_px)

    def _show_pixel(self) -> None:
        if self._cursor is None:
            return
        x, y = self._cursor
        values = []
        for name, (_, message) in zip(("raw", "denoised"), self._panes_and_messages(), strict=True):
            if (
                message is not None
                and 0 <= y < message.frame.pixels.shape[0]
                and 0 <= x < message.frame.pixels.shape[1]
            ):
                values.append(f"{name} {float(message.frame.pixels[y, x]):.1f}")
        self._pixel.setText(f"x {x}  y {y}   " + "   ".join(values) if values else "")

    def _place_region(self, ellipse: bool) -> None:
        old = self._region.region
        if old is not None:
            shape = (self._shape[0], self._shape[1])
            self._region.place(Region(old.x, old.y, old.width, old.height, ellipse), shape)

    def _reset_view(self) -> None:
        self.raw_pane.reset_view()
        self.denoised_pane.reset_view()

    def _hover(self, x: int, y: int) -> None:
        self._cursor = (x, y)

    def _lay_out(self) -> None:
        self.setWindowTitle("rtdenoise")
        self.setStyleSheet(theme.STYLE)
        self.resize(1440, 960)
        page = QtWidgets.QWidget()
        self.setCentralWidget(page)
        column = QtWidgets.QVBoxLayout(page)
        column.setContentsMargins(12, 10, 12, 8)
        cells, panes, foot = QtWidgets.QHBoxLayout(), QtWidgets.QHBoxLayout(), QtWidgets.QHBoxLayout()
        for name, cell in self.cells.items():
            cells.addWidget(cell, 4 if name == "AGE ON SCREEN" else 3)
        for pane in (self.raw_pane, self.denoised_pane):
            panes.addWidget(pane, 1)
        for line in (self._pixel, self._model):
            foot.addWidget(line, 1)
        self._model.setAlignment(QtCore.Qt.AlignmentFlag.AlignRight)
        column.addWidget(self.strip)
        column.addLayout(cells)
        column.addLayout(panes, 6)
        column.addWidget(self.controls)
        column.addWidget(self.plot, 1)
        column.addLayout(foot)
        self.denoised_pane.view.setXLink(self.raw_pane.view)
        self.denoised_pane.view.setYLink(self.raw_pane.view)

    def _connect(self) -> None:
        controls = self.controls
        controls.auto_pressed.connect(self.auto_levels)
        controls.levels_typed.connect(self.set_levels)
        controls.reset_pressed.connect(self._reset_view)
        controls.ellipse_chosen.connect(self._place_region)
        controls.key_chosen.connect(self.feed.choose_key)
        QtGui.QShortcut("A", self, self.auto_levels)
        QtGui.QShortcut("R", self, self._reset_view)
        for pane in (self.raw_pane, self.denoised_pane):
            controls.lut_chosen.connect(pane.set_lut)
            pane.hovered.connect(self._hover)
