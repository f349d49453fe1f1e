"""All slots of a model, and `adapt`, which puts them there."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from torch import nn

from morphogen.schemas import SiteInfo

from . import fastpaths
from .copying import copied
from .cutoff import Cutoff
from .errors import SiteError, SlotError
from .recording import FirstCall, FirstPass, Site, run_example
from .sites import Selector, counts_batch_first, select, unwrapped
from .slot import Slot

FORMAT = 1
"""Of `Slots.describe()`."""


class Slots(Mapping[str, Slot]):
    """All slots of a model, by id; in the order of the model's modules.

    `model` is what `adapt` was given, `root` the module in which the sites are, where `torch.compile` has wrapped it.
    A deep copy is a grown model of its own with slots of its own: a shadow to try something on.
    """

    def __init__(
        self, model: nn.Module, root: nn.Module, sites: list[Site], refused: dict[str, str], number: int, cutoff: Cutoff
    ):
        self.model = model
        self.root = root
        self.cutoff = cutoff
        self.slots_per_site = number
        self._sites = {site.name: site for site in sites}
        self._refused = refused
        self._slots = {
            slot.id: slot for site in sites for slot in (Slot(self, site.name, index) for index in range(number))
        }
        self._germinated = 0

    def __getitem__(self, slot_id: str) -> Slot:
        try:
            return self._slots[slot_id]
        except KeyError:
            raise KeyError(f"no slot is called {slot_id!r}; the slots are {', '.join(self._slots)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def __repr__(self) -> str:
        return f"<Slots {', '.join(f'{slot.id} {slot.stage}' for slot in self.values())}>"

    @property
    def sites(self) -> tuple[SiteInfo, ...]:
        """Where the model can be grown, with the shapes that went through there so far."""
        return tuple(
            SiteInfo(
                site=site.name,
                kind=site.kind,
                in_shape=site.in_shape,
                out_shape=site.out_shape,
                slots=self.slots_per_site,
                params=sum(p.numel() for name, p in site.module.named_parameters() if "grown" not in name.split(".")),
            )
            for site in self._sites.values()
            if site.refusal is None
        )

    @property
    def refused(self) -> dict[str, str]:
        """Modules that were asked for, or chosen by themselves, and cannot be grown at: why, by name."""
        return self._refused | {site.name: site.refusal for site in self._sites.values() if site.refusal is not None}

    def site(self, name: str) -> Site:
        """Give what is known of a site."""
        try:
            return self._sites[name]
        except KeyError:
            raise SiteError(f"no site is called {name!r}; the sites are {', '.join(self._sites)}") from None

    def record_first_pass(self) -> None:
        """Learn the shapes of the sites that were not called yet from the model's next forward pass, by hooks that go with it."""
        unknown = [site for site in self._sites.values() if not site.called]
        for site in unknown:
            FirstCall(site)
        if unknown:
            FirstPass(self.root, unknown)

    def active(self) -> list[Slot]:
        """Give the slots in which a seed stands, in the order in which the seeds germinated."""
        return sorted((slot for slot in self.values() if slot.graft is not None), key=lambda slot: slot.order)

    def tick(self) -> None:
        """Count one optimizer step: every ramp goes on by one."""
        for slot in self._slots.values():
            slot.tick()

    def epoch(self) -> None:
        """Count one epoch in every slot's stage."""
        for slot in self._slots.values():
            slot.epochs_in_stage += 1

    def params(self) -> int:
        """Count the parameters of everything that has grown."""
        return sum(parameter.numel() for slot in self.values() for parameter in slot.params())

    def describe(self) -> dict[str, object]:
        """Say what stands where, as plain data for JSON; `restore` grows the same from it, a state_dict fills it."""
        return {
            "format": FORMAT,
            "slots_per_site": self.slots_per_site,
            "sites": [
                {"site": site.name, "given": site.given, "gave": site.gave, "dtype": _name(site)}
                for site in self._sites.values()
            ],
            "slots": [
                _describe(slot) for slot in (*self.active(), *(slot for slot in self.values() if slot.graft is None))
            ],
        }

    def shadow(self) -> "Slots":
        """Give a copy of the model with all that has grown, to try something on: `shadow().model`.

        Its weights are its own. Hooks that watch the model for the log are not copied; hooks of the user's are.
        """
        return copied(self)

    def settle(self) -> None:
        """See to it that every seed which is blended in is called: see `fastpaths`."""
        fastpaths.settle(self.root)

    def count_germination(self) -> int:
        """Give the next number in the order of all germinations."""
        self._germinated += 1
        return self._germinated


