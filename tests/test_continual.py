"""The 3-D U-Net run as a stream: the numbers of one pass over the movie, whatever the series, at the work of one pass."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rtdenoise.bundle import Bundle
from rtdenoise.engine.backends import taking
from rtdenoise.engine.load import open_engine
from rtdenoise.errors import ConfigError, EngineError, MissingExtraError
from rtdenoise.export import BundleFacts, Target, export_bundle
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.methods import base
from rtdenoise.methods.base import Network
from rtdenoise.nn.continual import AROUND, EMITS, NEWEST, WINDOW, ContinualUNet3d, Join, states_of
from rtdenoise.nn.unet3d import UNet3d
from rtdenoise.normalize import Normalization
from rtdenoise.ring import bounce
from rtdenoise.stream import StreamingDenoiser

Frames = NDArray[np.float32]
EXACT = 1e-4
"""Of the output's sd: fp32, summed in another order."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Network]:
    method = base.load("deepcadrt")
    torch.manual_seed(0)
    network = method.network(width=4, frames=16).eval()
    facts = BundleFacts("unet", Normalization(0.0, 1.0))
    bundle, _ = export_bundle(
        method, network, tmp_path_factory.mktemp("unet") / "bundle", facts, Target(shape=(24, 32))
    )
    return bundle, network


def noise(n_frames: int, *shape: int, seed: int = 0) -> Frames:
    return np.random.default_rng(seed).standard_normal((n_frames, *shape)).astype(np.float32)


def one_pass(network: Network, movie: Frames) -> Frames:
    """The network over the whole movie at once, mirrored at its ends; poolings begin two frames before frame 0."""
    n_frames = len(movie)
    around = [bounce(i, n_frames) for i in range(-50, n_frames + 62 - (n_frames + 112) % 8)]
    with torch.no_grad():
        return network(torch.from_numpy(movie[around])[None])[0, 50 : 50 + n_frames].numpy()


def streamed(bundle: Bundle, series: list[Frames], backend: str = "onnxruntime-cpu", dropped: int = 0) -> list[Frames]:
    """Several series through one denoiser; dropped: frames lost between them, 0 for a new series each time."""
    with open_engine(bundle.path, shape=series[0].shape[1:], backend=backend, threads=1) as engine:
        denoiser = StreamingDenoiser(engine, Normalization(0.0, 1.0), series[0].shape[1:])
        outputs: list[list[Frames]] = []
        number = itertools.count()
        for i_series, movie in enumerate(series):
            for k, pixels in enumerate(movie):
                lost = dropped if i_series and not k else 0
                stamp = FrameStamp("one" if dropped else str(i_series), n := next(number), n, 0, dropped=lost)
                outputs.append([out.pixels.copy() for out in denoiser.push(Frame(pixels, stamp))])
        outputs.append([out.pixels.copy() for out in denoiser.flush()])
    together = np.array(list(itertools.chain.from_iterable(outputs)))
    return np.split(together, np.cumsum([len(movie) for movie in series])[:-1])


def test_a_step_gives_what_one_pass_gives_to_the_last_bit_of_a_double() -> None:
    torch.manual_seed(1)
    unet = UNet3d(3).double().eval()
    for bias in (p for p in unet.parameters() if p.dim() == 1):
        torch.nn.init.uniform_(
            bias, -0.3, 0.3
        )  # what lies before the first frame must be zeros, not what biases make of them
    movie = torch.from_numpy(noise(152, 16, 24)).double()[None]
    states = [torch.zeros(1, s.frames, 16 >> s.level, 24 >> s.level, s.maps).double() for s in states_of(3)]
    step = ContinualUNet3d(unet).double()
    with torch.no_grad():
        whole = unet(movie[:, None])[0, 0]
        for stop in range(NEWEST[1] - NEWEST[0] + 2, 153, 8):
            frames = [movie[:, max(0, stop - WINDOW + first) :][:, : last - first] for first, last in (NEWEST, AROUND)]
            out, *states = step(*frames, *states)
            if (target := stop - WINDOW + EMITS.start) >= 50:
                torch.testing.assert_close(out[0], whole[target : target + 8], rtol=0, atol=1e-12)
    assert target == 98


