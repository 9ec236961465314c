"""What we ask of a core, in process or over the bridge: set it up, describe its stream."""

from __future__ import annotations

from rtdenoise.errors import ConfigError, GeometryChanged, SourceBusy, SourceError
from rtdenoise.sources.base import StreamInfo
from rtdenoise.sources.micromanager.base import Core
from rtdenoise.sources.micromanager.settings import MicromanagerSettings


def prepare(core: Core, settings: MicromanagerSettings) -> None:
    """Bring the camera into the state the settings ask for. Nothing is touched while somebody else's sequence runs, unless told to stop it.

    Raises SourceBusy, ConfigError for a property that cannot be set, SourceError when there is no camera.
    """
    camera = camera_name(core)
    if core.is_sequence_running() and not _make_room(core, camera, settings):
        return
    for name, value in settings.properties.items():
        device, _, key = name.partition(".")
        _set_property(core, device, key, value)
    for key, pixels in (("OnCameraCCDXSize", settings.width), ("OnCameraCCDYSize", settings.height)):
        if pixels is not None:
            _set_property(core, camera, key, str(pixels))
    if settings.exposure_ms is not None:
        core.set_exposure(float(settings.exposure_ms))
    # A new frame size makes MMCore allocate its buffer; better now than inside start().
    core.initialize_circular_buffer()


def camera_name(core: Core) -> str:
    """Label of the current camera. Raises SourceError when there is none."""
    camera = str(core.get_camera_device())
    if not camera:
        raise SourceError(
            "Micro-Manager has no camera; load one in the configuration file and make it the Core camera (Property,Core,Camera,<label>)"
        )
    return camera


def describe(core: Core, n_frames: int | None = None) -> StreamInfo:
    """The stream this camera will deliver. Raises SourceError for colour and for more than 16 bits per pixel."""
    camera, n_bytes = camera_name(core), int(core.get_bytes_per_pixel())
    if n_bytes not in (1, 2) or int(core.get_number_of_components()) != 1:
        raise SourceError(
            f"{camera} delivers {n_bytes} bytes per pixel; only 8- and 16-bit grey images can be denoised: "
            "set its PixelType to 8bit or 16bit"
        )
    exposure_s, pixel_um = float(core.get_exposure()) / 1000, float(core.get_pixel_size_um())
    channels = int(core.get_number_of_camera_channels())
    return StreamInfo(
        name=camera,
        shape=(int(core.get_image_height()), int(core.get_image_width())),
        dtype="uint8" if n_bytes == 1 else "uint16",
        bit_depth=int(core.get_image_bit_depth()),
        channels=channels,
        frame_interval_s=exposure_s or None,
        capacity=int(core.get_buffer_total_capacity()),
        n_frames=None if n_frames is None else n_frames * channels,
        um_per_px=pixel_um or None,
    )


def check_unchanged(core: Core, info: StreamInfo) -> None:
    """Raise GeometryChanged when the camera no longer delivers what `info` says."""
    now = describe(core)
    if (now.shape, now.dtype, now.channels) != (info.shape, info.dtype, info.channels):
        raise GeometryChanged(
            f"{info.name} now delivers {now.channels} x {now.shape} {now.dtype}, it was opened with "
            f"{info.channels} x {info.shape} {info.dtype}; open the source again"
        )


def channel_names(core: Core, n_channels: int) -> list[str]:
    """Labels of the physical cameras behind a Multi Camera, in channel order."""
    return [str(core.get_camera_channel_name(channel)) for channel in range(n_channels)]


def _make_room(core: Core, camera: str, settings: MicromanagerSettings) -> bool:
    """True when the camera is idle afterwards."""
    if settings.on_busy == "stop":
        core.stop_sequence_acquisition()
        return True
    if settings.on_busy == "attach" and not settings.changes_camera:
        return False
    if settings.on_busy == "attach":
        raise SourceBusy(
            f"{camera} is running a sequence, so exposure, size and properties cannot be changed; "
            "leave them out to attach, or use on_busy='stop'"
        )
    raise SourceBusy(
        f"{camera} is already running a sequence (live view or acquisition); stop it there, or use on_busy='stop' or 'attach'"
    )


def _set_property(core: Core, device: str, key: str, value: str) -> None:
    try:
        core.set_property(device, key, value)
    except Exception as error:  # pymmcore raises RuntimeError or ValueError, the bridge plain Exception
        raise ConfigError(
            f"{device}.{key}={value} was refused: {first_line(error)}; see the Device Property Browser for names and allowed values"
        ) from None


def first_line(error: BaseException) -> str:
    """The first line of a core's error, without the Java class in front of it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix("java.lang.Exception: ").strip()
