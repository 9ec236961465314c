"""What tools/bench_gpu.py runs in processes of their own: exports, one network on one engine, one stream on one engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from bench_forms import Case, network_of
from pydantic import Field

from rtdenoise import bundle as bundles
from rtdenoise.config import Settings
from rtdenoise.engine.graph import Array
from rtdenoise.errors import EngineError
from rtdenoise.frame import Frame, FrameStamp

TORCH = "torch-fp16"
"""PyTorch in half precision, replayed as a CUDA graph."""
MOST_RUNS, MOST_S = 300, 1.5
"""Runs behind p50 and p99, and how long they may take together. Engineering choice."""
N_BURST = 50
"""Runs queued one behind the other for the throughput. Engineering choice."""
N_POOL = 16

Launch = Callable[[], None]


class Part(Settings):
    """One thing to measure. what: a method's network at the published width, random weights, or a bundle as a live stream.

    ahead: runs under way when a frame is pushed; see StreamingDenoiser.
    """

    what: Literal["network", "stream"]
    name: str
    engine: str
    side: int = 512
    ahead: int = 0

    def __str__(self) -> str:
        later = ", one run under way" if self.ahead else ""
        return f"{self.what} {self.name} on {self.engine}{later}"


class Figures(Settings):
    """ms: of a run of a network between launch and end, of `push` for a stream.  fps: frames per second one behind the other.

    frames_per_run: new frames that a run of the network serves.  worst_sd, rms_sd: distance from PyTorch fp32, in sd of it.
    """

    ms_p50: float
    ms_p99: float
    fps: float
    frames_per_run: int = 1
    worst_sd: float | None = Field(default=None)
    rms_sd: float | None = Field(default=None)


def export_network(name: str, folder: Path) -> None:
    """`<name>.fp32.onnx` and `<name>.fp16.onnx` of a method's window network."""
    from rtdenoise.export.to_onnx import HalfInside, to_onnx

    network = network_of(Case(name, 0))
    module, size = network.deploy().graphs["window"], network.window.size
    (folder / f"{name}.fp32.onnx").write_bytes(to_onnx(module, {"frames": size}, "denoised"))
    (folder / f"{name}.fp16.onnx").write_bytes(to_onnx(HalfInside(module), {"frames": size}, "denoised"))
    (folder / f"{name}.frames").write_text(f"{size} {network.window.hop} {len(network.window.emits)}")


def export_bundle(name: str, folder: Path) -> None:
    """A copy of a shipped bundle that has its graphs in half precision too."""
    from rtdenoise.export.pack import load_network
    from rtdenoise.export.to_onnx import HalfInside, StepHalfInside, step_to_onnx, to_onnx

    shipped = bundles.read(name)
    if shipped.has_graphs("fp16"):
        made = {}
    else:
        network = load_network(shipped)[1]
        deployed = network.deploy()
        window = HalfInside(deployed.graphs["window"])
        made = {"window": ("model.fp16.onnx", to_onnx(window, {"frames": network.window.size}, "denoised"))}
        if deployed.step is not None:
            step = StepHalfInside(deployed.graphs["step"])
            made["step"] = ("step.fp16.onnx", step_to_onnx(step, deployed.step))
    files = {file: (shipped.path / file).read_bytes() for file in shipped.manifest.checksums}
    variants = shipped.manifest.variants | ({"fp16": {role: file for role, (file, _) in made.items()}} if made else {})
    manifest = shipped.manifest.model_copy(update={"variants": variants})
    bundles.write(folder / name, manifest, files | dict(made.values()))


def measure(part: Part, folder: Path) -> Figures:
    """In a process of its own. Raises what the engine's library raises."""
    return _network(part, folder) if part.what == "network" else _stream(part, folder)


def timed(launch: Launch, wait: Launch, frames_per_run: int) -> Figures:
    """Of work that `launch` queues and `wait` waits for; both have run before."""
    costs = [_cost_ms(launch, wait) for _ in _until(MOST_RUNS, MOST_S)]
    n_burst = max(2, min(N_BURST, round(1e3 * MOST_S / max(float(np.median(costs)), 1e-3))))
    start = time.perf_counter()
    for _ in range(n_burst):
        launch()
    wait()
    fps = frames_per_run * n_burst / (time.perf_counter() - start)
    return Figures(
        ms_p50=float(np.percentile(costs, 50)),
        ms_p99=float(np.percentile(costs, 99)),
        fps=fps,
        frames_per_run=frames_per_run,
    )


def _network(part: Part, folder: Path) -> Figures:
    from rtdenoise.export.parity import probe_frames

    size, hop, n_out = map(int, (folder / f"{part.name}.frames").read_text().split())
    frames, out = probe_frames(size, (part.side, part.side)), np.empty((1, n_out, part.side, part.side), np.float32)
    wanted = folder / f"{part.name}-{part.side}.npy"
    if part.engine == TORCH:
        figures = _torch_network(part.name, frames, out, wanted, hop)
    else:
        figures = _engine_network(part.engine, folder / f"{part.name}.fp16.onnx", frames, out, hop)
    return _compared(figures, out, np.load(wanted)) if wanted.exists() else figures


