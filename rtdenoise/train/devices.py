"""Where a training runs: device, precision, and the processes that share its batches, by Lightning Fabric.

Every process draws the same batch of crops and takes every n-th of them, gradients are averaged, so the number of
processes does not change what is learned beyond the task's own chance. Process 0 alone prints and writes.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.nn.parallel import DistributedDataParallel

from rtdenoise import errors, machine
from rtdenoise.errors import ConfigError
from rtdenoise.train.recipe import TrainSettings

# Here, not in a function: a spawned process imports this, and then Fabric greets before anything of ours is called.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def connect(settings: TrainSettings) -> Fabric:
    """What the settings ask for, on this machine; under torchrun the number of processes is torchrun's.

    Raises ConfigError for a device or precision that is not there, and for a batch that cannot be shared.
    """
    accelerator = _accelerator(settings)
    local, nodes = _launched_by_torchrun() if _under_torchrun() else (settings.devices, 1)
    if accelerator == "cuda" and local > torch.cuda.device_count():
        raise ConfigError(f"train.devices is {local}, but torch sees {torch.cuda.device_count()} GPUs")
    if settings.batch % (local * nodes):
        raise ConfigError(f"train.batch {settings.batch} cannot be shared by {local * nodes} processes evenly")
    strategy = _data_parallel() if local * nodes > 1 else "auto"
    precision: Any = "32-true" if settings.precision == "32" else settings.precision
    return Fabric(accelerator=accelerator, strategy=strategy, devices=local, num_nodes=nodes, precision=precision)


def launch(fabric: Fabric, work: Callable[..., None], *arguments: object) -> None:
    """Call `work(fabric, *arguments)` in every process. Raises what a process raised."""
    try:
        fabric.launch(work, *arguments)
    except ProcessRaisedException as error:
        kind, _, message = str(error).strip().splitlines()[-1].partition(": ")
        if kind.startswith(f"{errors.__name__}."):
            raise errors.RtDenoiseError(message) from None
        raise


def average(fabric: Fabric, module: nn.Module) -> None:
    """Make the running statistics of `module` in every process their mean; each has seen crops of its own."""
    if fabric.world_size == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            fabric.all_reduce(buffer)


def name(fabric: Fabric) -> str:
    """Of the processor or GPU that process 0 computes on."""
    return torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else machine.cpu_name()


def _accelerator(settings: TrainSettings) -> str:
    there = torch.cuda.is_available()
    if settings.device == "cuda" and not there:
        raise ConfigError('train.device is "cuda", but torch sees no GPU; install a CUDA build of torch or say "cpu"')
    chosen = ("cuda" if there else "cpu") if settings.device == "auto" else settings.device
    if chosen == "cpu" and settings.precision == "16-mixed":
        raise ConfigError('train.precision "16-mixed" needs a GPU; on a CPU say "32" or "bf16-mixed"')
    return chosen


def _under_torchrun() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


def _launched_by_torchrun() -> tuple[int, int]:
    """Processes on each machine, and machines."""
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return local, int(os.environ["WORLD_SIZE"]) // local


def _data_parallel() -> DDPStrategy:
    if sys.platform == "win32":
        os.environ.setdefault("USE_LIBUV", "0")  # torch's builds for Windows may lack it, and ask for it all the same
    # Running statistics are averaged now and then (`average`). Sending them before every forward, as DDP would, alters
    # them in place between the two forwards that some tasks need for one loss.
    known = inspect.signature(DistributedDataParallel).parameters
    renamed = "forward_sync_buffers"  # in torch 2.13
    options: Any = {renamed if renamed in known else "broadcast_buffers": False}
    return DDPStrategy(start_method="popen" if _under_torchrun() else "spawn", **options)
