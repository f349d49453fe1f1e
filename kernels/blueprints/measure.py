"""What is true of a blueprint once it is built: parameters, operations, and the time that it takes here."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

from morphogen.schemas import BlueprintMeasured

from .blueprint import Blueprint, address
from .building import build
from .costs import fixed
from .errors import MissingExtra
from .ops import Shape
from .timing import quietest, torch_yardstick

try:
    import torch
    from torch import nn
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode
except ImportError as missing:
    raise MissingExtra("measuring needs torch: pip install 'morphogen[adapt]'") from missing


_least: dict[int, float] = {}  # by number of threads: the least that the yardstick took in this process


def measured(
    blueprint: Blueprint,
    *,
    request: str | None = None,
    batch: int = 64,
    length: int | None = None,
    device: str = "cpu",
) -> BlueprintMeasured:
    """Build a blueprint, count, time it, and return what was found as an event; a failure is one of its facts.

    Args:
        blueprint: What to measure.
        request: The request that it was proposed for.
        batch: Samples in one forward pass.
        length: Of a sequence whose length is open.
        device: Where to run.
    """
    name = address(blueprint)
    try:
        module = build(blueprint, seed=0, zero_last=False, device=device)
        shape = fixed(blueprint.inputs, length, blueprint)
        return BlueprintMeasured(
            blueprint=name,
            built=True,
            request=request,
            params=sum(weight.numel() for weight in module.parameters()),
            flops=counted_flops(module, shape, device=device),
            latency_ns=measure_latency(module, shape, batch=batch, device=device),
            batch=batch,
            device=device,
        )
    except Exception as error:  # noqa: BLE001 whatever it is, it is what was measured
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        return BlueprintMeasured(blueprint=name, built=False, request=request, error=reason, batch=batch, device=device)


def counted_flops(module: nn.Module, shape: Shape, *, device: str = "cpu") -> int:
    """Return the operations of a forward pass of one sample, counted by torch as it runs.

    Attention is run as plain matrix products meanwhile: torch's counter does not know the fused one of the CPU.
    """
    x = _input(shape, 1, device, module)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(x)
    finally:
        module.train(was_training)
    return int(counter.get_total_flops())


def measure_latency(
    module: nn.Module, shape: Shape, *, batch: int = 64, device: str = "cpu", rounds: int = 9, block_ns: int = 400_000
) -> int:
    """Return the nanoseconds of one forward pass without gradients; see `measure_latencies`."""
    return measure_latencies([(module, shape)], batch=batch, device=device, rounds=rounds, block_ns=block_ns)[0]


def measure_latencies(
    modules: Sequence[tuple[nn.Module, Shape]],
    *,
    batch: int = 64,
    device: str = "cpu",
    rounds: int = 9,
    block_ns: int = 400_000,
) -> list[int]:
    """Return the nanoseconds of one forward pass of each module: the median of a block of passes, of its quietest block.

    Neighbours on the machine only ever add time, so the quietest of `rounds` blocks is nearest to the machine's own; on a
    CPU a yardstick tells which were quiet, and there are more rounds for a module that had none (see `timing`). The
    modules take turns, so that a busy second spoils one block of each and not all blocks of one. A block is as many passes
    as fit into `block_ns`. Where torch has one thread on the CPU, what counts is that thread's processor time, which
    is nothing while it waits for a core; elsewhere it is the time on the wall.
    """
    cuda = torch.device(device).type == "cuda"
    wait: Callable[[], None] = torch.cuda.synchronize if cuda else _nothing
    clock = time.thread_time_ns if not cuda and torch.get_num_threads() == 1 else time.perf_counter_ns

    def passes(module: nn.Module, x: torch.Tensor, count: int) -> list[int]:
        times = []
        for _ in range(count):
            began = clock()
            module(x)
            wait()
            times.append(clock() - began)
        return times

    def block(module: nn.Module, shape: Shape) -> float:
        module.eval()
        x = _input(shape, batch, device, module)
        first = passes(module, x, 3)[-1]
        return statistics.median(passes(module, x, max(1, min(200, block_ns // max(1, first)))))

    blocks = [partial(block, module, shape) for module, shape in modules]
    was_training = [module.training for module, _ in modules]
    torch.empty(
        24 << 20, dtype=torch.uint8
    )  # teaches the C library to keep freed memory, as it does once training runs
    try:
        with torch.no_grad():
            if torch.device(device).type == "cpu":
                threads = torch.get_num_threads()
                found, _least[threads] = quietest(
                    blocks, torch_yardstick(clock), rounds=rounds, least=_least.get(threads, math.inf)
                )
                return found
            turns = [[one() for one in blocks] for _ in range(rounds)]
            return [max(1, round(min(each))) for each in zip(*turns, strict=True)]
    finally:
        for (module, _), training in zip(modules, was_training, strict=True):
            module.train(training)


def _input(shape: Shape, batch: int, device: str, module: nn.Module) -> torch.Tensor:
    weight = next((value for value in module.parameters() if value.is_floating_point()), None)
    size = (batch, *(extent or 1 for extent in shape))
    x = torch.linspace(-2, 2, math.prod(size)).reshape(size)
    return x.to(device=device, dtype=None if weight is None else weight.dtype)


def _nothing() -> None:
    """Wait for nothing: the CPU has done its work when the call returns."""
