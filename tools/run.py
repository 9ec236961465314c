"""From a fresh checkout to a running program with one command; needs Python 3.11 or newer and nothing else.

    python tools/run.py demo [--python PYTHON] [-- options of rtdenoise demo]
    python tools/run.py test [--python PYTHON] [-- options of pytest]

Both make `.venv` in the checkout when it is missing and install rtdenoise into it with the versions of tools/constraints.txt.
`demo` then shows the denoiser at work (no camera, no GPU, no torch needed); `test` runs the whole check and stops at what fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if sys.platform == "win32" else "bin")
EXE = ".exe" if sys.platform == "win32" else ""
PYTHON = str(BIN / f"python{EXE}")
STAMP = VENV / "rtdenoise-installed.json"
CONSTRAINTS = ROOT / "tools" / "constraints.txt"

EXTRAS = {"demo": ("live", "cpu"), "test": ("live", "cpu", "evaluate", "metrics", "train", "quantize", "dev")}
OLDEST_PYTHON = (3, 11)
ONE_THREAD_EACH = {"OMP_NUM_THREADS": "1"}
"""The tests run in as many processes as there are cores."""
LINES_OF_A_FAILURE = 30
LOAD_QT = (
    "import ctypes, pathlib, PySide6; from PySide6 import QtWidgets; "
    "ctypes.CDLL(str(pathlib.Path(PySide6.__file__).parent / 'Qt' / 'plugins' / 'platforms' / 'libqxcb.so'))"
)


def main() -> int:
    """Exit code of the first command that failed, 0 when all went well."""
    arguments, passed_on = _split(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=EXTRAS)
    parser.add_argument("--python", help="the Python that .venv is made from (default: the one that runs this)")
    wanted = parser.parse_args(arguments)
    make_venv(wanted.python)
    install(EXTRAS[wanted.command])
    return demo(passed_on) if wanted.command == "demo" else check(passed_on)


def demo(options: Sequence[str]) -> int:
    """Run `rtdenoise demo` where the caller stands."""
    problem = qt_problem()
    if problem:
        say(f"note: {problem}")
    return call([str(BIN / f"rtdenoise{EXE}"), "demo", *options], environment(), Path.cwd())


def check(options: Sequence[str]) -> int:
    """Run the whole check, in the order in which it is quickest to hear bad news."""
    problem = qt_problem()
    if problem:
        fail(problem)
    commands = (
        [PYTHON, "-m", "ruff", "check"],
        [PYTHON, "-m", "ruff", "format", "--check"],
        [PYTHON, "-m", "mypy"],
        [str(BIN / f"lint-imports{EXE}")],
        [PYTHON, "-m", "pytest", "-n", "auto", "--dist", "loadfile", "-m", "not soak", *options],
    )
    for command in commands:
        name = " ".join(command[2:] if command[1:2] == ["-m"] else [Path(command[0]).stem])
        say(f"\n$ {name}")
        began = time.monotonic()
        code = call(command, {**environment(), **ONE_THREAD_EACH}, ROOT)
        say(f"{name}: {'ok' if code == 0 else f'failed ({code})'}, {time.monotonic() - began:.1f} s")
        if code:
            return code
    return 0


def make_venv(python: str | None) -> None:
    """Make `.venv` unless it is there and works."""
    if VENV.exists():
        found = _version(PYTHON, "import pip")
        if found is None:
            fail(f"{VENV} is there but has no working Python with pip; delete the folder and run this again")
        if python and _version(python) != found:
            fail(f"{VENV} was made with Python {_dotted(found)}; delete the folder to use {python}")
        return
    maker = python or sys.executable
    version = _version(maker)
    if version is None:
        fail(f"{maker} does not start; give the path of a Python {_dotted(OLDEST_PYTHON)} or newer with --python")
    if version < OLDEST_PYTHON:
        fail(f"Python {_dotted(version)} is too old; needs {_dotted(OLDEST_PYTHON)} or newer: pass one with --python")
    if _version(maker, "import venv, ensurepip") is None:
        fail(f"{maker} cannot make virtual environments; on Debian and Ubuntu run: sudo apt-get install python3-venv")
    say(f"making {VENV} with Python {_dotted(version)}")
    try:
        code = call([maker, "-m", "venv", str(VENV)])
    except BaseException:
        shutil.rmtree(VENV, ignore_errors=True)  # half an environment would look like a whole one
        raise
    if code:
        shutil.rmtree(VENV, ignore_errors=True)
        fail(f"{maker} -m venv failed; what it said is above")


def install(extras: Sequence[str]) -> None:
    """Install rtdenoise with `extras` into `.venv`, editable, unless the same was installed before. Never takes an extra away."""
    stamp = json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.is_file() else {"root": str(ROOT), "extras": []}
    if stamp["root"] != str(ROOT):
        fail(f"{VENV} was made when this folder was {stamp['root']}; delete .venv and run this again")
    if stamp.get("asked_for") == _asked_for() and set(extras) <= set(stamp["extras"]):
        return
    chosen = [extra for extra in EXTRAS["test"] if extra in {*extras, *stamp["extras"]}]
    STAMP.unlink(missing_ok=True)
    what = f"rtdenoise[{','.join(chosen)}]"
    say(f"installing {what} into {VENV}; a few minutes the first time")
    began = time.monotonic()
    _warn_of_cuda(chosen)
    command = pip("--editable", f".[{','.join(chosen)}]")
    if call(command, cwd=ROOT) if sys.stdout.isatty() else call_quietly(command):
        fail(f"pip could not install {what}; what it said is above. Check the network and run this again")
    now = {"root": str(ROOT), "extras": chosen, "asked_for": _asked_for()}
    STAMP.write_text(json.dumps(now), encoding="utf-8")
    say(f"installed in {time.monotonic() - began:.0f} s; .venv is {_n_bytes(VENV) / 1e9:.2f} GB")


def pip(*options: str) -> list[str]:
    """The command that runs pip in `.venv` with the tested versions."""
    common = ("--no-input", "--disable-pip-version-check", "--constraint", str(CONSTRAINTS))
    return [PYTHON, "-m", "pip", "install", *common, *options]


def call_quietly(command: Sequence[str]) -> int:
    """Exit code of `command`; of what it prints only the last lines before a failure are shown."""
    ran = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if ran.returncode:
        say("\n".join(ran.stdout.splitlines()[-LINES_OF_A_FAILURE:]))
    return ran.returncode


def qt_problem() -> str:
    """What keeps Qt from starting on this Linux and the line that mends it; empty when nothing does."""
    if sys.platform != "linux":
        return ""
    tried = subprocess.run([PYTHON, "-c", LOAD_QT], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return ""
    why = tried.stderr.strip().splitlines()[-1]
    return f"Qt cannot start ({why}); run: sudo apt-get install -y $(cat tools/linux-packages.txt)"


def environment() -> dict[str, str]:
    """This environment with `.venv` activated, and Qt told to draw off screen where there is no display."""
    changed = {**os.environ, "VIRTUAL_ENV": str(VENV), "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        changed.setdefault("QT_QPA_PLATFORM", "offscreen")
    return changed


def call(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> int:
    """Exit code of `command`. Ctrl-C reaches it too, and it gets the time to end well."""
    with subprocess.Popen(command, env=env, cwd=cwd) as child:
        while True:
            try:
                code = child.wait()
            except KeyboardInterrupt:
                continue
            return code if code >= 0 else 128 - code


def say(line: str) -> None:
    """Print at once, so that lines keep their order among what the commands print."""
    print(line, flush=True)


def fail(line: str) -> NoReturn:
    """End with one line that says what to do."""
    sys.exit(f"error: {line}")


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _warn_of_cuda(extras: Sequence[str]) -> None:
    """Say beforehand when pip would take the build of torch that brings CUDA: only an index of the CPU builds avoids it."""
    if "train" not in extras or sys.platform != "linux":
        return
    command = pip("--dry-run", "--no-deps", "--report", "-", "--quiet", "torch")
    tried = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if tried.returncode == 0 and '"name": "torch"' in tried.stdout and "+cpu" not in tried.stdout:
        say(
            "note: torch brings several GB of CUDA libraries; to avoid them set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds"
        )


def _version(python: str, also: str = "pass") -> tuple[int, int] | None:
    """(major, minor) of a Python that can do `also`, None if it cannot or does not start."""
    asks = [python, "-c", f"{also}\nimport sys; print(*sys.version_info[:2])"]
    try:
        answer = subprocess.run(asks, capture_output=True, text=True, check=False)
    except OSError:
        return None
    if answer.returncode:
        return None
    major, minor = answer.stdout.split()
    return int(major), int(minor)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _asked_for() -> str:
    """Changes when another installation is asked for."""
    files = (ROOT / "pyproject.toml", CONSTRAINTS)
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _n_bytes(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    sys.exit(main())
