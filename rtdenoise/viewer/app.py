"""Starts the window in a process of its own, or says in one line why it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rtdenoise import keyring
from rtdenoise.errors import MissingExtraError, RtDenoiseError
from rtdenoise.wire import DENOISED_ENDPOINT, RAW_ENDPOINT, STATUS_ENDPOINT

if TYPE_CHECKING:
    from rtdenoise.viewer.window import ViewerWindow

SCREENSHOT_AFTER_S = 5.0
_WINDOWLESS = ("offscreen", "minimal", "vnc")
_CRASHES_BEFORE_312 = "6.12.0"
"""Measured: `label.setText` 2000 times takes 2000 references from None; from Python 3.12 on None cannot be lost."""
_PROBE = "from PySide6.QtGui import QGuiApplication; QGuiApplication([])"


def main(
    raw_endpoint: str = RAW_ENDPOINT,
    denoised_endpoint: str = DENOISED_ENDPOINT,
    status_endpoint: str = STATUS_ENDPOINT,
    keys_file: Path | None = None,
    *,
    duration_s: float | None = None,
    screenshot: Path | None = None,
) -> int:
    """Show the window until it is closed, Ctrl-C, or `duration_s`; then save `screenshot` (PNG; after 5 s without a duration).

    Returns the exit code. Raises MissingExtraError without pyqtgraph and Qt, RtDenoiseError without a display or for a
    screenshot that cannot be written, WireError for a malformed endpoint, ConfigError for a key file that is none.
    """
    keys = None if keys_file is None else keyring.client(keys_file)
    require_display(sys.platform, os.environ)
    _import_qt()
    from PySide6 import QtCore, QtWidgets

    from rtdenoise.viewer.feed import Feed
    from rtdenoise.viewer.window import ViewerWindow

    app = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["rtdenoise"])
    # Later, because Ctrl-C may come in the middle of a look, and quitting disconnects at once.
    interrupted = signal.signal(signal.SIGINT, lambda *_: QtCore.QTimer.singleShot(0, app.quit))
    try:
        window = ViewerWindow(Feed(raw_endpoint, denoised_endpoint, status_endpoint, keys=keys))
        window.show()
        if duration_s is None and screenshot is not None:
            duration_s = SCREENSHOT_AFTER_S
        if duration_s is not None:
            QtCore.QTimer.singleShot(int(duration_s * 1000), app.quit)
        code = app.exec()
        window.close()
        if screenshot is not None:
            _save(window, screenshot)
    finally:
        signal.signal(signal.SIGINT, interrupted)
    return int(code)


def require_display(platform: str, environ: Mapping[str, str]) -> None:
    """Raise RtDenoiseError where Qt would abort the process: Linux without a display, or with one it cannot use."""
    chosen = environ.get("QT_QPA_PLATFORM", "")
    if not platform.startswith("linux") or chosen.startswith(_WINDOWLESS):
        return
    if not chosen and not environ.get("DISPLAY") and not environ.get("WAYLAND_DISPLAY"):
        raise RtDenoiseError(
            "no display: DISPLAY and WAYLAND_DISPLAY are not set; run the viewer on the desktop of this computer, "
            "use ssh -X, or set QT_QPA_PLATFORM=offscreen to save a screenshot without a window"
        )


def _import_qt() -> None:
    """pyqtgraph takes whatever Qt is installed unless told; we are written for PySide6."""
    os.environ["PYQTGRAPH_QT_LIB"] = "PySide6"
    try:
        import pyqtgraph  # noqa: F401
        import PySide6.QtWidgets
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyqtgraph" if error.name == "pyqtgraph" else "PySide6", "live") from None
    except ImportError as error:
        raise RtDenoiseError(
            f"Qt cannot be loaded: {error}; on Debian or Ubuntu run: apt install libegl1 libgl1 libxkbcommon0 libdbus-1-3"
        ) from None
    if sys.version_info < (3, 12) and PySide6.__version__ == _CRASHES_BEFORE_312:
        raise RtDenoiseError(
            f"PySide6 {_CRASHES_BEFORE_312} crashes on this Python after some thousand pictures; "
            "run: pip install 'PySide6-Essentials<6.12'"
        )
    if sys.platform.startswith("linux") and not os.environ.get("QT_QPA_PLATFORM", "").startswith(_WINDOWLESS):
        _probe_display()


def _probe_display() -> None:
    """Qt aborts the process when a display does not answer or a library is missing; let that happen to another one."""
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False)
    if probe.returncode != 0:
        lines = [line.strip() for line in probe.stderr.splitlines() if line.strip()]
        raise RtDenoiseError(
            f"Qt cannot open a window: {lines[0] if lines else 'no reason given'}; check DISPLAY, and on Debian or Ubuntu "
            "run: apt install libxcb-cursor0 libxkbcommon-x11-0 libxcb-icccm4 libxcb-keysyms1"
        )


def _save(window: ViewerWindow, path: Path) -> None:
    window.refresh()
    if not window.grab().save(str(path), "PNG"):
        raise RtDenoiseError(f"{path}: the screenshot cannot be written; does the folder exist?")
