"""Raw and denoised frames as two layers in napari, updated while they arrive.

    pip install "napari[pyside6]"
    python napari_live.py
    python napari_live.py --port 6000 --seconds 5 --screenshot napari.png

The frames are fetched by a timer of the window, never more often than it can paint (`rtdenoise.subscribe.Subscriber.newest` skips to the
newest). The contrast of a layer is chosen from its first frame and then left to you. A layer that you delete stays deleted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import napari
import numpy as np
from qtpy.QtCore import QTimer

from rtdenoise.subscribe import Subscriber

LOOK_MS = 33
"""Between two looks: as fast as a screen that somebody watches needs. Engineering choice."""


class LiveLayer:
    """One stream and the layer that shows its newest frame, at its place from the left."""

    def __init__(self, viewer: napari.Viewer, name: str, endpoint: str, place: int) -> None:
        self._viewer, self._name, self._place = viewer, name, place
        self._stream = Subscriber(endpoint, stream=name)
        self._layer: napari.layers.Image | None = None
        self.n_shown = 0

    def look(self) -> None:
        """Show the newest frame, if one has come. Never waits."""
        message = self._stream.newest(timeout_s=0)
        if message is None:
            return
        # napari keeps the array; the received bytes live as long as it does.
        pixels = message.frame.pixels
        if self._layer is None:
            low, high = np.percentile(pixels.astype(np.float32), (1, 99.8))
            limits = (float(low), float(max(high, low + 1)))
            scale = (message.facts.um_per_px or 1.0,) * 2
            beside = (0.0, self._place * 1.03 * pixels.shape[1] * scale[1])
            self._layer = self._viewer.add_image(
                pixels, name=self._name, contrast_limits=limits, colormap="gray", scale=scale, translate=beside
            )
            self._layer.contrast_limits_range = (float(pixels.min()), 2 * limits[1])
            self._viewer.reset_view()
        elif self._layer in self._viewer.layers:
            self._layer.data = pixels
        stamp = message.frame.stamp
        self.n_shown += 1
        self._viewer.title = f"rtdenoise: {self._name} frame {stamp.src_frame}, {self._stream.missed} never arrived"

    def close(self) -> None:
        """Disconnect."""
        self._stream.close()


def main() -> None:
    """Show the two streams until the window is closed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=5560, help="of the denoised stream; raw is the next one")
    parser.add_argument("--seconds", type=float, help="close after so long")
    parser.add_argument("--screenshot", type=Path, help="save the window as PNG before it closes")
    asked = parser.parse_args()
    viewer = napari.Viewer(title="rtdenoise")
    layers = [
        LiveLayer(viewer, "raw", f"tcp://127.0.0.1:{asked.port + 1}", place=0),
        LiveLayer(viewer, "denoised", f"tcp://127.0.0.1:{asked.port}", place=1),
    ]
    timer = QTimer()
    for layer in layers:
        timer.timeout.connect(layer.look)
    timer.start(LOOK_MS)
    if asked.seconds is not None:
        QTimer.singleShot(int(1000 * asked.seconds), lambda: _finish(viewer, asked.screenshot))
    napari.run()
    timer.stop()
    for layer in layers:
        layer.close()
    print(f"{layers[0].n_shown} raw and {layers[1].n_shown} denoised frames shown", flush=True)


def _finish(viewer: napari.Viewer, screenshot: Path | None) -> None:
    if screenshot is not None:
        viewer.screenshot(str(screenshot), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main()
