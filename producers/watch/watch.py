"""Watch a model and its optimizer: hooks, counting, and what happens when something goes wrong."""

import contextlib
import operator
import os
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from morphogen.schemas import sound

from .backlog import UNHURRIED, Backlog
from .calls import Calls
from .device import AcceleratorLink, DeviceMeter, Link, Pending
from .host import HostMeter
from .layers import Layer, find_layers
from .library import library
from .native import Moved, NativeMeter, has_memory, readable
from .resolver import Resolver
from .sample import LayerSample, Measures, build_sample

_LOOK_AGAIN = 100  # measured steps between two looks for layers that were added


class Watch:
    """Measures the layers of `model` at every `every`-th step of `optimizer`, and hands each sample to `emit`.

    Everything is read around `optimizer.step()`: the gradients as the optimizer sees them (accumulated, unscaled,
    clipped), the weights before and after, and the outputs that the layers gave in training since the step before.
    Nothing is stored in the model. An error in here ends the watch with one warning, never the training.
    The samples come from a thread, in order, about a tenth of a second later (`flush` does not wait for that).

    With a GradScaler the optimizer's step is reached with unscaled gradients, or, where the optimizer unscales them
    itself (fused ones), with the scale beside them, by which the norms are divided. A step that the scaler skips
    gives no sample. Of several optimizers each has its own watch: gradients and updates are those of its parameters.
    On one rank of a sharded model the norms are those of this rank's shards.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        every: int = 1,
        emit: Callable[[LayerSample], object] = lambda sample: None,
        *,
        step_provider: Callable[[], int] | None = None,
        link: Callable[[torch.device], Link | None] | None = None,
        stopped: Callable[[str], object] = lambda reason: None,
    ) -> None:
        """Begin to watch.

        `step_provider` names the steps in the samples; without it the optimizer's steps are counted from 1.
        `link` chooses how a device's values reach the host; None from it means that NumPy reads them in place.
        `stopped` is told of the error that ended the watch, from any thread.
        """
        self.every = _whole(every)
        self.step_provider = step_provider
        self.steps = 0
        self._paced = 0
        self._emit = emit
        self._stopped = stopped
        self._link = link or _default_link
        self._model = weakref.ref(model, self._gone())
        self._resolver: Resolver | None = None
        self._backlog = Backlog(emit, self._failed_behind())
        self._ended = self._closed = self._warned = self._left = False
        self._pid = os.getpid()
        self._due = False
        self._reading: tuple[int, bool] | None = None
        self._optimizer = weakref.ref(_inner(optimizer), self._gone())
        self._find()
        inner = _inner(optimizer)
        _take_off_those_left(inner)
        self._handles = [
            inner.register_step_pre_hook(self._before_step),
            inner.register_step_post_hook(self._after_step),
        ]
        self._aim()

    @property
    def count(self) -> int:
        """The optimizer's steps so far."""
        return self.steps

    def pace(self, samples: int, least: int) -> None:
        """Measure the next step and about `samples` in all until the next call, if that is as far off as the last one was.

        They are at least `least` steps apart, but for the first one: so what a step costs stays bounded, and each stretch
        has its sample however short it is. It counts steps and no time: the same training measures the same steps.
        Samples come up to a second late now, unless `flush` or `settle` asks for them.
        """
        stretch, self._paced = self.steps - self._paced, self.steps
        self.every = max(least, stretch // samples)
        self._backlog.age = UNHURRIED
        if not self._ended:
            self._aim()

    def flush(self) -> None:
        """Emit the samples of CPU layers that wait to be worked out; those under way from a device are not waited for."""
        if not self._closed:
            try:
                self._backlog.flush()
            except Exception as error:  # noqa: BLE001 - never into training
                self._failed(error)

    def settle(self, timeout: float = 5.0) -> None:
        """Emit the samples of every step taken so far; those under way from a device are waited for."""
        self.flush()
        if not self._closed and self._resolver is not None and os.getpid() == self._pid:
            self._resolver.settle(timeout)

    def done(self) -> bool:
        """Tell whether the watch has ended and all that it measured was emitted."""
        return self._ended and not self._backlog.waits() and (self._resolver is None or self._resolver.idle())

    def close(self, timeout: float = 5.0) -> None:
        """Remove every hook; samples under way are waited for, up to `timeout` seconds. May be called again."""
        if self._closed:
            return
        self._closed = True
        if not self._left:
            self._take_off()
        try:
            self._backlog.close()
            if self._resolver is not None and os.getpid() == self._pid:
                self._resolver.close(timeout)
        except Exception as error:  # noqa: BLE001 - what emits is not ours
            self._warn(error)
        self._ended = True
        if not self._left:
            self._forget()

    def leave(self) -> None:
        """Measure nothing more; may be called by any thread, and by the garbage collector. What waits is still emitted.

        torch may be going through the optimizer's hooks at this moment. They stay, and do nothing, until the optimizer is
        watched again. Where another thread may be running the model, that one takes everything off it: after the model's
        next forward pass, or at the optimizer's next step.
        """
        self._left = self._ended = True
        self._calls.leave()
        self._backlog.leave()

    def _take_off(self) -> None:
        self._calls.disarm()
        for handle in self._handles:
            handle.remove()

    def _rest(self) -> None:
        """Let the training thread leave the model, after the watch has ended."""
        self._due = False
        self._calls.disarm()
        if self._left:
            self._forget()

    def _forget(self) -> None:
        self._layers: list[Layer] = []
        self._parts: list[tuple[list[int], HostMeter | NativeMeter | DeviceMeter]] = []
        self._seen: list[int] = []
        self._owned: list[dict[str, nn.Parameter | None]] = []

    def _gone(self) -> Callable[[object], None]:
        """Return what ends the watch with its model or optimizer, from any thread, whatever locks that one holds."""
        this = weakref.ref(self)

        def gone(_: object) -> None:
            watch = this()
            if watch is not None and not watch._closed:
                watch.leave()
                watch._forget()

        return gone

    def _failed_behind(self) -> Callable[[Exception], None]:
        """Return what background threads call with an exception; it holds no watch alive."""
        this = weakref.ref(self)

        def failed(error: Exception) -> None:
            watch = this()
            if watch is not None:
                watch._end(error)

        return failed

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._due:
            try:
                self._before(optimizer, args, kwargs)
            except Exception as error:  # noqa: BLE001 - never into training
                self._failed(error)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.steps += 1
        if self._due or (self.steps - self._paced) % self.every == 0:
            try:
                self._after()
            except Exception as error:  # noqa: BLE001 - never into training
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        """End the watch from the training thread and say why, once."""
        self._end(error)
        with contextlib.suppress(Exception):
            self._calls.disarm()

    def _end(self, error: Exception) -> None:
        """End the watch from any thread, and say why, once.

        The optimizer's hooks stay until `close`: torch may be going through them at this moment.
        """
        if self._ended:
            return
        self._ended = True
        self._calls.mute()
        with contextlib.suppress(Exception):  # it may be what emits that failed
            self._backlog.flush()
        self._backlog.drop()
        self._warn(error)

    def _warn(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        reason = f"{type(error).__name__}: {' '.join(sound(error).split()) or 'no message'}"
        with contextlib.suppress(Warning):  # where warnings are errors, they are still not the training's
            warnings.warn(f"watch stopped, training goes on: {reason}", RuntimeWarning, stacklevel=2)
        with contextlib.suppress(Exception):
            self._stopped(reason)

    def _find(self) -> None:
        """Look for layers and plan how they are read."""
        model, optimizer = self._model(), self._optimizer()
        if model is None or optimizer is None:
            return
        self._layers = find_layers(model)
        self._owned = [layer.own for layer in self._layers]
        self._names = tuple(layer.name for layer in self._layers)
        self._seen = self._identities()
        self._planned = [_kinds(layer) for layer in self._layers]
        self._unready = any(isinstance(p, UninitializedParameter) for x in self._layers for p in x.own.values())
        self._size = _size(optimizer)
        self._look_in = _LOOK_AGAIN
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        devices: dict[torch.device, list[int]] = {}
        for index, layer in enumerate(self._layers):
            kinds = {p.device for p in layer.parameters()} if layer.numel() else set()
            if len(kinds) == 1 and not kinds & {torch.device("meta")}:  # a layer across devices stays missing
                devices.setdefault(kinds.pop(), []).append(index)
        self._parts = []
        targets = []
        for device, indices in devices.items():
            link = self._link(device)
            if link is None:
                self._parts += self._host_parts(indices, trained)
            else:
                layers = [self._layers[i] for i in indices]
                self._parts.append((indices, DeviceMeter(layers, trained, device, link)))
        for indices, meter in self._parts:
            for place, index in enumerate(indices):
                module = self._layers[index].module()
                if module is not None:
                    targets.append((module, meter.activations, place))
        self._on_device = any(isinstance(meter, DeviceMeter) for _, meter in self._parts)
        self._calls = Calls(model, targets, self._failed)

    def _host_parts(self, indices: list[int], trained: set[int]) -> list[tuple[list[int], HostMeter | NativeMeter]]:
        """Plan the reading of layers on the CPU: by the compiled routine where it is there and can."""
        indices = [i for i in indices if all(map(has_memory, self._layers[i].parameters()))]
        native = library()
        chosen = [] if native is None else [indices[i] for i in readable([self._layers[i] for i in indices])]
        others = [i for i in indices if i not in chosen]
        parts: list[tuple[list[int], HostMeter | NativeMeter]] = []
        if native is not None and chosen:
            parts.append((chosen, NativeMeter(native, [self._layers[i] for i in chosen], trained)))
        if others:
            parts.append((others, HostMeter([self._layers[i] for i in others], trained)))
        return parts

    def _identities(self) -> list[int]:
        return list(map(id, chain.from_iterable(map(dict.values, self._owned))))

    def _same(self) -> bool:
        """Say whether the layers still own the parameters that were found."""
        native = library()
        return self._identities() == self._seen if native is None else native.same(self._owned, self._seen)

    def _aim(self) -> None:
        """Arm for the next step if it is to be measured."""
        self._due = not self._ended and (self.steps - self._paced) % self.every == 0
        if self._due:
            self._calls.arm()
        else:
            self._calls.disarm()

    def _look(self, optimizer: torch.optim.Optimizer) -> None:
        """Find the layers again when the model or the optimizer's parameters have changed."""
        self._look_in -= 1
        changed = self._unready or _size(optimizer) != self._size or not self._same()
        if not changed and self._look_in <= 0:
            self._look_in = _LOOK_AGAIN
            model = self._model()
            changed = model is not None and (_modules(find_layers(model)) != _modules(self._layers) or self._moved())
        if changed:
            self._calls.disarm()
            self._find()

    def _moved(self) -> bool:
        """Say whether a parameter has another device, type or shape than when its reading was planned."""
        return any(_kinds(layer) != kinds for layer, kinds in zip(self._layers, self._planned, strict=True))

    def _before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._reading = None
        if self._ended:
            self._rest()
            return
        if self._on_device and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return
        self._look(optimizer)
        scale, found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
        if found_inf is not None and found_inf.device.type == "cpu" and bool(found_inf):
            return  # the scaler found infinities: this step changes nothing
        closure = (len(args) > 1 and callable(args[1])) or kwargs.get("closure") is not None
        try:
            self._begin(not closure, scale, found_inf)
        except Exception as error:
            if not isinstance(error, Moved) and not self._moved():
                raise
            self._calls.disarm()
            self._find()
            self._begin(not closure, scale, found_inf)
        number = self.steps + 1 if self.step_provider is None else self.step_provider()
        self._reading = (number, closure)

    def _begin(self, gradients: bool, scale: torch.Tensor | None, found_inf: torch.Tensor | None) -> None:
        for _, meter in self._parts:
            if not isinstance(meter, DeviceMeter):
                meter.before(gradients=gradients, scale=1.0 if scale is None else float(scale))
            else:
                meter.before(gradients=gradients, scale=scale, found_inf=found_inf)

    def _after(self) -> None:
        reading, self._reading = self._reading, None
        if self._ended:
            self._rest()
            return
        if reading is not None:
            try:
                self._measure(*reading)
            except Moved:  # the optimizer's step put a parameter elsewhere: nothing is known of its change
                self._calls.disarm()
                self._find()
        elif self._due:
            for _, meter in self._parts:
                meter.forget()
        self._aim()

    def _measure(self, number: int, closure: bool) -> None:
        ready: list[tuple[Sequence[int], Measures]] = []
        pending: list[tuple[Sequence[int], Pending]] = []
        for indices, meter in self._parts:
            if not isinstance(meter, DeviceMeter):
                reading = meter.after(gradients=closure)
                if len(self._parts) == 1 and len(indices) == len(self._names):
                    self._backlog.add(meter, self._names, number, reading)
                    return
                ready.append((indices, meter.measures(reading)))  # type: ignore[arg-type]
            else:
                if closure:
                    meter.read_gradients(None, None)
                launched = meter.after()
                if launched is not None:
                    pending.append((indices, launched))
        self._backlog.flush()  # of the time before layers moved to a device
        now, names = time.time_ns(), self._names
        if not pending:
            self._emit(build_sample(number, now, names, ready))
            return

        def finish() -> None:
            arrived = [(indices, item.measures()) for indices, item in pending]
            if all(measures is not None for _, measures in arrived):
                parts = [*ready, *((i, m) for i, m in arrived if m is not None)]
                self._emit(build_sample(number, now, names, parts))

        if self._resolver is None:
            self._resolver = Resolver(self._failed_behind())
        self._resolver.submit([item for _, item in pending], finish)


def _whole(every: Any) -> int:
    try:
        number = 0 if isinstance(every, bool) else operator.index(every)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"watch: every must be a whole number of 1 or more, not {every!r}")
    return number


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer that steps, behind wrappers such as Accelerate's."""
    while not hasattr(optimizer, "_optimizer_step_pre_hooks") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _take_off_those_left(optimizer: torch.optim.Optimizer) -> None:
    for hook in list(optimizer._optimizer_step_pre_hooks.values()):
        watch = getattr(hook, "__self__", None)
        if isinstance(watch, Watch) and watch._left:
            watch._take_off()
            watch._forget()


def _size(optimizer: torch.optim.Optimizer) -> int:
    size = 0
    for group in optimizer.param_groups:
        size += len(group["params"])
    return size


def _modules(layers: list[Layer]) -> list[tuple[str, int]]:
    return [(layer.name, id(layer.module())) for layer in layers]


def _kinds(layer: Layer) -> list[tuple[torch.device, torch.dtype, torch.Size]]:
    return [(p.device, p.dtype, p.shape) for p in layer.parameters()]


def _default_link(device: torch.device) -> Link | None:
    return None if device.type == "cpu" else AcceleratorLink(device)
