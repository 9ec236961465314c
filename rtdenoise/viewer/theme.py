"""Colours and sizes: dark, and readable from the other side of the room."""

BACKGROUND = "#0b0e11"
PANEL = "#151a1f"
LINE = "#2b333b"
TEXT = "#e8edf2"
QUIET = "#93a1af"
RAW = "#aab4be"
DENOISED = "#ffb347"
"""Raw grey, denoised orange: told apart by people who see no red or no green."""
GOOD = "#4cd48b"
WARN = "#ffc53d"
BAD = "#ff5d5d"

STYLE = f"""
QWidget {{ background: {BACKGROUND}; color: {TEXT}; font-size: 12pt; }}
QLabel#quiet {{ color: {QUIET}; font-size: 11pt; }}
QLabel#value {{ font-size: 26pt; font-weight: 600; }}
QLabel#strip {{ font-size: 17pt; font-weight: 600; padding: 5px 14px; border-radius: 6px; }}
QLabel#pane {{ font-size: 15pt; font-weight: 700; }}
QFrame#cell {{ background: {PANEL}; border-radius: 6px; }}
QFrame#cell QLabel {{ background: transparent; }}
QPushButton, QComboBox, QLineEdit {{
  background: {PANEL}; border: 1px solid {LINE}; border-radius: 5px; padding: 4px 10px; min-height: 24px;
}}
QPushButton:hover, QComboBox:hover, QLineEdit:hover {{ border-color: {QUIET}; }}
QComboBox QAbstractItemView {{ background: {PANEL}; selection-background-color: {LINE}; }}
"""


def strip_style(colour: str) -> str:
    """The state line in one of the signal colours, dark text on it."""
    return f"background: {colour}; color: {BACKGROUND};"
