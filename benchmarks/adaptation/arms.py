"""The arms: what each of them does to the same host, and what it must know from other arms before."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hosts import Host
from policies import Sham, best_arms
from torch import nn
from training import Begin, Evaluate, Grows

from morphogen.kernels import blueprints
from morphogen.kernels.slots import Stage, adapt
from morphogen.schemas import SiteInfo

MENU = ("norm", "rank1", "mlp16", "mlp64")  # what may grow, at every site of every host where it fits
LIMITS: dict[str, Any] = {"max_active": 1, "max_fossilized": 2, "cooldown": 2, "min_training": 1, "min_holding": 1}
CONFIG: dict[str, Any] = {"ramp_epochs": 3.0, "plateau_window": 5, "plateau_threshold": 0.05}
REWARD = {"rent": 0.005}  # a quarter of the usual: with two seeds at most, what counts here is accuracy
LAST_CALL = 10  # epochs that a seed needs from its germination to its judgement, and one to spare

Topology = Sequence[tuple[str, str, int]]
"""Of each seed that stands: its slot, its name in the menu, the seed of its weights."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What was learned before this run: checkpoints of policies by name, and what the bandit has grown, by seed."""

    checkpoints: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)  # sha256 of each checkpoint
    grown: Mapping[int, Topology] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train. `policy` makes the policy of a run from what is known; None grows nothing.

    `needs` names checkpoints, `after` the arm whose outcome by seed this one starts from.
    """

    name: str
    about: str
    policy: Callable[[Host, int, Known], Any] | None = None
    menu: Callable[[Host, Known], Any] = lambda _host, _known: list(MENU)
    limits: Mapping[str, Any] = field(default_factory=dict)
    times: int = 1  # the host's epochs
    rate: float = 1.0  # times the host's learning rate
    needs: tuple[str, ...] = ()
    after: str | None = None

    def setting(self, host: Host, known: Known) -> str:
        """Return a hash of what a run of this arm depends on beside the code and its seed; `host` as `arm_of` gives it."""
        versions = {name: known.versions.get(name) for name in self.needs}
        told = [host.name, host.epochs, host.learning_rate, host.batch, self.name, versions]
        if self.policy is not None or self.after is not None:
            told += [MENU, LIMITS | dict(self.limits), CONFIG, REWARD, LAST_CALL]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def growing(policy: Any, host: Host, seed: int, *, menu: Any = None, limits: Mapping[str, Any] | None = None,
            label: str | None = None) -> Begin:  # fmt: skip
    """Return what attaches growth by `policy` to a run, within the limits of the experiment."""

    def begin(run: Any, model: nn.Module, optimizer: torch.optim.Optimizer, evaluate: Evaluate, steps: int) -> Grows:
        from morphogen.consumers.adaptation import grow

        if hasattr(run, "watch"):
            run.watch(model, optimizer, every=steps)
        inputs = host.split(seed).train[0][:2]
        budget = LIMITS | {"horizon": host.epochs, "last_call": LAST_CALL} | dict(limits or {})
        return grow(
            run, model, optimizer, policy=policy, evaluate=evaluate, budget=budget, config=CONFIG, seed=seed,
            label=label, menu=list(MENU) if menu is None else menu, example=inputs,
        )  # fmt: skip

    return begin


def with_topology(host: Host, seed: int, grown: Topology) -> nn.Module:
    """Return the host of `seed` with these seeds blended in from the start, each with the weights it had begun with."""
    model = host.model(seed)
    slots = adapt(model, example=host.split(seed).train[0][:2])
    sites = {site.site: site for site in slots.sites}
    for slot_id, name, rng_seed in grown:
        slot = slots[slot_id]
        blueprint = blueprints.menu(sites[slot.site])[name]
        slot.germinate(
            blueprints.build(blueprint, seed=rng_seed), blueprint=blueprints.address(blueprint), generator_seed=rng_seed
        )
        slot.to(Stage.TRAINING)
        slot.to(Stage.BLENDING)
        slot.set_alpha(1.0)
        slot.to(Stage.HOLDING)
    return model


def matched(host: Host, known: Known) -> Callable[[SiteInfo], dict[str, blueprints.Blueprint]]:
    """Return a menu of one two-layer blueprint a site, as wide as makes it have the parameters of the bandit's best arm."""
    (site, name), *_ = best_arms(known.checkpoints["bandit"])
    sites = {one.site: one for one in adapt(host.model(0), example=host.split(0).train[0][:2]).sites}
    wanted = blueprints.params(blueprints.menu(sites[site])[name])

    def menu(site: SiteInfo) -> dict[str, blueprints.Blueprint]:
        assert site.in_shape is not None
        assert site.out_shape is not None
        if site.kind != "features":
            return {}
        given, out = site.in_shape[-1], site.out_shape[-1]
        hidden = max(1, round((wanted - out) / (given + 1 + out)))
        mlp = blueprints.Mlp(out=out, hidden=hidden, function="relu", of=(0,))
        return {"matched": blueprints.Blueprint(name="matched", inputs=(given,), nodes=(mlp,), output=1)}

    return menu


