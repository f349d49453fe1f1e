"""A slot: one place at a site, its stage, and the seed that stands in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from morphogen.schemas import line_of

from .blends import BLENDS
from .errors import LifecycleError, SiteError, SlotError
from .graft import OFF, ON, THROUGH, Graft
from .host import attach, detach, grafts
from .lifecycle import RAMPED, SEEDED, Stage, refusal
from .ramps import Ramp
from .undisturbed import undisturbed

if TYPE_CHECKING:
    from .slots import Slots

_MODES = {Stage.GERMINATED: OFF, Stage.TRAINING: THROUGH}  # in every later stage with a seed: ON


class Slot:
    """One place at a site, by the id `<site>#<number>`. Made by `adapt`; everything that it does is checked first.

    `epochs_in_stage` counts `Slots.epoch()` since the last change of stage, `reason` is what that change was given.
    `germinated` counts the seeds that it ever held: the n-th one is named `<slot>.<n>`.
    """

    def __init__(self, slots: "Slots", site: str, number: int) -> None:
        self.slots = slots
        self.site = site
        self.number = number
        self.id = f"{site}#{number}"
        self.stage = Stage.DORMANT
        self.epochs_in_stage = 0
        self.reason = ""
        self.germinated = 0
        self.blueprint: str | None = None
        self.spec: bytes | None = None
        self.generator_seed = 0
        self.order = 0  # of germination among all slots of the model
        self._ramp: Ramp | None = None
        self._ramped = 0

    def __repr__(self) -> str:
        return f"<Slot {self.id} {self.stage} alpha={self.alpha:g}>"

    @property
    def host(self) -> nn.Module:
        """The module that the slot is at."""
        return self.slots.site(self.site).module

    @property
    def graft(self) -> Graft | None:
        """The seed with its alpha, as it stands in the model."""
        bank = grafts(self.host)
        if bank is None or self.stage not in SEEDED or str(self.number) not in bank:
            return None
        found = bank[str(self.number)]
        assert isinstance(found, Graft)
        return found

    @property
    def seed(self) -> nn.Module | None:
        """The module that grows here, or None."""
        return None if self.graft is None else self.graft.seed

    @property
    def seed_id(self) -> str | None:
        """`<slot>.<n>`, or None without a seed."""
        return None if self.graft is None else self.graft.seed_id

    @property
    def alpha(self) -> float:
        """How much of the seed is blended in, from 0 to 1."""
        return 0.0 if self.graft is None else self.graft.level

    @property
    def blend(self) -> str | None:
        """add, multiply or gate; None without a seed."""
        return None if self.graft is None else self.graft.blend

    @property
    def tripped(self) -> str | None:
        """Why the seed was cut off, or does nothing, or None. It stays off until it is pruned. On a GPU this waits for the device."""
        return None if self.graft is None else self.graft.poll() or self.slots.site(self.site).refusal

    @property
    def target(self) -> float:
        """Where alpha is on its way to: itself, without a ramp."""
        return self.alpha if self._ramp is None else self._ramp.end

    def params(self) -> list[nn.Parameter]:
        """Give the parameters of the seed and of its gate; none without a seed."""
        return [] if self.graft is None else list(self.graft.parameters())

    def germinate(
        self,
        module: nn.Module,
        *,
        blueprint: str,
        generator_seed: int = 0,
        blend: str = "add",
        isolate: bool = False,
        spec: bytes | None = None,
    ) -> None:
        """Put `module` into this dormant slot: a branch beside the host, from the host's input to the shape of its output.

        It is moved to the device and dtype of the host, and tried once on numbers of the recorded shape. `blueprint`
        names what it is and `spec` may hold what to build it from again; both, and `generator_seed`, go into
        `Slots.describe()`. `isolate` keeps the seed's gradient from the layers before it even when it is blended; in
        the training stage that is always so. Raises LifecycleError or SlotError and changes nothing then.
        """
        why = refusal(self.stage, Stage.GERMINATED)
        if why is not None:
            raise LifecycleError(f"{self.id}: {why}")
        site = self.slots.site(self.site)
        if site.refusal is not None:
            raise SiteError(f"{self.id}: {site.refusal}")
        if blend not in BLENDS:
            raise SlotError(f"{self.id}: {blend!r} is no blend; the blends are {', '.join(BLENDS)}")
        if not isinstance(module, nn.Module):
            raise SlotError(f"{self.id}: a seed is a torch module, not a {type(module).__name__}")
        if str(self.number) in (grafts(self.host) or ()):
            raise SlotError(
                f"{self.id}: a seed stands here that other Slots of this model have grown; let one `adapt`, or one `grow`, rule a model"
            )
        if any(module is part for part in self.slots.root.modules()):
            raise SlotError(f"{self.id}: the seed is a part of the model already; give each slot a module of its own")
        device, dtype = self._place()
        module.to(device=device, dtype=dtype)
        module.train(self.host.training)
        self._try(module, device, dtype)
        graft = Graft(
            module,
            seed_id=f"{self.id}.{self.germinated + 1}",
            blend=blend,
            isolate=isolate,
            cutoff=self.slots.cutoff,
            device=device,
        )
        if graft.gate is not None:
            graft.gate.data = graft.gate.data.to(dtype)
        graft.training = self.host.training
        attach(self.host, self.number, graft)
        self.germinated += 1
        self.blueprint, self.spec, self.generator_seed = blueprint, spec, generator_seed
        self.order = self.slots.count_germination()
        self._enter(Stage.GERMINATED, "")

    def to(self, stage: Stage | str, reason: str = "") -> None:
        """Go to another stage, as the table in `lifecycle` allows; LifecycleError says why not.

        `pruned` takes the seed out of the model: `leave(optimizer, slot)` first, where it had joined one.
        """
        why = refusal(self.stage, stage)
        if why is None and stage == Stage.GERMINATED:
            why = "a seed comes into a slot by germinate()"
        if why is not None:
            raise LifecycleError(f"{self.id}: {why}")
        stage = Stage(stage)
        if stage == Stage.PRUNED:
            detach(self.host, self.number)
        if stage == Stage.DORMANT:
            self.blueprint, self.spec, self.generator_seed = None, None, 0
        self._enter(stage, reason)

    def set_alpha(self, alpha: float) -> None:
        """Set alpha at once; a ramp that was under way ends. Legal while blending or holding."""
        self.ramp(alpha, 0)

    def ramp(self, to: float, steps: int, curve: str = "linear") -> None:
        """Begin a ramp of alpha from where it is: `tick()` counts its steps. Legal while blending or holding."""
        if self.stage not in RAMPED:
            raise LifecycleError(
                f"{self.id}: alpha changes while a slot is blending or holding, not while it is {self.stage}"
            )
        ramp = Ramp(start=self.alpha, end=float(to), steps=steps, curve=curve)
        self._ramp, self._ramped = (ramp, 0) if steps else (None, 0)
        self._level(ramp.at(0))

    def tick(self) -> None:
        """Count one optimizer step: alpha is what the ramp says for it. After the last step the ramp is over."""
        if self._ramp is None:
            return
        self._ramped += 1
        self._level(self._ramp.at(self._ramped))
        if self._ramped >= self._ramp.steps:
            self._ramp = None

    @contextmanager
    def held_at(self, alpha: float) -> Iterator[None]:
        """Blend the seed by `alpha` for as long as the block runs, whatever the stage: for measurements."""
        graft = self.graft
        if graft is None:
            raise SlotError(f"{self.id}: no seed stands here, the slot is {self.stage}")
        try:
            with graft.held_at(alpha):
                self.slots.settle()
                yield
        finally:
            self.slots.settle()

    def ramp_state(self) -> tuple[Ramp, int] | None:
        """Give the ramp under way and how many of its steps are done; None without one."""
        return None if self._ramp is None else (self._ramp, self._ramped)

    def uproot(self) -> None:
        """Take the seed out, if one stands here, without a stage for it: for `restore`, when a later slot does not fit."""
        if self.graft is not None:
            detach(self.host, self.number)
        self._enter(Stage.DORMANT, "")

    def resume(
        self,
        *,
        stage: Stage,
        epochs_in_stage: int,
        alpha: float = 0.0,
        ramp: tuple[Ramp, int] | None = None,
        tripped: str | None = None,
    ) -> None:
        """Stand where a description says that a slot of the same seed stood: for `restore`, which checks it."""
        self._enter(stage, "restored")
        self.epochs_in_stage = epochs_in_stage
        graft = self.graft
        if graft is not None:
            graft.tripped = tripped
            self._level(alpha)
            if ramp is not None:
                self._ramp, self._ramped = ramp
            self.slots.settle()

    def _enter(self, stage: Stage, reason: str) -> None:
        self.stage, self.reason, self.epochs_in_stage = stage, reason, 0
        if stage not in RAMPED:
            self._ramp = None
        graft = self.graft
        if graft is not None:
            graft.mode = _MODES.get(stage, ON)
        self.slots.settle()

    def _level(self, alpha: float) -> None:
        graft = self.graft
        assert graft is not None
        was = graft.live
        graft.set_level(alpha)
        if graft.live != was:
            self.slots.settle()

    def _place(self) -> tuple[torch.device, torch.dtype]:
        """Where the seed belongs: beside the host's weights, or the model's where the host has none."""
        for module in (self.host, self.slots.root):
            for parameter in module.parameters():
                if parameter.is_floating_point():
                    return parameter.device, parameter.dtype
        return torch.device("cpu"), torch.get_default_dtype()

    def _try(self, module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        site = self.slots.site(self.site)
        if site.given is None or site.gave is None or site.dtype is None or device.type == "meta":
            return
        given, gave = list(site.given), list(site.gave)
        if len(given) > 1 and gave and given[0] == gave[0] and given[0] > 2:
            given[0] = gave[0] = 2  # a batch, or whatever else comes first: two of it tell as much
        with undisturbed(module), torch.no_grad():
            for part in module.modules():
                part.training = False
            try:
                values = _sample(given, site.dtype, dtype, device)
                version = values._version
                gives = module(values)
            except Exception as error:
                text = f"{type(error).__name__}: {line_of(error)}"
                raise SlotError(f"{self.id}: the seed does not run on an input of shape {given}: {text}") from error
        if not isinstance(gives, torch.Tensor) or list(gives.shape) != gave:
            shape = list(gives.shape) if isinstance(gives, torch.Tensor) else type(gives).__name__
            raise SlotError(
                f"{self.id}: the seed gives {shape} for an input of shape {given}, where the host gives {gave}"
            )
        if not bool(torch.isfinite(gives).all()):
            raise SlotError(f"{self.id}: the seed gives numbers that are not finite; look at how it is initialised")
        if values._version != version:
            raise SlotError(f"{self.id}: the seed writes into its input, which the host needs; make it inplace=False")


def _sample(shape: list[int], kind: torch.dtype, wide: torch.dtype, device: torch.device) -> torch.Tensor:
    """Give numbers of a shape: from -1 to 1 in `wide` where the site takes floats, zeros of `kind` where it does not."""
    count = torch.Size(shape).numel()
    if kind.is_floating_point:
        return torch.linspace(-1, 1, count, device=device).to(wide).reshape(shape)
    return torch.zeros(count, device=device).to(kind).reshape(shape)
