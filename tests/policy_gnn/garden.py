"""A growth environment with a table for a world: what each blueprint gains at each site, with noise.

Everything goes through the real fold, the real legal mask and the real guards; only the training job is a table.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from morphogen.consumers.policy import Decided, Decider, Dish, Limits, Policy, config_of, plateau
from morphogen.consumers.policy.protocol import Outcome
from morphogen.schemas import (
    AdaptationStarted,
    DecisionOutcome,
    EpochMeasured,
    Event,
    SiteInfo,
    SlotAlphaChanged,
    SlotContribution,
    SlotGerminated,
    SlotStageChanged,
)

SHAPES = {"0": (64, 10), "1": (10, 2), "2": (2, 10)}
GAINS = {
    "0": {"norm": -0.02, "rank1": 0.02, "mlp16": 0.12, "mlp64": 0.22},
    "1": {"norm": 0.00, "rank1": -0.02, "mlp16": 0.02, "mlp64": 0.03},
    "2": {"norm": -0.04, "rank1": 0.00, "mlp16": 0.05, "mlp64": 0.08},
}
HOST = 166


def params(site: str, blueprint: str) -> int:
    """How many parameters a blueprint has at a site."""
    a, b = SHAPES[site]
    return {"norm": 2 * b, "rank1": a + b, "mlp16": 16 * (a + b), "mlp64": 64 * (a + b)}[blueprint]


@dataclass
class Garden:
    """One run of so many epochs for each seed; `play` has a policy decide for it and tells it what came of that."""

    gains: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: GAINS)
    epochs: int = 40
    noise: float = 0.03
    judged: int = 0
    events: list[Event] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)

    def play(self, policy: Policy, seed: int) -> float:
        """Return the sum of the gains of what stands at the end."""
        chance = np.random.default_rng((seed, 7))
        menu = {site: [Dish(name=name, params=params(site, name)) for name in row] for site, row in self.gains.items()}
        sites = [
            SiteInfo(site=site, kind="features", in_shape=[a], out_shape=[b], slots=1, params=a * b + b)
            for site, (a, b) in SHAPES.items()
        ]
        decider = Decider(policy, scope=f"garden-{seed}")
        self.events = []

        def tell(event: Event) -> None:
            self.events.append(event)
            decider.take(event)

        tell(
            AdaptationStarted(
                sites=sites,
                policy=policy.name,
                config=config_of(Limits(horizon=self.epochs), menu),
                host_params=HOST,
                seed=seed,
            )
        )
        standing: dict[str, tuple[Decided, str, float]] = {}
        stages = {f"{site}#0": "dormant" for site in self.gains}
        kept: dict[str, float] = {}
        losses: list[float | None] = []

        def stage(slot: str, to: str) -> None:
            tell(SlotStageChanged(slot=slot, seed=f"{slot}.1", from_stage=stages[slot], to_stage=to, reason="asked"))
            stages[slot] = to

        def outcome(slot: str, epoch: int) -> None:
            decided, blueprint, gain = standing.pop(slot)
            site = slot.rpartition("#")[0]
            stands = stages[slot] != "pruned"
            rent = 0.02 * math.log2(1 + params(site, blueprint) / HOST)
            reward = gain - rent if stands else -0.01
            proposed = decided.proposed
            told = {
                "decision": proposed.decision, "slot": slot, "seed": f"{slot}.1", "stage": stages[slot],
                "epochs": epoch - proposed.epoch, "contribution": gain, "reward": reward,
                "params": params(site, blueprint),
            }  # fmt: skip
            tell(DecisionOutcome(blueprint=blueprint, **told))  # type: ignore[arg-type]
            policy.learn(
                Outcome(
                    epoch=proposed.epoch, observation=proposed.observation, index=proposed.index,
                    action=proposed.action, logprob=proposed.logprob, value=proposed.value, **told,  # type: ignore[arg-type]
                )
            )  # fmt: skip
            self.judged += 1

        for epoch in range(self.epochs):
            for slot in [slot for slot, where in stages.items() if where == "pruned"]:
                for to in ("embargoed", "resetting", "dormant"):
                    stage(slot, to)
            loss = 0.8 + 1.5 * math.exp(-epoch / 5) - sum(kept.values()) + 0.005 * chance.normal()
            losses.append(loss)
            for slot, (_, _, gain) in standing.items():
                if stages[slot] == "holding":
                    tell(
                        SlotContribution(
                            slot=slot, seed=f"{slot}.1", split="val", n=337, alpha=1.0,
                            loss_with=loss, loss_without=loss + gain,
                        )
                    )  # fmt: skip
            tell(EpochMeasured(epoch=epoch, val_loss=loss, train_loss=loss, plateau=plateau(losses)))
            decided = decider.decide()
            self.events += decided.events
            action = decided.action
            slot = action.slot or ""
            if action.op == "germinate":
                assert action.blueprint is not None
                gain = self.gains[slot.rpartition("#")[0]][action.blueprint] + self.noise * chance.normal()
                standing[slot] = (decided, action.blueprint, gain)
                size = params(slot.rpartition("#")[0], action.blueprint)
                tell(SlotGerminated(slot=slot, seed=f"{slot}.1", blueprint=action.blueprint, params=size))
                stages[slot] = "germinated"
            elif action.op == "advance" and stages[slot] == "training":
                stage(slot, "blending")
                tell(SlotAlphaChanged(slot=slot, seed=f"{slot}.1", alpha_from=0, alpha_to=1, ramp="linear", steps=0))
            elif action.op == "advance":
                stage(slot, {"germinated": "training", "blending": "holding"}[stages[slot]])
            elif action.op == "fossilize":
                kept[slot] = standing[slot][2]
                stage(slot, "fossilized")
                outcome(slot, epoch)
            elif action.op == "prune":
                stage(slot, "pruned")
                outcome(slot, epoch)
        for slot in list(standing):
            outcome(slot, self.epochs - 1)
        self.totals.append(sum(kept.values()))
        return self.totals[-1]
