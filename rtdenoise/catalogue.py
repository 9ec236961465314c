"""What is registered, found without importing any of it."""

from __future__ import annotations

from rtdenoise import bundle, registry
from rtdenoise.engine.backends import BACKENDS
from rtdenoise.engine.filters import FILTERS


def registered() -> dict[str, list[str]]:
    """Names by kind: methods, sources, engines, filters, bundles."""
    shipped = bundle.BUILTIN.glob(f"*/{bundle.MANIFEST}")
    return {
        "methods": registry.names(registry.METHODS),
        "sources": registry.names(registry.SOURCES),
        "engines": list(BACKENDS),
        "filters": sorted(FILTERS),
        "bundles": sorted(path.parent.name for path in shipped),
    }
