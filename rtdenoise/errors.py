"""One tree of errors. Every message names what was wrong and what to do about it."""

from typing import ClassVar


class RtDenoiseError(Exception):
    """Base of everything rtdenoise raises on purpose; the CLI prints it as one line and exits 1.

    cause: the word that says on the wire where a run broke.
    """

    cause: ClassVar[str] = "error"


class ConfigError(RtDenoiseError):
    """A setting, recipe, target or manifest is missing, unknown or out of range."""


class MissingExtraError(RtDenoiseError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'rtdenoise[{extra}]'")


class FileFormatError(RtDenoiseError):
    """A file is missing, truncated, or not what it claims to be."""

    cause = "file"


class WindowError(RtDenoiseError):
    """A window has the wrong number, shape or type of frames."""


class BundleError(RtDenoiseError):
    """A bundle is incomplete, damaged or from another version."""

    cause = "engine"


class EngineError(RtDenoiseError):
    """An engine cannot be built, or bound something other than what was asked for."""

    cause = "engine"


class WireError(RtDenoiseError):
    """A message or an endpoint is not usable."""

    cause = "wire"


class RecordingError(RtDenoiseError):
    """A recording cannot be begun, or an event cannot be added to it."""


class SourceError(RtDenoiseError):
    """Frames stopped coming for a reason that is not the end of the series."""

    cause = "source"


class SourceBusy(SourceError):
    """Somebody else is using the camera."""

    cause = "busy"


class SourceOverflow(SourceError):
    """The camera buffer overflowed and the acquisition stopped."""

    cause = "overflow"


class SourceDisconnected(SourceError):
    """The device or its server went away."""

    cause = "disconnected"


class SourceStalled(SourceError):
    """The device is there but has sent nothing for too long."""

    cause = "stalled"


class GeometryChanged(SourceError):
    """A frame has another shape or pixel type than the series it belongs to."""

    cause = "geometry"


class EndOfStream(Exception):
    """The series is complete: news, not an error."""
