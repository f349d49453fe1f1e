"""See what layers return, at the lowest price that torch allows, without leaving a trace in the model.

A forward hook sends each call of a module down torch's slow path, and is pickled with the model. torch keeps a slot
in each module for a replacement of its call (made for `Module.compile`), which costs one more function call and is
left out of pickles and copies. We fill it only for the steps that are measured.
"""

import sys
import weakref
from _thread import get_ident
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

_SLOT = "_compiled_call_impl"


class Outputs(Protocol):
    """What takes the outputs of the layers of one device."""

    waiting: list[tuple[int, Any]]
    at_once: list[bool]

    def put_now(self, index: int, output: object, *, again: bool = False) -> None:
        """Take an output before anything else happens to it."""

    def flush(self) -> None:
        """Finish with the outputs that wait: the forward pass has returned."""

    def drop(self) -> None:
        """Forget the outputs that wait: the forward pass has failed."""


Ref = weakref.ref[nn.Module]


class Tap:
    """One watcher's place in the slot of one module. Several watchers of a module stand behind one another."""

    def __init__(self, module: nn.Module, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Prepare; `make` returns the replacement of the call, given what calls the module itself."""
        self._ref = weakref.ref(module)
        self._make = make
        self._alone = make(type(module)._call_impl)
        self._alone.__dict__["taps"] = (self,)

    def open(self) -> None:
        """Take a place, unless somebody else's replacement is there."""
        module = self._ref()
        if module is not None:
            there = module.__dict__.get(_SLOT)
            if there is None:
                module.__dict__[_SLOT] = self._alone
            elif taps := getattr(there, "taps", None):
                _fill(module, (*taps, self))

    def close(self) -> None:
        """Leave the place."""
        module = self._ref()
        if module is not None:
            there = module.__dict__.get(_SLOT)
            if there is self._alone:
                del module.__dict__[_SLOT]
            elif taps := getattr(there, "taps", None):
                _fill(module, tuple(tap for tap in taps if tap is not self))


def _fill(module: nn.Module, taps: tuple[Tap, ...]) -> None:
    call: Callable[..., Any] = taps[0]._alone
    for tap in taps[1:]:
        call = tap._make(_without_module(call))
    if len(taps) > 1:
        call.__dict__["taps"] = taps
    module.__dict__[_SLOT] = call


def _without_module(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda module, *args, **kwargs: call(*args, **kwargs)


class Calls:
    """Watches the calls of layers while armed. `failed` is told of an exception; nothing is ever raised."""

    def __init__(
        self,
        model: nn.Module,
        targets: Sequence[tuple[nn.Module, Outputs, int]],
        failed: Callable[[Exception], None],
    ) -> None:
        """Prepare the layers in `targets` (module, who takes its outputs, its number there)."""
        self._failed = failed
        self._model = model_ref = weakref.ref(model)
        self._thread = get_ident()
        self._inside = False  # within a training forward pass of the model
        self._muted = False  # within any other forward pass of the model
        self._armed = False
        self._outputs = list({id(outputs): outputs for _, outputs, _ in targets}.values())
        self._taps: list[Tap] = []
        # Inside a compiled or replicated module torch would trace or copy our slot: its layers are not seen.
        closed = {id(inner) for module in model.modules() if _is_replaced(module) for inner in module.modules()}
        own = next(((outputs, index) for module, outputs, index in targets if module is model), None)
        if id(model) not in closed:
            self._taps.append(Tap(model, partial(self._root_call, model_ref, own)))
        for module, outputs, index in targets:
            if module is not model and id(module) not in closed:
                self._taps.append(Tap(module, partial(self._layer_call, weakref.ref(module), outputs, index)))

    def arm(self) -> None:
        """See the calls from now on."""
        self._thread = get_ident()
        if not self._armed:
            self._armed = True
            for tap in self._taps:
                tap.open()

    def disarm(self) -> None:
        """Leave the modules as they were."""
        if self._armed:
            self._armed = False
            for tap in self._taps:
                tap.close()

    def _layer_call(self, ref: Ref, outputs: Outputs, index: int, run: Callable[..., Any]) -> Callable[..., Any]:
        wait, at_once = outputs.waiting.append, outputs.at_once
        compiling, gradients, thread = torch.compiler.is_compiling, torch.is_grad_enabled, get_ident

        def call(*args: Any, **kwargs: Any) -> Any:
            if compiling():
                return run(ref(), *args, **kwargs)
            if thread() != self._thread:
                return run(_caller(), *args, **kwargs)
            output = run(ref(), *args, **kwargs)
            if gradients():
                try:
                    if not self._inside:
                        self._outside(outputs, index, output)
                    elif at_once[index]:
                        outputs.put_now(index, output)
                    else:
                        wait((index, output))
                except Exception as error:  # noqa: BLE001 - never into training
                    self._failed(error)
            return output

        return call

    def _root_call(self, ref: Ref, own: tuple[Outputs, int] | None, run: Callable[..., Any]) -> Callable[..., Any]:
        compiling, tracing = torch.compiler.is_compiling, torch._C._get_tracing_state

        def call(*args: Any, **kwargs: Any) -> Any:
            if compiling():
                return run(ref(), *args, **kwargs)
            if get_ident() != self._thread or self._inside or self._muted:
                return run(_caller(), *args, **kwargs)
            model = ref()
            training = model is not None and model.training and torch.is_grad_enabled() and not tracing()
            self._inside, self._muted = training, not training
            try:
                output = run(model, *args, **kwargs)
            except BaseException:
                self._finish(None, None, returned=False)
                raise
            self._finish(own if training else None, output, returned=True)
            return output

        return call

    def _finish(self, own: tuple[Outputs, int] | None, output: object, *, returned: bool) -> None:
        self._inside = self._muted = False
        try:
            if own is not None:
                own[0].put_now(own[1], output)
            with np.errstate(all="ignore"):
                for outputs in self._outputs:
                    if returned:
                        outputs.flush()
                    else:
                        outputs.drop()
        except Exception as error:  # noqa: BLE001 - never into training
            self._failed(error)

    def _outside(self, outputs: Outputs, index: int, output: object) -> None:
        """Take the output of a layer that is called by itself: a part of the model used alone, or a recomputation."""
        model = self._model()
        if not self._muted and model is not None and model.training:
            outputs.put_now(index, output, again=torch._C._current_graph_task_id() != -1)


def _is_replaced(module: nn.Module) -> bool:
    there = module.__dict__.get(_SLOT)
    return (
        (there is not None and not hasattr(there, "taps"))
        or type(module).__name__ == "OptimizedModule"
        or isinstance(module, nn.DataParallel | torch.jit.ScriptModule)
    )


def _caller() -> nn.Module:
    """Return the module that torch is calling: a replica shares our slot but is another module."""
    frame = sys._getframe(2)
    while not isinstance(module := frame.f_locals.get("self"), nn.Module):  # past the watchers in front of this one
        assert frame.f_back is not None
        frame = frame.f_back
    return module
