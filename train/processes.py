"""One run in several processes: each takes a part of every step, and together they take the steps that one alone would take.

    processes.join()
    batch, accumulation = processes.divide("train.sft", 16, 1)     # 8 rows a process where there are two
    answers = processes.spread(prompts, answer)                    # each answers a part, all get the whole
    processes.leave()                                              # the first goes on alone

Who is who stands in the environment (RANK, WORLD_SIZE), as torchrun, `accelerate launch` and `launch` write it. In one process all of
this does nothing.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import gcd
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils.data import RandomSampler, Sampler

from train import launch
from train.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Division(NamedTuple):
    """What one process takes of an effective batch: rows of a micro-batch, micro-batches of a step."""

    batch: int
    accumulation: int


def rank() -> int:
    """The number of this process; 0 is the one that writes and talks."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes this run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this process writes and talks."""
    return rank() == 0


def join() -> None:
    """Meet the other processes. Raises ConfigError where there are fewer GPUs than processes on this machine."""
    if count() == 1 or dist.is_initialized():
        return
    launch.end_with_starter()
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < gpus < here:
        raise ConfigError(f"--processes {here}: this machine has {gpus} GPUs, and each process takes one. Set --processes {gpus}.")
    PartialState(cpu=gpus == 0)


def leave() -> None:
    """Part from the other processes: what follows, one does alone."""
    if count() == 1:
        return
    dist.barrier()
    PartialState().destroy_process_group()
    PartialState._reset_state()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)


def wait() -> None:
    """Wait until all processes are here."""
    if count() > 1:
        dist.barrier()


def agree(ask: Callable[[], Any]) -> Any:
    """What the first process finds, for all of them."""
    if count() == 1:
        return ask()
    found = [ask() if first() else None]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def gather(value: Any) -> list[Any]:
    """The values of all processes, in their order."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, value)
    return found


def spread(items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]]) -> list[Result]:
    """Let each process work on a part of `items`; all get the results of all, in order."""
    if count() == 1:
        return list(work(items))
    results: list[Any] = [None] * len(items)
    for number, part in enumerate(gather(list(work(items[rank() :: count()])))):
        results[number :: count()] = part
    return results


def divide(where: str, batch: int, accumulation: int) -> Division:
    """Share an effective batch out, micro-batches first: so each stays what it was.

    Raises ConfigError where it does not come out even.
    """
    shared = gcd(accumulation, count())
    if batch % (count() // shared):
        raise ConfigError(
            f"{where}: a step of {batch} x {accumulation} rows (per_device_train_batch_size x gradient_accumulation_steps) cannot be "
            f"shared evenly by {count()} processes. Make it a multiple of {count()}, or set another --processes."
        )
    return Division(batch // (count() // shared), accumulation // shared)


class InStep:
    """A trainer (put before TRL's) whose processes see, step by step, the rows that one process would see.

    shared_by    by how many processes a micro-batch of the recipe is shared: see `divide`
    """

    shared_by: int = 1

    def micro_batch(self, number: int) -> int:
        """The recipe's micro-batch, counted over all processes, that this process's `number`-th one is a part of."""
        return number * (count() // self.shared_by) + rank() // self.shared_by

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """TRL's, over the batch of all processes, in the first one's order."""
        args = self.args  # type: ignore[attr-defined]
        own = args.per_device_train_batch_size
        args.per_device_train_batch_size = own * count()  # rows are grouped by length within so many steps of all processes
        try:
            sampler = super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        finally:
            args.per_device_train_batch_size = own
        # accelerate has one of its own in the place of a random one, and seeds it alike everywhere
        return sampler if count() == 1 or sampler is None or isinstance(sampler, RandomSampler) else Agreed(sampler)


class Agreed(Sampler[int]):
    """A sampler in the order that the first process draws: random numbers are no longer alike after dropout."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[int]:
        order: list[int] = agree(lambda: list(self._sampler))
        return iter(order)


def mean(value: float) -> float:
    """The mean of a number over all processes."""
    found: list[float] = gather(value)
    return sum(found) / len(found)


def sharded(net: Any) -> bool:
    """Whether each process holds a part of the weights only (FSDP2)."""
    return any(isinstance(module, FSDPModule) for module in net.modules())


@contextmanager
def whole(net: Any) -> Iterator[None]:
    """Hold all weights in each process for a while, so that each may generate as much as it has to."""
    parts = [module for module in net.modules() if isinstance(module, FSDPModule)]
    if not parts:
        yield
        return
    net.set_reshard_after_forward(False)
    for module in parts:
        module.unshard()
    try:
        yield
    finally:
        net.set_reshard_after_forward(True)
        net.set_reshard_after_forward(False, recurse=False)  # the outermost part is needed again at once
        for module in parts:
            module.reshard()


def gathered(net: Any) -> dict[str, torch.Tensor] | None:
    """The trained weights by name, put together from all processes (all must ask); None where each holds them whole."""
    if not sharded(net):
        return None
    full = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            full[name] = (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).detach().cpu()
    return full