def planned(epoch: int) -> Callable[[Host, int, Known], Any]:
    """Return what makes the fixed policy that plants the trained bandit's two best arms, from `epoch` on."""

    def policy(_host: Host, seed: int, known: Known) -> Any:
        from morphogen.consumers.policy import load_policy

        plan = [(epoch, site, blueprint) for site, blueprint in _two_sites(best_arms(known.checkpoints["bandit"]))]
        return load_policy("fixed", seed, plan=plan)

    return policy


def _two_sites(ranked: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the best arm of each of the two best sites: a site has one slot."""
    first: dict[str, str] = {}
    for site, blueprint in ranked:
        first.setdefault(site, blueprint)
    return list(first.items())[:2]


def built_in(name: str, **options: Any) -> Callable[[Host, int, Known], Any]:
    """Return what makes a policy by name."""

    def policy(_host: Host, seed: int, _known: Known) -> Any:
        from morphogen.consumers.policy import load_policy

        return load_policy(name, seed, **options)

    return policy


def trained(name: str, **options: Any) -> Callable[[Host, int, Known], Any]:
    """Return what makes a policy from its checkpoint: it neither explores nor learns."""

    def policy(_host: Host, seed: int, known: Known) -> Any:
        from morphogen.consumers.policy import load_policy

        return load_policy(known.checkpoints[name], seed, **options)

    return policy


_BANDIT = ("bandit",)
ARMS = {
    arm.name: arm
    for arm in (
        Arm(name="none", about="the host alone"),
        Arm(name="none-2x", about="the host alone, twice the epochs", times=2),
        Arm(name="none-lr5", about="the host alone, a fifth of the learning rate", rate=0.2),
        Arm(name="sham", about="a seed trains beside it at alpha 0", policy=lambda _h, seed, _k: Sham(seed)),
        Arm(name="random", about="any legal action", policy=built_in("random")),
        Arm(name="size", about="on a plateau, the largest blueprint at a random site",
            policy=built_in("heuristic", choose="random", only=["mlp64"])),
        Arm(name="matched", about="on a plateau, as many parameters as the bandit's best arm, at a random site",
            policy=built_in("heuristic", choose="random"), menu=matched, needs=_BANDIT),
        Arm(name="cheapest", about="on a plateau, the cheapest blueprint, each site in turn",
            policy=built_in("heuristic", choose="cheapest")),
        Arm(name="heuristic", about="on a plateau, the largest blueprint where the host squeezes most",
            policy=built_in("heuristic")),
        Arm(name="bandit", about="UCB1, trained on other splits", policy=trained("bandit"), needs=_BANDIT),
        Arm(name="gnn-ppo", about="graph network, trained on other splits", policy=trained("gnn-ppo"),
            needs=("gnn-ppo",)),
        Arm(name="bandit-own", about="UCB1, trained on other splits of this very data", policy=trained("bandit-own"),
            needs=("bandit-own",)),
        Arm(name="gnn-own", about="graph network, trained on other splits of this very data", policy=trained("gnn-own"),
            needs=("gnn-own",)),
        Arm(name="fixed-2", about="the bandit's best arms at epoch 2", policy=planned(2), needs=_BANDIT),
        Arm(name="fixed-10", about="the same at epoch 10", policy=planned(10), needs=_BANDIT),
        Arm(name="fixed-40", about="the same at epoch 40", policy=planned(40), needs=_BANDIT),
        Arm(name="static", about="what the bandit had grown, from the first step on", needs=_BANDIT, after="bandit"),
    )
}  # fmt: skip

HOME = "digits"  # where the policies are trained that the other hosts borrow
ON_DIGITS = tuple(name for name in ARMS if not name.endswith("-own"))
ELSEWHERE = ("none", "none-2x", "random", "size", "heuristic", "bandit", "gnn-ppo", "bandit-own", "gnn-own")


def arm_of(name: str, host: Host) -> tuple[Arm, Host]:
    """Return an arm, and the host as that arm trains it: its epochs and its learning rate."""
    arm = ARMS[name]
    return arm, replace(host, epochs=host.epochs * arm.times, learning_rate=host.learning_rate * arm.rate)
