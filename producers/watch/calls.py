"""See what layers return, at the lowest price that torch allows, without leaving a trace in the model.

A forward hook sends each call of a module down torch's slow path, and is pickled with the model. torch keeps a slot
in each module for a replacement of its call (made for `Module.compile`), which costs one more function call. We fill
it only for the steps that are measured, by what turns into nothing in copies and pickles: most modules leave the slot
out of theirs, but those that know a way of their own (RNNs, parametrized ones) need not. The slot is not public: where
a version of torch has none, forward hooks do the same at a higher price.
"""

import sys
import weakref
from _thread import get_ident
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, Self

import torch
from torch import nn

_SLOT = "_compiled_call_impl"
_HAS_SLOT = hasattr(nn.Module, _SLOT)


class Outputs(Protocol):
    """What takes the outputs of the layers of one device."""

    waiting: list[tuple[int, Any]]
    at_once: list[bool]

    def reader(self, index: int) -> Callable[[object], bool] | None:
        """Return what reads the usual output of a layer at once and says whether it could, None where nothing does."""

    def put_now(self, index: int, output: object, *, again: bool = False) -> None:
        """Take an output before anything else happens to it."""

    def flush(self) -> None:
        """Finish with the outputs that wait: the forward pass has returned."""

    def drop(self) -> None:
        """Forget the outputs that wait: the forward pass has failed."""


Ref = weakref.ref[nn.Module]
Call = Callable[..., Any]


class Place(partial[Any]):
    """What stands in the slot: as cheap as the function that it calls, and None in every copy and pickle."""

    def __init__(self, call: Call, taps: "tuple[Tap, ...]") -> None:
        """Stand for `taps`, of which the last is asked first."""
        self.taps = taps

    def __new__(cls, call: Call, taps: "tuple[Tap, ...]") -> Self:
        """Take no argument on."""
        return super().__new__(cls, call)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


class Tap:
    """One watcher's place in the slot of one module. Several watchers of a module stand behind one another."""

    def __init__(self, module: nn.Module, make: Callable[[Call], Call]) -> None:
        """Prepare; `make` returns the replacement of the call, given what calls the module itself."""
        self._ref = weakref.ref(module)
        self._make = make
        self._plain = type(module)._call_impl
        self._careful = _copies_in_its_own_way(type(module))
        self._alone = Place(self._before(self._plain), (self,))

    def _before(self, run: Call) -> Call:
        """Return what takes the calls before `run`, which calls the module that it is given."""
        call = self._make(run)
        return _for_itself(self._ref, self._plain, call) if self._careful else call

    def open(self) -> None:
        """Take a place, unless somebody else's replacement is there."""
        module = self._ref()
        if module is not None:
            there = module.__dict__.get(_SLOT)
            if there is None:
                module.__dict__[_SLOT] = self._alone
            elif isinstance(there, Place):
                _fill(module, (*there.taps, self))

    def close(self) -> None:
        """Leave the place."""
        module = self._ref()
        if module is not None:
            there = module.__dict__.get(_SLOT)
            if there is self._alone:
                del module.__dict__[_SLOT]
            elif isinstance(there, Place):
                _fill(module, tuple(tap for tap in there.taps if tap is not self))


class HookTap:
    """One watcher's hooks on one module, for a torch without the slot. In pickles and copies they do nothing."""

    def __init__(
        self, module: nn.Module, after: Callable[..., None], before: Callable[..., None] | None = None
    ) -> None:
        self._ref = weakref.ref(module)
        self._after, self._before = Hook(after), None if before is None else Hook(before)
        self._handles: list[Any] = []

    def open(self) -> None:
        """Hang in the hooks."""
        module = self._ref()
        if module is not None:
            if self._before is not None:
                self._handles.append(module.register_forward_pre_hook(self._before))
            self._handles.append(module.register_forward_hook(self._after, always_call=self._before is not None))

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class Hook:
    """A hook that is left behind when its module is copied or pickled."""

    def __init__(self, act: Callable[..., None] | None = None) -> None:
        self._act = act

    def __call__(self, *args: Any) -> None:  # noqa: D102
        if self._act is not None:
            self._act(*args)

    def __reduce__(self) -> tuple[type["Hook"], tuple[()]]:
        return Hook, ()


