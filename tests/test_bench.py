"""The benchmark measures a real run, and its report says enough to judge the figures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rtdenoise import bench, machine
from rtdenoise.bench import BenchReport, BenchSettings, run_bench
from rtdenoise.bench.run import N_WARMUP
from rtdenoise.errors import BundleError
from rtdenoise.settings import EngineSettings

SHAPE = (48, 64)
IDENTITY = EngineSettings(model="identity")


@pytest.fixture(scope="module")
def paced() -> BenchReport:
    return run_bench(BenchSettings(engine=IDENTITY, shape=SHAPE, fps=200.0, frames=200))


@pytest.fixture(scope="module")
def flat_out() -> BenchReport:
    return run_bench(BenchSettings(engine=IDENTITY, shape=SHAPE, fps=None, frames=300))


def test_flat_out_nothing_is_lost_and_every_frame_reaches_the_other_process(flat_out: BenchReport) -> None:
    assert flat_out.received == {"raw": 300, "denoised": 300}
    assert flat_out.lost == {"raw": 0, "denoised": 0}
    assert (flat_out.acquired, flat_out.delivered, flat_out.dropped) == (300, 300, {})
    assert flat_out.fps > 0


def test_flat_out_only_stages_that_do_not_measure_full_queues_are_given(flat_out: BenchReport) -> None:
    assert set(flat_out.stages) == {"copy", "denoise", "publish"}


def test_a_paced_run_gives_every_stage_to_the_subscriber(paced: BenchReport) -> None:
    assert list(paced.stages) == ["copy", "queue", "denoise", "publish", "age", "transport", "total"]
    for stage in paced.stages.values():
        assert 0 < stage.p50_ms <= stage.p95_ms <= stage.p99_ms
    assert paced.stages["total"].p50_ms > paced.stages["transport"].p50_ms
    assert paced.stages["total"].p50_ms > 0.9 * paced.stages["age"].p50_ms


def test_the_warm_up_is_left_out_of_the_latencies(paced: BenchReport) -> None:
    """Calibration and first windows would otherwise be the slowest percent of a short run."""
    assert paced.acquired > N_WARMUP
    assert paced.asked_fps == 200.0
    assert paced.fps == pytest.approx(200.0, rel=0.3)


def test_a_report_says_where_when_and_with_what_it_was_measured(paced: BenchReport) -> None:
    assert paced.date.startswith("20")
    assert paced.machine.cpu == machine.cpu_name()
    assert paced.machine.cores >= 1
    assert paced.machine.versions["numpy"] == np.__version__
    assert {"python", "rtdenoise", "pyzmq"} <= set(paced.machine.versions)
    assert (paced.shape, paced.dtype, paced.source) == (SHAPE, "uint16", "synthetic blob")
    assert (paced.model, paced.engine, paced.hop, paced.latency) == ("identity", "filter", 1, "full")


def test_the_command_prints_a_table_and_writes_the_same_figures_as_json(tmp_path: Path) -> None:
    printed, path = io.StringIO(), tmp_path / "bench.json"
    console = Console(file=printed, width=120)
    bench.command(console, EngineSettings(model="ema"), size=32, fps=200.0, seconds=1.0, json_path=path)
    report = BenchReport.model_validate_json(path.read_text(encoding="utf-8"))
    assert report.model == "ema"
    assert f"{report.stages['total'].p99_ms:.2f}" in printed.getvalue()
    assert "p50 ms" in printed.getvalue()
    assert report.machine.cpu in printed.getvalue()


def test_what_a_run_cannot_do_is_raised_as_the_run_raises_it() -> None:
    with pytest.raises(BundleError, match="no-such-model: no bundle here"):
        run_bench(BenchSettings(engine=EngineSettings(model="no-such-model"), shape=SHAPE))


def test_the_clock_step_and_the_sleep_overshoot_are_plausible() -> None:
    assert 0 < machine.timer_step_ms() < 20
    assert 0 <= machine.sleep_overshoot_ms(3) < 1000
