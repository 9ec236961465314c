"""scipy, or one line that says how to get it."""

from rtdenoise.errors import MissingExtraError

try:
    from scipy import ndimage
except ImportError:
    raise MissingExtraError("scipy", "live") from None

__all__ = ["ndimage"]
