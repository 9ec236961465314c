"""The numbers above the pictures, the knobs and the traces below them."""

from __future__ import annotations

from collections.abc import Sequence

import pyqtgraph as pg
from PySide6 import QtCore, QtWidgets

from rtdenoise.viewer import theme
from rtdenoise.viewer.contrast import Levels
from rtdenoise.viewer.feed import Key
from rtdenoise.viewer.labels import label, quiet_label
from rtdenoise.viewer.panes import LUTS
from rtdenoise.viewer.traces import RegionTraces

HISTORIES_S = (5, 20, 60, 240)
_SHORTEST_S = 2.0


class Cell(QtWidgets.QFrame):
    """One large number with a caption above and details below."""

    def __init__(self, caption: str) -> None:
        super().__init__()
        self.setObjectName("cell")
        self._value = label("value", "-")
        self._detail = quiet_label()
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(14, 6, 14, 6)
        column.setSpacing(0)
        for line in (quiet_label(caption), self._value, self._detail):
            column.addWidget(line)

    def put(self, value: str, detail: str = "", colour: str = theme.TEXT) -> None:
        """Replace number, details and the colour of the number."""
        self._value.setText(value)
        self._value.setStyleSheet(f"color: {colour};")
        elided = self._detail.fontMetrics().elidedText(detail, QtCore.Qt.TextElideMode.ElideRight, self._detail.width())
        self._detail.setText(elided)
        self._detail.setToolTip(detail)

    def text(self) -> str:
        """Number and details as they are on screen."""
        return f"{self._value.text()} {self._detail.toolTip()}"


class Controls(QtWidgets.QWidget):
    """Contrast, colours, channel, region, history. Emits what was asked for; knows nothing of frames."""

    levels_typed = QtCore.Signal(object)
    auto_pressed = QtCore.Signal()
    reset_pressed = QtCore.Signal()
    lut_chosen = QtCore.Signal(str)
    key_chosen = QtCore.Signal(object)
    ellipse_chosen = QtCore.Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self._black, self._white = self._field(), self._field()
        auto = QtWidgets.QPushButton("Auto once (A)")
        auto.setToolTip("Set black and white from the pictures on screen now")
        reset = QtWidgets.QPushButton("Whole picture (R)")
        lut = self._combo(list(LUTS))
        region = self._combo(["ellipse", "rectangle"])
        self._channel = QtWidgets.QComboBox()
        self._channel_label = QtWidgets.QLabel("Channel")
        self._history = self._combo([f"{seconds} s" for seconds in HISTORIES_S], HISTORIES_S.index(20))
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        words = [QtWidgets.QLabel(word) for word in ("Black", "White", "Colours", "Region", "Trace")]
        black, white, colours, around, trace = words
        for group in ((black, self._black, white, self._white, auto), (colours, lut, reset)):
            self._place(row, group)
            row.addStretch(1)
        self._place(row, (self._channel_label, self._channel, around, region, trace, self._history))
        self.set_keys([], None)
        auto.clicked.connect(self.auto_pressed)
        reset.clicked.connect(self.reset_pressed)
        lut.currentTextChanged.connect(self.lut_chosen)
        region.currentTextChanged.connect(lambda text: self.ellipse_chosen.emit(text == "ellipse"))
        self._channel.activated.connect(lambda i: self.key_chosen.emit(self._channel.itemData(i)))
        for field in (self._black, self._white):
            field.editingFinished.connect(self._on_typed)

    @property
    def history_s(self) -> int:
        """Seconds of trace to show."""
        return HISTORIES_S[self._history.currentIndex()]

    def set_levels(self, levels: Levels) -> None:
        """Show the levels in use."""
        n_decimals = 0 if levels.white - levels.black >= 20 else 3
        for field, value in ((self._black, levels.black), (self._white, levels.white)):
            field.setText(f"{value:.{n_decimals}f}")

    def set_keys(self, keys: list[Key], chosen: Key | None) -> None:
        """Offer these (channel, plane) pairs; hidden unless there is a choice."""
        self._channel.clear()
        for key in keys:
            self._channel.addItem(f"{key[0]}" if not any(k[1] for k in keys) else f"{key[0]}, plane {key[1]}", key)
        if chosen in keys:
            self._channel.setCurrentIndex(keys.index(chosen))
        for widget in (self._channel, self._channel_label):
            widget.setVisible(len(keys) > 1)

    def _on_typed(self) -> None:
        if not (self._black.isModified() or self._white.isModified()):
            return
        levels = Levels(*(_number(field.text()) for field in (self._black, self._white)))
        if levels.white > levels.black:
            self.levels_typed.emit(levels)

    @staticmethod
    def _field() -> QtWidgets.QLineEdit:
        field = QtWidgets.QLineEdit()
        field.setFixedWidth(90)
        return field

    @staticmethod
    def _combo(words: list[str], chosen: int = 0) -> QtWidgets.QComboBox:
        combo = QtWidgets.QComboBox()
        combo.addItems(words)
        combo.setCurrentIndex(chosen)
        return combo

    @staticmethod
    def _place(row: QtWidgets.QHBoxLayout, group: Sequence[QtWidgets.QWidget]) -> None:
        for widget in group:
            row.addWidget(widget)


def _number(text: str) -> float:
    """The typed number; NaN, which is neither above nor below anything, for what is none."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return float("nan")


class TracePlot(QtWidgets.QWidget):
    """Raw and denoised mean of the region over the last seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._caption = QtWidgets.QLabel()
        self._plot = pg.PlotWidget(background=theme.BACKGROUND)
        self._plot.setMenuEnabled(False)
        self._plot.hideButtons()
        self._plot.setMouseEnabled(x=False, y=False)
        self._plot.showGrid(x=False, y=True, alpha=0.15)
        for side, unit in (("bottom", "s since the series started"), ("left", "counts")):
            axis = self._plot.getAxis(side)
            axis.setPen(theme.LINE)
            axis.setTextPen(theme.QUIET)
            axis.setLabel(unit)
            axis.enableAutoSIPrefix(False)
        self._raw = self._plot.plot(pen=pg.mkPen(theme.RAW, width=1))
        self._denoised = self._plot.plot(pen=pg.mkPen(theme.DENOISED, width=2))
        for curve in (self._raw, self._denoised):
            curve.setDownsampling(auto=True, method="peak")
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self._caption)
        column.addWidget(self._plot, 1)
        self.setMinimumHeight(150)

    def draw(self, traces: RegionTraces, history_s: float) -> None:
        """Draw the last `history_s` seconds."""
        begin_s = max(0.0, traces.newest_s - history_s)
        newest = []
        for curve, trace in ((self._raw, traces.raw), (self._denoised, traces.denoised)):
            times_s, values = trace.since(begin_s)
            curve.setData(times_s, values, connect="finite")
            fresh = len(times_s) > 0 and traces.newest_s - times_s[-1] < _SHORTEST_S
            newest.append(f"{values[-1]:.1f}" if fresh else "-")
        self._plot.setXRange(begin_s, max(traces.newest_s, begin_s + _SHORTEST_S), padding=0.0)
        self._caption.setText(
            f"Region mean, {traces.n_pixels} pixels &nbsp; <b style='color:{theme.RAW}'>raw {newest[0]}</b> &nbsp; "
            f"<b style='color:{theme.DENOISED}'>denoised {newest[1]}</b>"
        )
