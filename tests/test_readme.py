"""The README's consumer is a program that runs, and its table of methods is what is registered, shipped and measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rtdenoise import catalogue
from rtdenoise.session import Session
from tests.runs import settings

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TABLE = ROOT / "tools" / "method_table.py"


def snippet() -> str:
    """The first Python block of the README that uses zmq."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    return next(block for block in blocks if "zmq" in block)


def test_the_consumer_in_the_readme_has_ten_lines_and_prints_every_frame_it_gets() -> None:
    code = snippet()
    assert len(code.strip().splitlines()) <= 10
    options = {"mode": "counter", "shape": [32, 32], "fps": 100.0, "live": False, "n_frames": 60}
    asked = settings("synthetic", options, engine={"model": "identity"}, policy="lossless", wait_for={"denoised": 1})
    assert "tcp://127.0.0.1:5560" in code
    code = code.replace("tcp://127.0.0.1:5560", asked.endpoints.denoised)
    consumer = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        with Session(asked) as session:
            summary = session.run()
        assert consumer.stdout is not None
        lines = [consumer.stdout.readline().split() for _ in range(60)]
    finally:
        consumer.kill()
        consumer.wait(10)
    assert summary.delivered == 60
    assert [int(line[0]) for line in lines] == list(range(60))
    assert all(float(line[1]) >= 0 for line in lines)


@pytest.fixture
def table() -> str:
    """What stands between the generator's two comments."""
    block = re.search(r"<!-- methods: written.*?-->\n(.*?)<!-- methods: end -->", README.read_text("utf-8"), re.S)
    assert block
    return str(block[1])


def test_the_table_of_methods_is_what_its_generator_gives() -> None:
    pytest.importorskip("torch", reason="the methods, whose titles the table shows, need the train extra")
    done = subprocess.run([sys.executable, TABLE, "--check"], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_shipped_model_has_a_row_with_its_look_ahead_and_what_was_measured(table: str) -> None:
    report = json.loads((ROOT / "export" / "reports" / "quality-models.json").read_text("utf-8"))
    waits = {row["model"]: row["lookahead_frames"] for row in report["results"]}
    for name in catalogue.registered()["bundles"]:
        linked = (name, f"[{name}](models/{name}/card.md)")
        split = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line]
        (cells,) = [cells for cells in split if cells[1] in linked]
        if name in waits:
            assert cells[2] == str(waits[name])
            assert re.fullmatch(r"[+-]\d+\.\d( / [+-]\d+\.\d)?", cells[5])
        else:
            assert cells[5] == "not measured yet"


def test_every_method_has_a_row_even_without_a_model(table: str) -> None:
    methods = pytest.importorskip("rtdenoise.methods.base", reason="titles of methods need the train extra")
    for name in catalogue.registered()["methods"]:
        short = methods.load(name).title.partition(":")[0]
        rows = [line for line in table.splitlines() if re.match(rf"\| \[?{re.escape(short)}(\]\(| \|)", line)]
        assert rows, name
        assert all(row.split("|")[2].strip() for row in rows), "a model, or that there is none yet"


NAMED = (
    "DeepCAD, DeepCAD-RT, DeepBID, DeepInterpolation, DeepSeMi, DeepVID, DeepVID v2, FAST, SN2N, SRDTrans, STS-UVD, SUPPORT, "
    "TeD, UDVD, UMVD"
)


@pytest.mark.parametrize("name", NAMED.split(", "))
def test_no_published_method_is_left_out(name: str, table: str) -> None:
    assert re.search(rf"^\| \[?{re.escape(name)}(\]\(| \|)", table, re.M)
