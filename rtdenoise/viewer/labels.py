"""The few kinds of text on the window; `theme.STYLE` says how each looks."""

from __future__ import annotations

from PySide6 import QtCore, QtWidgets


def label(role: str, text: str = "") -> QtWidgets.QLabel:
    """Text in the style of `role`: value, strip, pane or quiet."""
    made = QtWidgets.QLabel(text)
    made.setObjectName(role)
    made.setTextFormat(
        QtCore.Qt.TextFormat.PlainText
    )  # much of it came over the network: it must not become a page with links
    return made


def quiet_label(text: str = "") -> QtWidgets.QLabel:
    """Small grey text that is cut off rather than widen the window."""
    made = label("quiet", text)
    made.setSizePolicy(QtWidgets.QSizePolicy.Policy.Ignored, QtWidgets.QSizePolicy.Policy.Preferred)
    return made
