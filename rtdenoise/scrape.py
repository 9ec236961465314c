"""The numbers of a run for Prometheus, on a port of this machine that answers when it is asked. Costs nothing per frame."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from rtdenoise import __version__, vitals
from rtdenoise.errors import MissingExtraError, WireError
from rtdenoise.latency import bin_centres_ms
from rtdenoise.reporter import Reporter
from rtdenoise.shared import STAGES, SharedRing, Slot

if TYPE_CHECKING:
    from prometheus_client.metrics_core import HistogramMetricFamily, Metric

HOST = "127.0.0.1"
BUCKETS_MS = (1, 2, 5, 10, 20, 33, 50, 100, 250, 1000, 4000)
"""Upper bounds of the histograms' buckets (design notes on the wire, metrics)."""


class Collector:
    """Reads the ring when somebody scrapes. Counts of buckets are right to the 1.9 % that a bin of the ring's histograms is wide."""

    def __init__(self, ring: SharedRing, reporter: Reporter) -> None:
        self._ring, self._reporter = ring, reporter

    def collect(self) -> Iterator[Metric]:
        """Every metric of the run, now."""
        yield from self._frames()
        yield from self._durations()
        yield from self._state()

    def _frames(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        totals = vitals.totals(self._ring)
        frames = CounterMetricFamily(
            "rtdenoise_frames", "acquired = delivered + every other outcome + in flight", labels=("stage", "outcome")
        )
        frames.add_metric(("acquire", "acquired"), totals.acquired)
        frames.add_metric(("publish", "delivered"), totals.delivered)
        for reason, n in totals.dropped.items():
            stage, _, outcome = reason.partition(": ")
            frames.add_metric((stage, outcome), n)
        yield frames
        yield GaugeMetricFamily("rtdenoise_frames_in_flight", "acquired, not yet settled", totals.in_flight)

    def _durations(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import HistogramMetricFamily

        stages = HistogramMetricFamily(
            "rtdenoise_stage_seconds", "time that a frame takes in a stage", labels=("stage",)
        )
        for stage in STAGES[:-1]:
            _add(stages, (stage,), self._ring.latency[stage].counts)
        yield stages
        ages = HistogramMetricFamily("rtdenoise_age_seconds", "from arrival to publication of a frame", labels=())
        _add(ages, (), self._ring.latency["age"].counts)
        yield ages

    def _state(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        fills = GaugeMetricFamily(
            "rtdenoise_queue_fill_ratio", "fullest in the last second; alarms at 0.75 and 1", labels=("queue",)
        )
        for name, fill in self._reporter.fills.items():
            fills.add_metric((name,), fill)
        yield fills
        drift = GaugeMetricFamily(
            "rtdenoise_norm_drift_ratio", "contrast now over contrast at calibration", labels=("channel_plane",)
        )
        for key, ratio in self._reporter.drift.items():
            drift.add_metric((key,), ratio)
        yield drift
        yield from self._recorder()
        restarts = int(self._ring.ints[Slot.RESTARTS])
        yield CounterMetricFamily("rtdenoise_restarts", "of the denoise process", restarts)
        ready = self._reporter.ready
        facts = {"backend": ready.backend, "model": ready.model, "mode": ready.mode, "version": __version__}
        yield InfoMetricFamily("rtdenoise_backend", "what denoises", facts)

    def _recorder(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        recorder = self._reporter.recorder()
        if recorder is None:
            return
        frames = CounterMetricFamily("rtdenoise_recorder_frames", "raw frames of the recording", labels=("outcome",))
        frames.add_metric(("written",), recorder.written)
        frames.add_metric(("dropped",), recorder.dropped)
        yield frames
        if recorder.seconds_left is not None:
            yield GaugeMetricFamily("rtdenoise_recorder_seconds_left", "until the disk is full", recorder.seconds_left)


class MetricsServer:
    """Answers GET /metrics on loopback, in a thread of its own. url: where, with the port filled in when 0 was asked for.

    Raises MissingExtraError without prometheus-client, WireError when the port is taken.
    """

    def __init__(self, port: int, ring: SharedRing, reporter: Reporter) -> None:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError:
            raise MissingExtraError("prometheus-client", "metrics") from None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collector(ring, reporter))
        _require_free(port)
        try:
            self._server, self._thread = start_http_server(port, HOST, registry)
        except OSError as error:
            raise WireError(
                f"{HOST}:{port}: no metrics there ({error.strerror}); choose another --metrics-port"
            ) from None
        self.url = f"http://{HOST}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Answer nobody any more. Call it before the ring is closed."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], counts: NDArray[np.int64]) -> None:
    """The ring's fine histogram in the buckets of the wire's design, in seconds."""
    now, centres = counts.copy(), bin_centres_ms()
    total = int(now.sum())
    buckets = [(repr(bound / 1000), int(now[centres <= bound].sum())) for bound in BUCKETS_MS]
    family.add_metric(labels, [*buckets, ("+Inf", total)], float(now @ centres) / 1e3)


def _require_free(port: int) -> None:
    """Windows would let two programs answer on one port."""
    if not port:
        return
    with socket.socket() as door:
        door.settimeout(0.5)
        if door.connect_ex((HOST, port)) == 0:
            raise WireError(f"{HOST}:{port}: somebody answers there already; choose another --metrics-port")
