"""A camera under Micro-Manager, pulled frame by frame through pycromanager's Core()."""

from rtdenoise.sources.micromanager.settings import MicromanagerSettings
from rtdenoise.sources.micromanager.source import MicromanagerSource

__all__ = ["MicromanagerSettings", "MicromanagerSource"]
