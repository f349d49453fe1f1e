"""A seed beside its host, and what the two give together: the only code of ours that runs in a forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from morphogen.schemas import line_of

from . import cutoff as cutoffs
from .blends import blended, straight_through
from .cutoff import Cutoff

OFF = "off"  # the host's output, and no gradient for the seed
THROUGH = "through"  # the host's output, and the gradient that the seed would have, were it blended fully
ON = "on"  # both, by alpha

_CHECKPOINT = "torch.utils.checkpoint"  # ends a repeated pass by an exception of its own, as early as it can
_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)  # before torch 2.7


class OutputStatistics:
    """Mean and variance over all numbers of a seed's output, and how many are not finite, in one forward pass."""

    def __init__(self, output: Tensor) -> None:
        values = output.detach()
        wide = values.to(torch.float64)
        self.mean = float(wide.mean()) if values.numel() else None
        self.variance = float(wide.var(correction=0)) if values.numel() else None
        self.nonfinite = int(values.numel() - torch.isfinite(values).sum())


class Graft(nn.Module):
    """A seed in its slot.

    `mode` is a constant of a compiled graph, which is compiled again when it changes; `alpha` is a buffer, which may change at
    every step without that. `level` is the same alpha as a number: eager code looks at it, so that alpha 0 is the host's own
    output, the same bits. A graph selects instead, to the same effect. The buffer is what counts: whoever writes it (a
    state_dict, an average of weights) moves the level, and what has a level is blended in, whatever its stage.
    """

    alpha: Tensor
    trips: Tensor

    def __init__(
        self, seed: nn.Module, *, seed_id: str, blend: str, isolate: bool, cutoff: Cutoff, device: torch.device
    ) -> None:
        super().__init__()
        self.seed = seed
        self.seed_id = seed_id
        self.blend = blend
        self.isolate = isolate
        self.cutoff = cutoff
        self._mode = OFF
        self._level, self._read = 0.0, (0, 0)  # the level that was read last, and of which buffer, in which version
        self.tripped: str | None = None
        self.just_tripped = False  # no forward pass has begun since
        self.watching = False
        self.statistics: OutputStatistics | None = None
        self.gate = nn.Parameter(torch.zeros(1, device=device)) if blend == "gate" else None
        self.register_buffer("alpha", torch.zeros((), dtype=_alpha_dtype(device), device=device))
        self.register_buffer("trips", torch.zeros((), dtype=torch.int32, device=device), persistent=False)

    @property
    def mode(self) -> str:
        """Off, through or on, as the stage says; on also where somebody else than a stage has raised alpha."""
        if self._mode == ON or torch.compiler.is_compiling():
            return self._mode
        return ON if self.level > 0 else self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._mode = mode

    @property
    def level(self) -> float:
        """Alpha as a number. On a GPU it is read again only where the buffer, or its version, is another one: no waiting."""
        alpha = self._buffers["alpha"]
        if type(alpha) is not Tensor or alpha.is_meta or not _plain(alpha):
            return self._level
        if _at_hand(alpha):
            level = float(alpha)
            if level != self._level:  # a module takes longer to set what it holds than to look at it
                self._level = level
            return level
        version = _version(alpha)
        if version != self._read:
            self._level, self._read = float(alpha), version
        return self._level

    @property
    def live(self) -> bool:
        """Whether the seed changes what the host gives."""
        return self.mode == ON and self.level > 0 and self.tripped is None

    def set_level(self, level: float) -> None:
        """Set alpha, as number and as buffer."""
        with torch.no_grad():
            self.alpha.fill_(level)
        self._level, self._read = level, _version(self.alpha)

    @contextmanager
    def held_at(self, level: float) -> Iterator[None]:
        """Blend by `level`, whatever the stage, and go back afterwards."""
        mode, before = self._mode, self.level
        self.mode = ON
        self.set_level(level)
        try:
            yield
        finally:
            self.mode = mode
            self.set_level(before)

    def poll(self) -> str | None:
        """Say why the seed was cut off, if it was; waits for the device where graphs keep the reason there."""
        if self.tripped is None and self.mode != OFF and not self.trips.is_meta:
            reason = cutoffs.reason(int(self.trips))
            if reason is not None:
                self._trip(reason)
        return self.tripped

    def show(self) -> None:
        """Carry a forward hook while the seed counts: by torch's own rule it keeps a layer from going around its parts."""
        if not self.live:
            self._forward_hooks.clear()
        elif not self._forward_hooks:
            self.register_forward_hook(_nothing)

    def together(self, host: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Give what host and seed give together, where the host gave `host` for these arguments."""
        mode = self.mode
        if mode == OFF or (self.tripped is not None and not self._repeats()):
            return host
        if _symbolic(host):  # a symbolic trace: what grew belongs to it, what is measured does not
            return host if mode == THROUGH else self._joined(host, self.seed(_first(args, kwargs)))
        if mode == THROUGH and (not torch.is_grad_enabled() or _exporting()):
            return host
        if torch.compiler.is_compiling():
            return self._in_graph(host, _first(args, kwargs), exporting=_exporting())
        if mode == ON and self.level == 0.0:
            return host
        try:
            return self._eager(host, args, kwargs)
        except Exception as error:  # whatever a seed raises, the host's own output is good
            if type(error).__module__ == _CHECKPOINT:  # it has what it wants of this pass
                raise
            self._trip(f"exception: {type(error).__name__}: {line_of(error)}")
            return host

    def _trip(self, reason: str) -> None:
        self.tripped = self.tripped or reason
        self.just_tripped = True

    def _repeats(self) -> bool:
        """Say whether a backward pass repeats, by activation checkpointing, the pass that tripped or one before it.

        torch wants the same tensors saved as the first time: so the seed runs, and fails, once more.
        """
        if torch.compiler.is_compiling():
            return False
        self.just_tripped = self.just_tripped and torch._C._current_graph_task_id() != -1
        return self.just_tripped

    def _eager(self, host: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        seed = self._grow(host, _first(args, kwargs))
        if seed is None:
            return host
        plain = _plain(seed)
        if plain and self.watching and self.training:
            self.statistics = OutputStatistics(seed)
            self.watching = False
        if plain and self.cutoff.enabled:
            if host.device.type != "cpu":
                return self._selected(host, seed)
            wrong = cutoffs.check(seed, host, self.cutoff)
            if wrong is not None:
                self._trip(wrong)
                return host
        return self._joined(host, seed)

    def _in_graph(self, host: Tensor, given: Tensor | None, *, exporting: bool) -> Tensor:
        seed = self._grow(host, given)
        if seed is None:
            return host
        if self.cutoff.enabled and not exporting:
            return self._selected(host, seed)
        joined = self._joined(host, seed)
        return joined if self.mode == THROUGH else torch.where(self.alpha == 0, host, joined)

    def _selected(self, host: Tensor, seed: Tensor) -> Tensor:
        code = cutoffs.verdict(seed, host, self.cutoff)
        self.trips.copy_(torch.maximum(self.trips, code))
        good = self.trips == 0
        joined = self._joined(host, torch.where(good, seed, 0))
        return joined if self.mode == THROUGH else torch.where(good & (self.alpha != 0), joined, host)

    def _grow(self, host: Tensor, given: Tensor | None) -> Tensor | None:
        """Run the seed; None, with the reason in `tripped`, where what it gives does not fit."""
        if given is None:
            self._trip("shape: the host was called without a tensor")
            return None
        seed = self.seed(given.detach() if self.isolate or self.mode == THROUGH else given)
        if not isinstance(seed, Tensor) or seed.shape != host.shape:
            shape = list(seed.shape) if isinstance(seed, Tensor) else type(seed).__name__
            self._trip(f"shape: the seed gives {shape}, the host {list(host.shape)}")
            return None
        return seed.to(host.dtype)  # under autocast the two may differ; the host's is what the next layer expects

    def _joined(self, host: Tensor, seed: Tensor) -> Tensor:
        if self.mode == THROUGH:
            return straight_through(self.blend, host, seed, self.gate)
        return blended(self.blend, host, seed, self.alpha, self.gate)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Graft":
        """Convert as any module does, and keep alpha exact: half a precision would round it."""
        level = self.level
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.alpha.dtype != _alpha_dtype(self.alpha.device):
            self._own(level)
        else:
            self.set_level(level)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, metadata: Any, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, *args)
        if metadata.get("assign_to_params_buffers"):  # the tensor of the state_dict, which another model may hold too
            self._own(float(self.alpha) if not self.alpha.is_meta else self._level)
        self.show()

    def _own(self, level: float) -> None:
        """Hold `level` in a buffer of its own, of the right dtype, where the model is now."""
        device = self.alpha.device
        self.alpha = torch.zeros((), dtype=_alpha_dtype(device), device=device)
        self.set_level(level)


class Grafts(nn.ModuleDict):
    """The seeds at one host, by the number of their slot."""

    def together(self, host: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Blend every seed in, in the order of the slots; each of them sees the host's input."""
        for graft in self.values():
            host = graft.together(host, args, kwargs)  # type: ignore[operator]
        return host


def _alpha_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _version(tensor: Tensor) -> tuple[int, int]:
    """Tell a tensor in its present version from itself in others, and from others: a copied module counts anew."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version


def _at_hand(tensor: Tensor) -> bool:
    """Whether a number can be read from a tensor without waiting."""
    return tensor.is_cpu


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Give the first tensor of a call."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor | Proxy):
            return value  # type: ignore[return-value]
    return None


def _nothing(module: nn.Module, args: Any, output: Any) -> None:
    """Do nothing: that it is there is what counts."""


def _symbolic(value: object) -> bool:
    return isinstance(value, Proxy)


def _plain(value: Tensor) -> bool:
    """Whether a number can be read from a tensor here: not in a trace, nor inside a transform of `torch.func`."""
    return not torch._C._is_tracing() and torch._C._functorch.peek_interpreter_stack() is None
