"""One tree of errors. Every message names what was wrong and what to do about it."""


class RtDenoiseError(Exception):
    """Base of everything rtdenoise raises on purpose; the CLI prints it as one line and exits 1."""


class ConfigError(RtDenoiseError):
    """A setting, recipe, target or manifest is missing, unknown or out of range."""


class MissingExtraError(RtDenoiseError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'rtdenoise[{extra}]'")


class FileFormatError(RtDenoiseError):
    """A file is missing, truncated, or not what it claims to be."""


class WindowError(RtDenoiseError):
    """A window has the wrong number, shape or type of frames."""


class BundleError(RtDenoiseError):
    """A bundle is incomplete, damaged or from another version."""


class EngineError(RtDenoiseError):
    """An engine cannot be built, or bound something other than what was asked for."""


class WireError(RtDenoiseError):
    """A message or an endpoint is not usable."""


class SourceError(RtDenoiseError):
    """Frames stopped coming for a reason that is not the end of the series."""


class SourceBusy(SourceError):
    """Somebody else is using the camera."""


class SourceOverflow(SourceError):
    """The camera buffer overflowed and the acquisition stopped."""


class SourceDisconnected(SourceError):
    """The device or its server went away."""


class SourceStalled(SourceError):
    """The device is there but has sent nothing for too long."""


class GeometryChanged(SourceError):
    """A frame has another shape or pixel type than the series it belongs to."""


class EndOfStream(Exception):
    """The series is complete: news, not an error."""
