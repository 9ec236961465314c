"""Another model, look-ahead or calibration in the middle of a run: every frame comes out once, and the wire says from where on."""

from __future__ import annotations

import os
import signal
import time
from itertools import groupby
from pathlib import Path

from rtdenoise.control import ControlClient
from rtdenoise.handover import Answer
from rtdenoise.session import POLL_S, Session
from rtdenoise.shared import Slot
from rtdenoise.status import StartMessage, StatusMessage
from rtdenoise.subscribe import StatusSubscriber
from tests.asking import PlainSubscriber, done, during, lost
from tests.fragile import bundle, graph, usable
from tests.runs import Listener, numbered, settings

FILTER = {"model": "gauss2d-ema"}
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
CAMERA = {"mode": "blob", "shape": [64, 64], "fps": 200.0}


def wait_for_frames(session: Session, n_more: int) -> None:
    """Keep the session going until so many more frames have been delivered."""
    assert session.ring is not None
    wanted = int(session.ring.ints[Slot.DELIVERED]) + n_more
    deadline = time.monotonic() + 20
    while session.ring.ints[Slot.DELIVERED] < wanted:
        assert session.poll(), "the run ended too early"
        assert time.monotonic() < deadline, "no frame came out"
        time.sleep(POLL_S)


def models_of(headers: list[dict[str, object]]) -> list[object]:
    """Models in the order in which they made the frames, each once per stretch."""
    return [model for model, _ in groupby(header["model"] for header in headers)]


def test_a_plain_subscriber_loses_no_frame_over_several_models_and_sees_where_each_begins() -> None:
    asked = settings("synthetic", CAMERA, engine=FILTER, ring_s=8.0)
    raw, denoised = PlainSubscriber(asked.endpoints.raw), PlainSubscriber(asked.endpoints.denoised)
    models = ["identity", "median", "gauss2d-ema"]

    def swap(client: ControlClient) -> None:
        for model in models:
            assert "has taken over" in done(client.ask("model", model=model)).message

    with StatusSubscriber(asked.endpoints.status) as status, Session(asked) as session:
        wait_for_frames(session, 40)
        during(session, swap)
        wait_for_frames(session, 250)
        session.stop()
        summary = session.run()
        told = []
        while (message := status.read(0)) is not None:
            told.append(message)
    assert (summary.error, summary.dropped, summary.in_flight, summary.restarts) == ("", {}, 0, 0)
    assert summary.acquired == summary.delivered
    for headers in (raw.finish(), denoised.finish()):
        assert lost(headers) == 0
        assert headers[-1]["src_frame"] > 290
    assert models_of(denoised.headers) == ["gauss2d-ema", *models]
    assert {m.model for m in told if isinstance(m, StartMessage)} == {"gauss2d-ema", *models}
    assert any("model median has taken over" in m.message for m in told if isinstance(m, StatusMessage))


def test_a_model_that_cannot_be_used_is_refused_with_the_reason_and_the_run_goes_on(tmp_path: Path) -> None:
    usable("onnxruntime-cpu")
    broken = bundle(tmp_path / "fragile", b"not a graph")
    damaged = bundle(tmp_path / "damaged", graph())
    (damaged.path / "model.onnx").write_bytes(b"short")
    asked = settings("synthetic", CAMERA, engine=FILTER, ring_s=8.0)
    denoised = PlainSubscriber(asked.endpoints.denoised)
    refused: list[str] = []

    def ask_for_what_cannot_be(client: ControlClient) -> None:
        for fields in (
            {"model": "no-such-model"},
            {"model": str(damaged.path)},
            {"model": str(broken.path), "engine": "onnxruntime-cpu"},
            {"model": str(broken.path), "engine": "abacus"},
            {"model": "identity", "latency": -1},
        ):
            reply = client.ask("model", **fields)
            assert not reply.ok
            refused.append(reply.message)

    with Session(asked) as session:
        wait_for_frames(session, 20)
        pid = session.denoise_pid
        during(session, ask_for_what_cannot_be)
        wait_for_frames(session, 100)
        assert session.denoise_pid == pid
        session.stop()
        summary = session.run()
    assert (summary.dropped, summary.in_flight, summary.restarts) == ({}, 0, 0)
    assert lost(denoised.finish()) == 0
    assert models_of(denoised.headers) == ["gauss2d-ema"]
    for says, line in zip(("no-such-model", "damaged", "fragile", "abacus", "latency"), refused, strict=True):
        assert says in line
        assert "\n" not in line


