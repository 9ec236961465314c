"""The README's consumer is a program that runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from rtdenoise.session import Session
from tests.runs import settings

README = Path(__file__).resolve().parents[1] / "README.md"


def snippet() -> str:
    """The first Python block of the README that uses zmq."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    return next(block for block in blocks if "zmq" in block)


def test_the_consumer_in_the_readme_has_ten_lines_and_prints_every_frame_it_gets() -> None:
    code = snippet()
    assert len(code.strip().splitlines()) <= 10
    options = {"mode": "counter", "shape": [32, 32], "fps": 100.0, "live": False, "n_frames": 60}
    asked = settings("synthetic", options, engine={"model": "identity"}, lossless=True, wait_for={"denoised": 1})
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