def adapt(
    model: nn.Module,
    sites: Selector | Sequence[Selector] | None = None,
    slots: int = 1,
    *,
    example: object = None,
    cutoff: Cutoff | None = None,
) -> Slots:
    """Put `slots` slots at every chosen module of `model`, which stays as it is until something germinates.

    `sites` are classes of modules, names, patterns of names or predicates, one or several; None chooses every Linear and
    Conv2d, the output layer too, and every block that stands in a row of its kind. `example` is an input of the model (a
    tuple for several, a mapping for named ones): it is run once in eval mode, without a trace, to learn the shapes and
    which sites reach the output. Without it the first forward pass tells the shapes. What cannot be grown at stands in
    `Slots.refused`; SiteError where nothing is left, or where a site was asked for by its very name.
    """
    if not (sites is None or isinstance(sites, str | type | Iterable) or callable(sites)):
        raise SiteError(f"sites are classes, names, patterns or predicates, not {sites!r:.100}")
    names = (
        [sites] if isinstance(sites, str) else [] if isinstance(sites, type) or callable(sites) else list(sites or [])
    )
    found = place(
        model, sites, slots, example=example, cutoff=cutoff, named={name for name in names if isinstance(name, str)}
    )
    if example is None:
        found.record_first_pass()
    return found


def place(
    model: nn.Module,
    sites: Selector | Sequence[Selector] | None,
    slots: int,
    *,
    example: object = None,
    cutoff: Cutoff | None = None,
    named: Set[str] = frozenset(),
) -> Slots:
    """Do what `adapt` says, but wait for no forward pass; SiteError for a site in `named` that cannot be grown at."""
    if not isinstance(slots, int) or slots < 1:
        raise SlotError(f"a site takes 1 slot or more, not {slots!r:.100}")
    if not isinstance(model, nn.Module):
        raise SiteError(f"a torch module can grow, not a {type(model).__name__}")
    root = unwrapped(model)
    found, refused = select(root, sites)
    batch_first = counts_batch_first(root)
    known = [Site(name, module, batch_first=batch_first) for name, module in found.items()]
    if example is not None:
        run_example(root, known, example)
        refused |= {site.name: site.refusal for site in known if site.refusal is not None}
        known = [site for site in known if site.refusal is None]
    for name in sorted(named & refused.keys()):
        raise SiteError(f"{name}: {refused[name]}")
    if not known:
        why = next(
            (f"{name}: {why}" for name, why in refused.items()), "it has no Linear, no Conv2d and no row of blocks"
        )
        raise SiteError(f"nothing of this {type(root).__name__} can be grown at; {why}")
    return Slots(model, root, known, refused, slots, cutoff or Cutoff())


def _name(site: Site) -> str | None:
    return None if site.dtype is None else str(site.dtype).removeprefix("torch.")


def _describe(slot: Slot) -> dict[str, object]:
    graft = slot.graft
    found: dict[str, object] = {
        "slot": slot.id,
        "stage": str(slot.stage),
        "epochs_in_stage": slot.epochs_in_stage,
        "germinated": slot.germinated,
    }
    if graft is None:
        return found
    return found | {
        "seed": graft.seed_id,
        "blueprint": slot.blueprint,
        "spec": None if slot.spec is None else base64.b64encode(slot.spec).decode(),
        "generator_seed": slot.generator_seed,
        "blend": graft.blend,
        "isolate": graft.isolate,
        "alpha": graft.level,
        "ramp": _ramp(slot),
        "tripped": graft.poll(),
    }


def _ramp(slot: Slot) -> dict[str, object] | None:
    state = slot.ramp_state()
    if state is None:
        return None
    ramp, done = state
    return {"start": ramp.start, "end": ramp.end, "steps": ramp.steps, "curve": ramp.curve, "done": done}
