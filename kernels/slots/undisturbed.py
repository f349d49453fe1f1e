"""Run a model aside: afterwards its flags, its buffers and the random generators are what they were."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .graft import Graft
from .numbers import same


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Keep training flags, buffers (the running statistics of a BatchNorm) and every global generator of this process.

    Alphas are not touched, and a seed that is cut off meanwhile stays cut off.
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        if not isinstance(module, Graft)
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_meta and not buffer.is_inference()
    ]
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy is not None else None
    python_state = random.getstate()
    with torch.random.fork_rng(devices=_cuda_devices(model)):
        try:
            yield
        finally:
            random.setstate(python_state)
            if numpy is not None:
                numpy.random.set_state(numpy_state)
            with torch.no_grad():
                for module, name, buffer, before in buffers:
                    if not same(buffer, before):  # batch_norm does not count up the version of what it writes
                        buffer.copy_(before)
                    module._buffers[name] = buffer
            for module, training in flags:
                module.training = training


def _cuda_devices(model: nn.Module) -> list[int]:
    tensors = [*model.parameters(), *model.buffers()]
    return sorted({tensor.device.index for tensor in tensors if tensor.device.type == "cuda"})
