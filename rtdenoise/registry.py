"""Methods and sources by name, loaded only when somebody asks for one."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rtdenoise.errors import ConfigError

METHODS = "rtdenoise.methods"
SOURCES = "rtdenoise.sources"


def names(group: str) -> list[str]:
    """Registered names of a group, sorted; imports nothing."""
    return sorted(_points(group))


def load(group: str, name: str) -> Any:
    """The registered object. Raises ConfigError when the name is unknown. (Any: the group decides the type.)"""
    points = _points(group)
    if name not in points:
        kind = group.rsplit(".", 1)[1].rstrip("s")
        raise ConfigError(f"unknown {kind} {name!r}; registered: {', '.join(sorted(points)) or 'none'}")
    return points[name].load()


def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}