def test_a_new_calibration_and_another_lookahead_begin_with_whole_windows_and_lose_no_frame() -> None:
    options = {"mode": "blob", "shape": [64, 64], "fps": 40.0}
    engine = {"model": "fast-simulated", "backend": "openvino-fp32", "threads": 1}
    asked = settings("synthetic", options, engine=engine, ring_s=8.0)
    usable("openvino-fp32")
    denoised = PlainSubscriber(asked.endpoints.denoised)
    with Session(asked) as session:
        wait_for_frames(session, 30)
        during(session, lambda client: done(client.ask("recalibrate")))
        wait_for_frames(session, 30)
        during(session, lambda client: done(client.ask("latency", latency="causal")))
        wait_for_frames(session, 30)
        assert session.ready is not None
        assert session.ready.latency_frames == 0
        session.stop()
        summary = session.run()
    assert (summary.error, summary.dropped, summary.in_flight) == ("", {}, 0)
    headers = denoised.finish()
    assert lost(headers) == 0
    assert len(list(groupby(header["norm"] for header in headers))) == 2
    whole = [header["complete"] for header in headers]
    # Only the first and the last frames of the series lack a part of their window.
    assert all(whole[10:-10])


def test_when_the_running_process_dies_while_another_warms_up_the_run_goes_on_and_the_request_is_refused() -> None:
    asked = settings("synthetic", CAMERA, engine=FILTER, ring_s=8.0)
    denoised = Listener(asked.endpoints.denoised, "denoised", numbered)
    answers: list[tuple[bool, str]] = []
    with Session(asked) as session:
        wait_for_frames(session, 40)
        session.change_engine(session.engine.model_copy(update={"model": "identity"}), "model identity", _into(answers))
        pid = session.denoise_pid
        assert pid is not None
        os.kill(pid, KILL)
        wait_for_frames(session, 200)
        assert session.denoise_pid != pid
        session.stop()
        summary = session.run()
    denoised.finish()
    assert [ok for ok, _ in answers] == [False]
    assert "died" in answers[0][1]
    assert (summary.error, summary.dropped, summary.in_flight, summary.restarts) == ("", {}, 0, 1)
    assert summary.ready.model == "gauss2d-ema"


def test_while_one_change_is_under_way_others_are_refused_and_when_its_process_dies_the_running_one_does_not_notice() -> (
    None
):
    asked = settings("synthetic", CAMERA, engine=FILTER)
    denoised = PlainSubscriber(asked.endpoints.denoised)
    answers: list[tuple[bool, str]] = []
    refused: list[str] = []
    others = {"model": {"model": "median"}, "latency": {"latency": "causal"}}
    with Session(asked) as session:
        wait_for_frames(session, 40)
        session.change_engine(session.engine.model_copy(update={"model": "identity"}), "model identity", _into(answers))
        during(session, lambda client: refused.extend(client.ask(r, **f).message for r, f in others.items()))
        (standby,) = [child.pid for child in session.children[2:]]
        assert standby is not None
        os.kill(standby, KILL)
        wait_for_frames(session, 100)
        session.stop()
        summary = session.run()
    assert refused == ["model identity is under way; ask again when it is done"] * 2
    assert [ok for ok, _ in answers] == [False]
    assert (summary.error, summary.dropped, summary.in_flight, summary.restarts) == ("", {}, 0, 0)
    assert lost(denoised.finish()) == 0


def test_a_lossless_run_changes_its_model_without_losing_a_frame() -> None:
    options = {"mode": "blob", "shape": [64, 64], "fps": 300.0, "live": False, "n_frames": 900}
    asked = settings("synthetic", options, engine=FILTER, policy="lossless", wait_for={"raw": 1, "denoised": 1})
    raw, denoised = PlainSubscriber(asked.endpoints.raw), PlainSubscriber(asked.endpoints.denoised)
    with Session(asked) as session:
        wait_for_frames(session, 40)
        during(session, lambda client: done(client.ask("model", model="identity")))
        summary = session.run()
    assert (summary.error, summary.delivered, summary.dropped) == ("", 900, {})
    for headers in (raw.finish(), denoised.finish()):
        assert [header["frame"] for header in headers] == list(range(900))
    assert models_of(denoised.headers) == ["gauss2d-ema", "identity"]


def _into(answers: list[tuple[bool, str]]) -> Answer:
    return lambda ok, line: answers.append((ok, line))
