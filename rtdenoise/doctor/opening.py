"""Opens one thing for real, in a process of its own: `python -m rtdenoise.doctor.opening camera | server | qt | sources | imports NAME...`

Answers `{"ok": true, "detail": ...}`, or why not with the line that repairs it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from rtdenoise.engine.probe import answer
from rtdenoise.errors import EndOfStream, MissingExtraError, RtDenoiseError, SourceError

Answer = dict[str, object]


def camera(_: Sequence[str]) -> Answer:
    """Micro-Manager's demo camera in this process: one frame."""
    return _first_frame({"n_frames": 3, "exposure_ms": 10.0, "width": 64, "height": 64})


def server(arguments: Sequence[str]) -> Answer:
    """A Micro-Manager that is already running: connect and read the camera's geometry, start nothing."""
    from rtdenoise.sources.micromanager import MicromanagerSettings, MicromanagerSource

    source = MicromanagerSource(MicromanagerSettings(backend="java", port=int(arguments[0])))
    try:
        info = source.open()
        return {"ok": True, "detail": f"{info.name}, {info.shape[0]} x {info.shape[1]} {info.dtype}"}
    finally:
        source.close()


def qt(_: Sequence[str]) -> Answer:
    """The viewer's libraries and Qt's platform plugin: a window is made, not shown."""
    for package in ("PySide6", "pyqtgraph"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise MissingExtraError(package, "live") from None
    import pyqtgraph

    application = pyqtgraph.mkQApp("rtdenoise doctor")
    pyqtgraph.GraphicsLayoutWidget().grab()
    import PySide6

    return {
        "ok": True,
        "detail": f"pyqtgraph {pyqtgraph.__version__}, Qt {PySide6.__version__}, platform {application.platformName()}",
    }


def imports(packages: Sequence[str]) -> Answer:
    """Which of these packages can be imported: name -> empty, or what went wrong."""
    return {package: _import_problem(package) for package in packages}


def sources(_: Sequence[str]) -> Answer:
    """What each registered source is, what is missing for it, or why its code does not load: name -> facts."""
    from rtdenoise import registry

    return {name: _source(name) for name in registry.names(registry.SOURCES)}


def _source(name: str) -> dict[str, str]:
    from rtdenoise import registry

    facts = {"title": "", "problem": "", "missing": "", "fix": ""}
    try:
        kind = registry.load(registry.SOURCES, name)
    except Exception as error:  # a plug-in of another package raises anything
        return facts | {"problem": f"{type(error).__name__}: {error}"}
    title = getattr(kind, "title", None) or (kind.__doc__ or name).strip().splitlines()[0]
    package = getattr(kind, "needs", "")
    if package and find_spec(package) is None:
        extra = getattr(kind, "extra", "")
        facts |= {"missing": "not installed", "fix": f"pip install 'rtdenoise[{extra}]'"}
    return facts | {"title": str(title).rstrip(".")}


def _first_frame(options: dict[str, object]) -> Answer:
    from rtdenoise.sources.micromanager import MicromanagerSettings, MicromanagerSource

    source = MicromanagerSource(MicromanagerSettings.model_validate(options))
    try:
        info = source.open()
        source.start()
        frame = source.read(timeout_s=5.0)
        if frame is None:
            raise SourceError(f"{info.name} gave no frame within 5 s; try the camera in Micro-Manager itself")
        return {"ok": True, "detail": f"{info.name}, first frame {frame.pixels.shape} {frame.pixels.dtype}"}
    finally:
        source.close()


def _import_problem(package: str) -> str:
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        return "not installed" if error.name == package else str(error)
    except Exception as error:  # a broken binary raises anything
        return f"{type(error).__name__}: {error}"
    return ""


_OPENERS: dict[str, Callable[[Sequence[str]], Answer]] = {
    "camera": camera,
    "server": server,
    "qt": qt,
    "imports": imports,
    "sources": sources,
}


def main() -> None:
    """Open what the first argument names and leave at once: some libraries hang when Python takes them down."""
    try:
        found = _OPENERS[sys.argv[1]](sys.argv[2:])
    except MissingExtraError as error:
        text, _, fix = str(error).partition("; run: ")
        found = {"ok": False, "missing": True, "detail": text, "fix": fix}
    except (RtDenoiseError, EndOfStream) as error:
        found = {"ok": False, "detail": str(error)}
    answer(found)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
