"""How fast a live run is on this machine: frames per second, and milliseconds at every stage."""

from rtdenoise.bench.report import BenchReport
from rtdenoise.bench.run import BenchSettings, command, run_bench

__all__ = ["BenchReport", "BenchSettings", "command", "run_bench"]