def _fill(module: nn.Module, taps: tuple[Tap, ...]) -> None:
    place = taps[0]._alone
    for count, tap in enumerate(taps[1:], start=2):
        place = Place(tap._before(_without_module(place)), taps[:count])
    module.__dict__[_SLOT] = place


def _without_module(call: Call) -> Call:
    return lambda module, *args, **kwargs: call(*args, **kwargs)


def _copies_in_its_own_way(kind: type[nn.Module]) -> bool:
    """Say whether a shallow copy of such a module may share its slot: torch's own way of copying leaves it out."""
    return any(
        getattr(kind, way, None) is not getattr(nn.Module, way, None)
        for way in ("__getstate__", "__reduce__", "__reduce_ex__", "__copy__", "__deepcopy__")
    )


def _for_itself(ref: Ref, run: Call, call: Call) -> Call:
    """Return `call` for the module itself; a copy that shares its slot calls itself, and shares it no longer."""
    traced = torch.compiler.is_dynamo_compiling

    def own_call(*args: Any, **kwargs: Any) -> Any:
        if traced() or (module := _caller()) is ref():
            return call(*args, **kwargs)
        module.__dict__.pop(_SLOT, None)
        return run(module, *args, **kwargs)

    return own_call


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
        self._inside = 0  # the thread that is within a training forward pass of the model, 0 where none is
        self._muted = False  # within any other forward pass of the model
        self._leaving = (
            0  # the thread that is to leave the modules after the model's next forward pass, 0 where none is
        )
        self._armed = False
        self._outputs = list({id(outputs): outputs for _, outputs, _ in targets}.values())
        self._taps: list[Tap | HookTap] = []
        # Inside a compiled or replicated module torch would trace or copy our slot: its layers are not seen.
        closed = {id(inner) for module in model.modules() if _is_replaced(module) for inner in module.modules()}
        own = next(((outputs, index) for module, outputs, index in targets if module is model), None)
        if id(model) not in closed:
            self._taps.append(
                Tap(model, partial(self._root_call, model_ref, own))
                if _HAS_SLOT
                else HookTap(model, partial(self._after_root, own), self._before_root)
            )
        for module, outputs, index in targets:
            if module is not model and id(module) not in closed:
                self._taps.append(
                    Tap(module, partial(self._layer_call, weakref.ref(module), outputs, index))
                    if _HAS_SLOT
                    else HookTap(module, partial(self._after_layer, outputs, index))
                )

    def arm(self) -> None:
        """See the calls from now on."""
        self._thread, self._leaving = get_ident(), 0
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

    def mute(self) -> None:
        """Take nothing any more; for a thread that must not touch the modules while they may be running.

        The thread that runs them leaves them after the model's next forward pass.
        """
        if self._thread:
            self._leaving, self._thread = self._thread, 0

    def leave(self) -> None:
        """Leave the modules now, or as `mute` does where another thread may be running them."""
        if self._armed and get_ident() != self._thread:
            self.mute()
        else:
            self.disarm()

    def _let_go(self) -> None:
        if self._leaving == get_ident():
            self._leaving = 0
            self.disarm()

    # ------------------------------------------------------------------ by the slot

    def _layer_call(self, ref: Ref, outputs: Outputs, index: int, run: Call) -> Call:
        wait, at_once, read = outputs.waiting.append, outputs.at_once, outputs.reader(index)
        traced, gradients, thread = torch.compiler.is_dynamo_compiling, torch.is_grad_enabled, get_ident

        def call(*args: Any, **kwargs: Any) -> Any:
            if traced():  # the cheaper question; the root has asked the other one
                return run(ref(), *args, **kwargs)
            if thread() != self._inside:
                return beside(*args, **kwargs)
            output = run(ref(), *args, **kwargs)
            if gradients():
                if at_once[index]:
                    if read is None or not read(output):
                        self._put(outputs, index, output)
                else:
                    wait((index, output))
            return output

        def beside(*args: Any, **kwargs: Any) -> Any:
            if thread() != self._thread:
                return run(_caller(), *args, **kwargs)
            output = run(ref(), *args, **kwargs)
            if gradients() and not torch.compiler.is_compiling():
                self._outside(outputs, index, output)
            return output

        return call

    def _root_call(self, ref: Ref, own: tuple[Outputs, int] | None, run: Call) -> Call:
        compiling = torch.compiler.is_compiling

        def call(*args: Any, **kwargs: Any) -> Any:
            if compiling():
                return run(ref(), *args, **kwargs)
            if get_ident() != self._thread or self._inside or self._muted:
                try:
                    return run(_caller(), *args, **kwargs)
                finally:
                    self._let_go()
            model = ref()
            self._enter(model)
            try:
                output = run(model, *args, **kwargs)
            except BaseException:
                self._finish(None, None, returned=False)
                raise
            self._finish(own if self._inside else None, output, returned=True)
            return output

        return call

    # ------------------------------------------------------------------ by hooks

    def _before_root(self, module: nn.Module, args: object) -> None:
        if get_ident() == self._thread and module is self._model():
            self._enter(module)

    def _after_root(self, own: tuple[Outputs, int] | None, module: nn.Module, args: object, output: object) -> None:
        self._let_go()
        if get_ident() == self._thread and module is self._model():
            # A forward pass that failed comes here too, with nothing to show.
            self._finish(own if self._inside else None, output, returned=output is not None)

    def _after_layer(self, outputs: Outputs, index: int, module: nn.Module, args: object, output: object) -> None:
        if get_ident() != self._thread or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        if not self._inside:
            self._outside(outputs, index, output)
        elif outputs.at_once[index]:
            self._put(outputs, index, output)
        else:
            outputs.waiting.append((index, output))

    # ------------------------------------------------------------------ by either

    def _enter(self, model: nn.Module | None) -> None:
        training = (
            model is not None and model.training and torch.is_grad_enabled() and not torch._C._get_tracing_state()
        )
        self._inside, self._muted = self._thread if training else 0, not training

    def _put(self, outputs: Outputs, index: int, output: object) -> None:
        try:
            outputs.put_now(index, output)
        except Exception as error:  # noqa: BLE001 - never into training
            self._failed(error)

    def _finish(self, own: tuple[Outputs, int] | None, output: object, *, returned: bool) -> None:
        self._inside, self._muted = 0, False
        try:
            if own is not None:
                own[0].put_now(own[1], output)
            for outputs in self._outputs:
                if returned:
                    outputs.flush()
                else:
                    outputs.drop()
        except Exception as error:  # noqa: BLE001 - never into training
            self._failed(error)

    def _outside(self, outputs: Outputs, index: int, output: object) -> None:
        """Take the output of a layer that is called by itself: a part of the model used alone, or a recomputation."""
        try:
            model = self._model()
            if not self._muted and model is not None and model.training:
                outputs.put_now(index, output, again=torch._C._current_graph_task_id() != -1)
        except Exception as error:  # noqa: BLE001 - never into training
            self._failed(error)


def _is_replaced(module: nn.Module) -> bool:
    there = module.__dict__.get(_SLOT)
    return (
        (there is not None and not isinstance(there, Place))
        or type(module).__name__ == "OptimizedModule"
        or isinstance(module, nn.DataParallel | torch.jit.ScriptModule)
    )


def _caller() -> nn.Module:
    """Return the module that torch is calling: a replica shares our slot but is another module."""
    frame = sys._getframe(2)
    while not isinstance(module := frame.f_locals.get("self"), nn.Module):  # past ourselves and other watchers
        assert frame.f_back is not None
        frame = frame.f_back
    return module