def test_a_transposed_convolution_is_the_convolution_after_doubling() -> None:
    torch.manual_seed(2)
    decoder = UNet3d(2).decoders[2]
    skip, small = torch.randn(1, 2, 10, 8, 16), torch.randn(1, 4, 5, 4, 8)
    with torch.no_grad():
        doubled = torch.nn.functional.interpolate(small, scale_factor=2.0)
        plain = torch.relu(decoder.first(torch.cat([skip, doubled], 1)))  # type: ignore[operator, union-attr]
        joined = Join(decoder)(skip, small)  # type: ignore[arg-type]
    torch.testing.assert_close(joined, plain[:, :, 1:9], rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_series_of_any_length_come_out_as_in_one_pass(exported: tuple[Bundle, Network], seed: int) -> None:
    bundle, network = exported
    lengths = np.random.default_rng(seed).integers(1, 140, size=3)
    series = [noise(n, 16, 24, seed=seed + i) for i, n in enumerate(lengths)]
    for given, movie in zip(streamed(bundle, series, dropped=seed % 2), series, strict=True):
        wanted = one_pass(network, movie)
        assert given.shape == wanted.shape
        np.testing.assert_allclose(given, wanted, rtol=0, atol=EXACT * wanted.std())


@pytest.mark.parametrize("shape", [(17, 31), (8, 8), (40, 23)], ids=str)
def test_frames_of_any_size_come_out_as_in_one_pass(exported: tuple[Bundle, Network], shape: tuple[int, int]) -> None:
    bundle, network = exported
    movie = noise(70, *shape)
    wanted = one_pass(network, movie)
    np.testing.assert_allclose(streamed(bundle, [movie])[0], wanted, rtol=0, atol=EXACT * wanted.std())


@pytest.mark.parametrize("backend", taking("fp32"))
def test_every_engine_carries_the_states(exported: tuple[Bundle, Network], backend: str) -> None:
    bundle, network = exported
    movie = noise(90, 24, 24)
    try:
        given = streamed(bundle, [movie], backend)[0]
    except (MissingExtraError, EngineError) as error:
        pytest.skip(f"{backend} cannot run here: {error}")
    wanted = one_pass(network, movie)
    if backend.endswith("bf16"):
        assert np.sqrt(np.square(given - wanted).mean()) < 0.03 * wanted.std()  # bf16 has 8 bits
    else:
        np.testing.assert_allclose(given, wanted, rtol=0, atol=EXACT * wanted.std())


def test_a_window_that_does_not_follow_the_last_one_is_run_from_its_beginning(exported: tuple[Bundle, Network]) -> None:
    bundle, _ = exported
    movie = noise(200, 16, 16)
    with open_engine(bundle.path, shape=(16, 16), backend="onnxruntime-cpu", threads=1) as engine:
        first, again = engine.window.emits[0], engine.window.size

        def run(start: int) -> Frames:
            return engine.run(movie[start : start + again], start, start + first, 8).copy()

        run(0)
        followed, jumped = run(8), run(72)
        engine.reset()
        np.testing.assert_allclose(run(8), followed, rtol=0, atol=1e-5)
        np.testing.assert_allclose(run(72), jumped, rtol=0, atol=1e-5)


def test_states_are_inputs_and_outputs_of_the_exported_graph(exported: tuple[Bundle, Network]) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is part of the train extra")
    bundle, _ = exported
    graph, step = onnx.load(bundle.graph("step")).graph, bundle.manifest.step
    assert step is not None
    names = [f"state_{i}" for i in range(len(step.states))]
    assert [i.name for i in graph.input] == ["frames_0", "frames_1", *names]
    assert [o.name for o in graph.output] == ["denoised", *(f"next_{name}" for name in names)]


def test_a_stream_waits_44_to_51_frames_and_takes_no_other_hop(exported: tuple[Bundle, Network]) -> None:
    path = exported[0].path
    with open_engine(path, shape=(16, 16), threads=1) as engine:
        assert (engine.window.lookahead, engine.window.latency_frames) == (44, 51)
    with pytest.raises(ConfigError, match="steps of 8 frames"):
        open_engine(path, shape=(16, 16), hop=4, threads=1)


def test_a_network_that_resizes_has_no_step() -> None:
    network = base.load("deepcadrt").network(width=4, frames=16, fit="resize")
    assert network.deploy().step is None