def _torch_network(name: str, frames: Array, out: Array, wanted: Path, hop: int) -> Figures:
    """Leaves PyTorch's fp32 output for the other engines, made on the processor where it has no card."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    network = network_of(Case(name, frames.shape[-1]))
    card = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.inference_mode():
        given = torch.from_numpy(frames).to(card)
        np.save(wanted, network.to(card)(given).cpu().numpy())
        if card == "cpu":
            raise EngineError("this PyTorch was built without CUDA, or its CUDA is newer than the driver")
        module, static = network.deploy().graphs["window"].to(card).half(), given.half()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                module(static)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            denoised = module(static)
        figures = timed(graph.replay, torch.cuda.synchronize, hop)
        out[...] = denoised.float().cpu().numpy()
    return figures


def _engine_network(engine: str, path: Path, frames: Array, out: Array, hop: int) -> Figures:
    """On the card's own memory where the engine can, else from host memory and back."""
    from rtdenoise.engine.backends import open_runtime
    from rtdenoise.engine.device import DeviceRuntime

    runtime = open_runtime(engine)
    if not isinstance(runtime, DeviceRuntime):
        graph = runtime.compile(path, (frames.shape,))
        graph.run((frames,), out)
        return timed(lambda: graph.run((frames,), out), _nothing, hop)
    from rtdenoise.engine.card import Memory, replay

    card, memory = runtime.card, Memory(runtime.card)
    on_card = runtime.compile_on_device(path, (frames.shape,))
    addresses = memory.take(frames.nbytes), memory.take(out.nbytes)
    card.upload(addresses[0], frames)
    launch = replay(card, lambda: on_card.enqueue(addresses))
    figures = timed(launch, card.synchronize, hop)
    card.wait(card.fetch(out, addresses[1]))
    return figures


def _compared(figures: Figures, out: Array, wanted: Array) -> Figures:
    error = (out - wanted) / wanted.std()
    worst, rms = float(np.abs(error).max()), float(np.sqrt(np.square(error, dtype=np.float64).mean()))
    return figures.model_copy(update={"worst_sd": worst, "rms_sd": rms})


def _stream(part: Part, folder: Path) -> Figures:
    """uint16 in, float32 in host memory out, at the smallest hop, full quality."""
    from rtdenoise.engine.load import EngineChoice, EngineFactory
    from rtdenoise.normalize import calibrate
    from rtdenoise.stream import StreamingDenoiser

    shape, bundle = (part.side, part.side), folder / part.name
    factory = EngineFactory(EngineChoice(str(bundle), "auto" if part.engine == TORCH else part.engine), shape)
    if part.engine == TORCH:
        from torch_card import TorchRuntime

        factory = factory.over(TorchRuntime(bundle))
    pool = np.random.default_rng(0).poisson(300, (N_POOL, *shape)).astype(np.uint16)
    with factory.make() as engine:
        denoiser = StreamingDenoiser(engine, calibrate(list(pool)), shape, ahead=part.ahead)
        stream = _Pushes(denoiser, pool)
        stream.push(engine.window.size + 4 * engine.window.hop)
        costs = [stream.push(engine.window.hop) for _ in _until(20 * MOST_RUNS, 2 * MOST_S)]
    per_frame = np.array(costs) / engine.window.hop
    p50, p99 = np.percentile(costs, [50, 99])
    return Figures(ms_p50=p50, ms_p99=p99, fps=1e3 / per_frame.mean(), frames_per_run=engine.window.hop)


class _Pushes:
    """An endless series."""

    def __init__(self, denoiser: Any, pool: np.ndarray) -> None:
        self._denoiser, self._pool, self._n = denoiser, pool, 0

    def push(self, n: int) -> float:
        """ms for `n` frames and all that comes out meanwhile."""
        start = time.perf_counter_ns()
        for _ in range(n):
            frame = Frame(self._pool[self._n % N_POOL], FrameStamp("bench", self._n, self._n, 0))
            for _ in self._denoiser.push(frame):
                pass
            self._n += 1
        return (time.perf_counter_ns() - start) / 1e6


def _cost_ms(launch: Launch, wait: Launch) -> float:
    start = time.perf_counter_ns()
    launch()
    wait()
    return (time.perf_counter_ns() - start) / 1e6


def _until(n_most: int, most_s: float) -> Iterator[int]:
    """At least three."""
    start = time.perf_counter()
    for i in range(n_most):
        if i >= 3 and time.perf_counter() - start > most_s:
            return
        yield i


def _nothing() -> None:
    """It is done when it returns."""
