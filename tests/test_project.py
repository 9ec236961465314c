"""What holds for the project as a whole: its wheel, its tree, its dependencies, its two commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "tools" / "run.py"
MAX_LINES = 300
LONG_FOR_A_REASON: dict[str, str] = {
    "tests/test_micromanager.py": "the promises of one source, each kept by two backends on the same rig",
    "tests/test_publish.py": "the promises of one publisher and the subscriber at its other end",
    "tests/test_ted.py": "one method against its authors' numbers, and what its options do",
    "tests/test_viewer.py": "the promises of one window",
}
TOP_LEVEL = {
    "README.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "pyproject.toml",
    "rtdenoise",
    "models",
    "export",
    "examples",
    "tests",
    "tools",
}
LIVE_PATH = ("session", "acquire", "denoise", "stream", "engine", "sources", "publish", "subscribe", "viewer", "web")
RESERVED_ON_WINDOWS = re.compile(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$")
WALK_AND_DENOISE = f"""
import importlib, pkgutil, sys
sys.modules["torch"] = None  # an import of torch, however deep, is now an ImportError
for name in {LIVE_PATH}:
    module = importlib.import_module("rtdenoise." + name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
        importlib.import_module(found.name)
import numpy as np
from rtdenoise.engine.load import EngineChoice, EngineFactory
with EngineFactory(EngineChoice("fast-simulated", threads=1), (32, 32)).make() as engine:
    size, emits = engine.window.size, engine.window.emits
    engine.run(np.zeros((size, 32, 32), np.float32), 0, emits[0], len(emits))
"""


@pytest.fixture(scope="module")
def committed() -> dict[str, str]:
    """Path -> git mode of every file that git knows."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is no list of files to look at")
    listed = subprocess.run(["git", "ls-files", "-s", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    entries = [entry.split("\t", 1) for entry in listed.stdout.split("\0") if entry]
    return {path: facts.split()[0] for facts, path in entries if (ROOT / path).exists()}


@pytest.fixture(scope="module")
def in_wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_brings_the_demo_model_and_says_that_it_is_typed(in_wheel: set[str]) -> None:
    demo = "rtdenoise/bundles/fast-simulated"
    assert {f"{demo}/manifest.json", f"{demo}/model.onnx", "rtdenoise/py.typed", "rtdenoise/cli.py"} <= in_wheel


def test_the_wheel_holds_the_package_and_nothing_else(in_wheel: set[str], committed: dict[str, str]) -> None:
    shipped = {name for name in in_wheel if ".dist-info/" not in name}
    assert {PurePosixPath(name).parts[0] for name in shipped} == {"rtdenoise"}
    assert {path for path in committed if path.startswith("rtdenoise/")} <= shipped


def test_the_live_path_does_without_torch() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WALK_AND_DENOISE], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr


def test_the_top_level_is_the_documented_one(committed: dict[str, str]) -> None:
    top = {path.split("/")[0] for path in committed}
    assert {name for name in top if not name.startswith(".")} == TOP_LEVEL


def test_python_files_are_short(committed: dict[str, str]) -> None:
    lengths = {path: len((ROOT / path).read_bytes().splitlines()) for path in committed if path.endswith(".py")}
    too_long = {path: n for path, n in lengths.items() if n > MAX_LINES and path not in LONG_FOR_A_REASON}
    assert not too_long, f"split these, or give the reason in {Path(__file__).name}"


def test_every_name_can_be_checked_out_on_every_system(committed: dict[str, str]) -> None:
    parts = {part for path in committed for part in path.split("/")}
    forbidden = {
        part for part in parts if set(part) & set('<>:"\\|?*') or part[-1] in " ." or RESERVED_ON_WINDOWS.match(part)
    }
    assert not forbidden
    folded = [path.casefold() for path in committed]
    assert len(folded) == len(set(folded)), "two names differ in case only"
    assert not [path for path, mode in committed.items() if mode == "120000"], "symbolic links"


def _pins() -> list[Requirement]:
    lines = (ROOT / "tools" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _required() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [
        *project["dependencies"],
        *(line for extra in ("live", "cpu", "evaluate", "metrics", "web", "train", "dev") for line in extras[extra]),
    ]
    return [Requirement(line) for line in named]


def _pinned_version(name: str, system: dict[str, str]) -> Version:
    found = [pin for pin in _pins() if canonicalize_name(pin.name) == name and _applies(pin, system)]
    assert len(found) == 1, f"{len(found)} pins of {name} on {system}"
    (specifier,) = found[0].specifier
    assert specifier.operator == "==", f"{found[0]} is not a pin"
    return Version(specifier.version)


def _applies(requirement: Requirement, system: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(system)


@pytest.mark.parametrize("sys_platform", ["linux", "win32", "darwin"])
@pytest.mark.parametrize("python_version", ["3.11", "3.12", "3.13"])
def test_everything_that_is_installed_has_a_tested_version(sys_platform: str, python_version: str) -> None:
    system = {"sys_platform": sys_platform, "python_version": python_version, "platform_machine": "x86_64"}
    for requirement in _required():
        if _applies(requirement, system):
            pinned = _pinned_version(canonicalize_name(requirement.name), system)
            assert requirement.specifier.contains(pinned), f"{pinned} is not within {requirement}"


def test_the_demo_adapters_speak_the_device_interface_of_mmcore() -> None:
    adapters, core = _pinned_version("mm-test-adapters", {}), _pinned_version("pymmcore", {})
    assert adapters.release[0] == core.release[3]


def _run_in(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (checkout / "tools").mkdir(parents=True)
    shutil.copy(RUN, checkout / "tools")
    command = [sys.executable, str(checkout / "tools" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_python_that_does_not_exist_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    run = _run_in(tmp_path / "a checkout", "demo", "--python", str(tmp_path / "no python"))
    assert run.returncode == 1
    assert run.stderr.startswith("error: ")
    assert "no python does not start; give the path of a Python 3.11 or newer" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "a checkout" / ".venv").exists()


def test_a_broken_environment_is_named_and_not_deleted(tmp_path: Path) -> None:
    mine = tmp_path / ".venv" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("keep me")
    run = _run_in(tmp_path, "test")
    assert run.returncode == 1
    assert f"{tmp_path / '.venv'} is there but has no working Python" in run.stderr
    assert mine.is_file()
