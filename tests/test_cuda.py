"""The card behind the Device protocol: what is taken goes back, recorded work replays, and every error is one line."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from rtdenoise import machine
from rtdenoise.engine.cuda import CudaDevice, require_driver
from rtdenoise.engine.device import Device
from rtdenoise.errors import EngineError
from tests.host_cuda import HostCuda, Status


@pytest.fixture
def cuda() -> HostCuda:
    return HostCuda()


def test_a_frame_goes_to_the_card_and_comes_home(cuda: HostCuda) -> None:
    card: Device = CudaDevice(cuda)
    up, home = card.pinned((3, 5), np.float32), card.pinned((3, 5), np.float32)
    up[...] = np.arange(15).reshape(3, 5)
    there, second = card.alloc(up.nbytes), card.alloc(up.nbytes)
    card.upload(there, up)
    card.copy(second, there, up.nbytes)
    card.clear(second, 5 * up.itemsize)
    card.wait(card.fetch(home, second))
    np.testing.assert_array_equal(home, np.r_[np.zeros(5), np.arange(5, 15)].reshape(3, 5).astype(np.float32))


def test_a_copy_home_waits_for_the_work_before_it_and_holds_what_comes_after_only_when_asked(cuda: HostCuda) -> None:
    card = CudaDevice(cuda)
    home, address = card.pinned((4,), np.uint8), card.alloc(4)
    cuda.calls.clear()
    ticket = card.fetch(home, address)
    assert cuda.calls == ["cudaEventRecord", "cudaStreamWaitEvent", "cudaMemcpyAsync", "cudaEventRecord"]
    card.hold(ticket)
    assert cuda.calls[4:] == ["cudaStreamWaitEvent"]


def test_recorded_work_runs_with_every_launch_and_not_before(cuda: HostCuda) -> None:
    card = CudaDevice(cuda)
    a, b = card.alloc(8), card.alloc(8)
    home, values = card.pinned((8,), np.uint8), card.pinned((8,), np.uint8)
    card.clear(b, 8)
    launch = card.captured(lambda: card.copy(b, a, 8))
    for value in (3, 4):
        card.wait(card.fetch(home, b))
        assert home[0] != value
        values[...] = value
        card.upload(a, values)
        launch()
        card.wait(card.fetch(home, b))
        assert home[0] == value


def test_a_recording_that_fails_leaves_the_stream_usable(cuda: HostCuda) -> None:
    card = CudaDevice(cuda)

    def fails() -> None:
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        card.captured(fails)
    address = card.alloc(4)
    card.captured(lambda: card.clear(address, 4))()
    assert cuda.taken["graph"] == 0


def test_a_thousand_cards_leave_nothing_behind(cuda: HostCuda) -> None:
    for _ in range(1000):
        card = CudaDevice(cuda)
        address = card.alloc(64)
        array = card.pinned((4, 4), np.float32)
        launch = card.captured(lambda card=card, address=address: card.clear(address, 64))
        launch()
        del card, launch, array
    gc.collect()
    assert not any(cuda.taken.values())
    assert cuda.in_use == 0


def test_closing_gives_everything_back_at_once_and_twice_is_no_harm(cuda: HostCuda) -> None:
    card = CudaDevice(cuda)
    address = card.alloc(64)
    card.close()
    card.close()
    card.free(address)
    assert not any(cuda.taken.values())


def test_host_memory_lives_as_long_as_its_last_view(cuda: HostCuda) -> None:
    card = CudaDevice(cuda)
    view = card.pinned((4, 6), np.float32)[1:, ::2]
    card.close()
    del card
    view[...] = 7.0
    assert cuda.taken["pinned"] == 1
    del view
    assert cuda.taken["pinned"] == 0


def test_out_of_memory_is_one_line_that_says_how_much_there_is_and_what_to_do() -> None:
    card = CudaDevice(HostCuda(room=64 << 20))
    card.alloc(16 << 20)
    with pytest.raises(EngineError) as refused:
        card.alloc(100 << 20)
    assert str(refused.value) == (
        "Host card: out of memory (cudaErrorMemoryAllocation) for 100 MiB, 48 of 64 MiB are free; "
        "close other programs on the card, or use a smaller frame or model"
    )
    card.alloc(48 << 20)


def test_an_error_of_the_card_is_one_line_with_its_name(cuda: HostCuda) -> None:
    card = CudaDevice(cuda)
    cuda.fails["cudaStreamSynchronize"] = Status.cudaErrorIllegalAddress
    with pytest.raises(
        EngineError, match=r"^Host card: cudaStreamSynchronize: cudaErrorIllegalAddress: an illegal memory"
    ):
        card.synchronize()


@pytest.mark.skipif(machine.cuda_driver() is not None, reason="there is a driver here, so CUDA refuses nothing")
def test_without_a_driver_cuda_s_own_refusal_is_one_line() -> None:
    pytest.importorskip(
        "cuda.bindings.runtime", reason="cuda-bindings is not installed: it has no wheel for this system"
    )
    with pytest.raises(EngineError, match=r"^the card: cuda\w+: cudaError\w+: [^\n]+$"):
        CudaDevice()
    with pytest.raises(EngineError, match=r"^no NVIDIA driver with a card here; use --engine auto"):
        require_driver()
