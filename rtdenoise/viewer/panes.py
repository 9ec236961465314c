"""Two pictures that zoom and pan together, with scale bar, notice and one region drawn on both."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6 import QtCore, QtGui, QtWidgets

from rtdenoise.viewer import theme
from rtdenoise.viewer.labels import label, quiet_label
from rtdenoise.viewer.traces import Region

LUTS = ("grey", "fire", "green")
_DIMMED = 0.35


class Pane(QtWidgets.QWidget):
    """One picture with a title. `hovered` gives (x, y) of the pixel under the mouse."""

    hovered = QtCore.Signal(int, int)

    def __init__(self, name: str, colour: str) -> None:
        super().__init__()
        self._name = label("pane", name)
        self._name.setStyleSheet(f"color: {colour};")
        self._caption = quiet_label()
        self.view = pg.ViewBox(lockAspect=True, invertY=True, enableMenu=False)
        self.image = pg.ImageItem(axisOrder="row-major")
        self.view.addItem(self.image)
        self._canvas = pg.GraphicsView(background=theme.BACKGROUND)
        self._canvas.setCentralItem(self.view)
        self._canvas.setMinimumSize(200, 200)
        self._overlay = Overlay(self._canvas, self.view)
        self._shape: tuple[int, ...] = ()
        title = QtWidgets.QHBoxLayout()
        title.addWidget(self._name)
        title.addWidget(self._caption, 1)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(title)
        column.addWidget(self._canvas, 1)
        self._canvas.scene().sigMouseMoved.connect(self._on_mouse)

    def show_pixels(self, grey: NDArray[np.uint8]) -> None:
        """Paint `(Y, X)` greys; the array may be reused afterwards, before the next call."""
        self.image.setImage(grey, autoLevels=False, levels=(0, 255))
        if grey.shape != self._shape:
            self._shape = grey.shape
            self._overlay.set_corner(QtCore.QPointF(grey.shape[1], grey.shape[0]))
            self.reset_view()

    def reset_view(self) -> None:
        """Zoom to the whole picture."""
        if self._shape:
            self.view.setRange(QtCore.QRectF(0, 0, self._shape[1], self._shape[0]), padding=0.0)

    def set_caption(self, text: str) -> None:
        """Small text beside the name."""
        self._caption.setText(text)

    def set_lut(self, name: str) -> None:
        """Colour table, one of LUTS."""
        self.image.setLookupTable(_colours(name))

    def set_notice(self, text: str) -> None:
        """Words across the dimmed picture; none when empty."""
        self.image.setOpacity(_DIMMED if text else 1.0)
        self._overlay.set_notice(text)

    def set_um_per_px(self, um_per_px: float | None) -> None:
        """Pixel size for the scale bar; None hides it."""
        self._overlay.set_um_per_px(um_per_px)

    def _on_mouse(self, at: QtCore.QPointF) -> None:
        point = self.view.mapSceneToView(at)
        self.hovered.emit(math.floor(point.x()), math.floor(point.y()))


def _colours(name: str) -> NDArray[np.uint8] | None:
    """256 colours, or None for greys."""
    if name == "grey":
        return None
    chosen = pg.colormap.get("inferno") if name == "fire" else pg.ColorMap([0.0, 1.0], [(0, 0, 0), (0, 255, 60)])
    table: NDArray[np.uint8] = chosen.getLookupTable(nPts=256, alpha=False)
    return table


class Overlay(QtWidgets.QWidget):
    """Scale bar and notice, drawn in screen pixels above the picture; the mouse goes through it."""

    def __init__(self, canvas: QtWidgets.QWidget, view: pg.ViewBox) -> None:
        super().__init__(canvas)
        self.setAttribute(QtCore.Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(QtCore.Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setStyleSheet("background: transparent;")
        self._view, self._um_per_px, self._notice = view, 0.0, ""
        self._corner = QtCore.QPointF()
        view.sigRangeChanged.connect(lambda *_: self.update())
        view.sigResized.connect(lambda *_: self.resize(canvas.size()))

    def set_notice(self, text: str) -> None:
        """Words in the middle."""
        if text != self._notice:
            self._notice = text
            self.update()

    def set_um_per_px(self, um_per_px: float | None) -> None:
        """Size of a camera pixel."""
        if (um_per_px or 0.0) != self._um_per_px:
            self._um_per_px = um_per_px or 0.0
            self.update()

    def set_corner(self, corner: QtCore.QPointF) -> None:
        """Lower right of the picture, in pixels of the camera: the scale bar stays inside it."""
        self._corner = corner

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw what there is to draw."""
        painter = QtGui.QPainter(self)
        font = painter.font()
        font.setPointSize(15)
        font.setBold(True)
        painter.setFont(font)
        if self._um_per_px:
            self._paint_bar(painter)
        if self._notice:
            self._paint_notice(painter)
        painter.end()

    def _paint_notice(self, painter: QtGui.QPainter) -> None:
        upper = self.rect().adjusted(20, self.height() // 8, -20, -self.height() // 2)
        centred = QtCore.Qt.AlignmentFlag.AlignHCenter | QtCore.Qt.TextFlag.TextWordWrap
        font = painter.font()
        font.setPointSize(24)
        painter.setFont(font)
        for offset, colour in ((2, "#000000"), (0, theme.BAD)):
            painter.setPen(QtGui.QColor(colour))
            painter.drawText(upper.translated(offset, offset), int(centred), self._notice)

    def _paint_bar(self, painter: QtGui.QPainter) -> None:
        um_per_screen_px = self._um_per_px * float(self._view.viewPixelSize()[0])
        um = round_length(0.25 * self.width() * um_per_screen_px)
        n_px = round(um / um_per_screen_px)
        corner = self._view.mapViewToScene(self._corner)
        right, bottom = min(self.width(), round(corner.x())) - 18, min(self.height(), round(corner.y())) - 18
        bar = QtCore.QRect(right - n_px, bottom - 5, n_px, 5)
        words = QtCore.QRect(right - max(n_px, 120), bottom - 34, max(n_px, 120), 26)
        painter.fillRect(bar.adjusted(-2, -2, 2, 2), QtGui.QColor(0, 0, 0, 170))
        painter.fillRect(bar, QtGui.QColor(theme.TEXT))
        for offset, colour in ((1, "#000000"), (0, theme.TEXT)):
            painter.setPen(QtGui.QColor(colour))
            at_right = QtCore.Qt.AlignmentFlag.AlignRight | QtCore.Qt.AlignmentFlag.AlignBottom
            painter.drawText(words.translated(offset, offset), int(at_right), f"{um:g} µm")


def round_length(at_most: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not longer."""
    decade = 10.0 ** math.floor(math.log10(max(at_most, 1e-9)))
    return decade * max(step for step in (1, 2, 5) if step * decade <= at_most * 1.000001)


class LinkedRegion:
    """The same outline on several panes; dragging one drags all. `changed` is called with the new region."""

    def __init__(self, panes: list[Pane], changed: Callable[[Region], None]) -> None:
        self._panes, self._changed = panes, changed
        self._outlines: list[pg.ROI] = []
        self._moving = False
        self.region: Region | None = None

    def place(self, region: Region, shape: tuple[int, int]) -> None:
        """Draw this region on every pane, within a frame of `shape`."""
        for pane, outline in zip(self._panes, self._outlines, strict=False):
            pane.view.removeItem(outline)
        self._outlines = [self._outline(region, shape) for _ in self._panes]
        for pane, outline in zip(self._panes, self._outlines, strict=True):
            pane.view.addItem(outline)
            outline.sigRegionChanged.connect(self._on_drag)
        self.region = region
        self._changed(region)

    def _outline(self, region: Region, shape: tuple[int, int]) -> pg.ROI:
        options = {
            "pen": pg.mkPen("#4fd1ff", width=2),
            "hoverPen": pg.mkPen("#ffffff", width=3),
            "handlePen": pg.mkPen("#4fd1ff", width=2),
            "maxBounds": QtCore.QRectF(0, 0, shape[1], shape[0]),
        }
        place = ((region.x, region.y), (region.width, region.height))
        if not region.ellipse:
            return pg.RectROI(*place, **options)
        outline = pg.EllipseROI(*place, rotatable=False, **options)
        outline.removeHandle(0)  # the one that rotates: a turned ellipse would need another mask
        return outline

    def _on_drag(self, dragged: pg.ROI) -> None:
        if self._moving or self.region is None:
            return
        self._moving = True
        position, size = dragged.pos(), dragged.size()
        for outline in self._outlines:
            if outline is not dragged:
                outline.setPos(position, update=False)
                outline.setSize(size)
        self._moving = False
        self.region = Region(position.x(), position.y(), size.x(), size.y(), self.region.ellipse)
        self._changed(self.region)
