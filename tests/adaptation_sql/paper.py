"""Runs on paper: what a training job, its executor and its policy would record, without a network.

Each arm (site, blueprint) takes a fixed share off a loss that has stalled. The policy learns from every outcome, as it
would live, so that what it records can be asked for again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from morphogen.consumers.policy import Decided, Decider, Dish, DryRun, Limits, Outcome, Policy, config_of
from morphogen.consumers.policy.timeline import Told
from morphogen.replay.backtest import Recorded
from morphogen.replay.backtest.recorded import Key, recorded_of
from morphogen.schemas import (
    SIGNALS,
    AdaptationStarted,
    DecisionOutcome,
    EpochMeasured,
    Event,
    LayerHealth,
    Names,
    SiteInfo,
    SlotAlphaChanged,
    SlotContribution,
    SlotGerminated,
    SlotHealth,
    SlotStageChanged,
)

SITES = ("fc1", "fc2")
MENU = (Dish(name="norm", params=8), Dish(name="mlp16", params=400))
HELPS = {"fc1|mlp16": 0.5, "fc1|norm": 0.05, "fc2|mlp16": -0.1, "fc2|norm": 0.01}
_AHEAD = {"germinated": "training", "training": "blending", "blending": "holding"}


@dataclass
class Paper:
    """One run; `events` are what it recorded, with their steps."""

    policy: Policy
    name: str = "paper"
    seed: int = 0
    epochs: int = 30
    helps: Mapping[str, float] = field(default_factory=lambda: HELPS)
    noise: float = 0.02
    limits: Limits = field(default_factory=lambda: Limits(cooldown=1, min_training=1, max_fossilized=None))
    dry_run: DryRun | None = None
    host: int = 166

    def __post_init__(self) -> None:
        self.events: list[tuple[Event, int]] = []
        self.decided: list[Decided] = []
        self.decider = Decider(self.policy, scope=self.name, dry_run=self.dry_run)
        self.seeds: dict[str, Decided] = {}
        self.stages: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.step = 0
        self.chance = np.random.default_rng(self.seed)

    def tell(self, event: Event) -> None:
        self.events.append((event, self.step))
        self.decider.take(event, self.step)

    def run(self) -> "Paper":
        sites = [SiteInfo(site=s, kind="features", in_shape=[64], out_shape=[2], slots=2, params=9) for s in SITES]
        config = config_of(self.limits, dict.fromkeys(SITES, MENU))
        self.tell(
            AdaptationStarted(
                sites=sites, policy=self.policy.name, config=config, seed=self.seed, host_params=self.host
            )
        )
        for epoch in range(self.epochs):
            self.epoch(epoch)
        for slot in list(self.seeds):
            self.judge(slot, self.epochs - 1)
        return self

    def epoch(self, epoch: int) -> None:
        self.step += 4
        health = {name: self.chance.normal(size=2).astype(np.float32) for name in SIGNALS}
        self.tell(LayerHealth(layers=Names(SITES), missing={"dead_share": [1]}, **health))
        if self.stages:
            ramped = [float(stage not in {"germinated", "training"}) for stage in self.stages.values()]
            self.tell(
                SlotHealth(
                    slots=Names(self.stages), stages=list(self.stages.values()), alpha=np.array(ramped, np.float32)
                )
            )
        for slot, stage in self.stages.items():
            if stage == "holding":
                gain = self.gain(slot)
                self.tell(
                    SlotContribution(slot=slot, seed=self.at(slot), split="val", n=99, alpha=1.0, loss_with=2.0 - gain,
                                     loss_without=2.0)
                )  # fmt: skip
        self.tell(EpochMeasured(epoch=epoch, train_loss=2.0, val_loss=2.0 + 0.01 * epoch, plateau=epoch >= 3, n=99))
        decided = self.decider.decide()
        self.decided.append(decided)
        for event in decided.events:
            self.tell(event)
        self.act(decided, epoch)

    def act(self, decided: Decided, epoch: int) -> None:
        action, slot = decided.action, decided.action.slot or ""
        match action.op:
            case "germinate":
                self.numbers[slot] = self.numbers.get(slot, 0) + 1
                self.seeds[slot] = decided
                self.tell(SlotGerminated(slot=slot, seed=self.at(slot), blueprint=f"{action.blueprint}@", params=10,
                                         decision=decided.decision))  # fmt: skip
                self.stages[slot] = "germinated"
            case "advance":
                self.move(slot, _AHEAD[self.stages[slot]], decided)
            case "fossilize":
                self.move(slot, "fossilized", decided)
                self.judge(slot, epoch)
            case "prune":
                self.judge(slot, epoch)
                for stage in ("pruned", "embargoed", "resetting", "dormant"):
                    self.move(slot, stage, decided)
                del self.stages[slot]

    def move(self, slot: str, stage: str, decided: Decided) -> None:
        alpha = 1.0 if stage in {"holding", "fossilized"} else 0.0
        self.tell(
            SlotStageChanged(slot=slot, seed=self.at(slot), from_stage=self.stages[slot], to_stage=stage, reason="asked",
                             alpha=alpha, decision=decided.decision)
        )  # fmt: skip
        self.stages[slot] = stage
        if stage == "blending":
            self.tell(
                SlotAlphaChanged(slot=slot, seed=self.at(slot), alpha_from=0, alpha_to=1, ramp="linear", steps=4)
            )  # fmt: skip

    def judge(self, slot: str, epoch: int) -> None:
        decided = self.seeds.pop(slot)
        measured = self.stages[slot] in {"holding", "fossilized"}
        gain = self.gain(slot, decided) if measured else None
        event = DecisionOutcome(
            decision=decided.decision, slot=slot, seed=self.at(slot), blueprint=f"{decided.action.blueprint}@",
            stage=self.stages[slot], epochs=epoch - decided.observation.epoch, contribution=gain,
            reward=0.0 if gain is None else gain - 0.01,
        )  # fmt: skip
        self.tell(event)
        proposed = decided.proposed
        self.policy.learn(
            Outcome(
                decision=event.decision, epoch=proposed.epoch, observation=proposed.observation, index=proposed.index,
                action=proposed.action, reward=event.reward, contribution=gain, slot=slot, seed=event.seed,
                stage=event.stage, epochs=event.epochs, logprob=proposed.logprob, value=proposed.value,
                seen=decided.observation,
            )
        )  # fmt: skip

    def gain(self, slot: str, decided: Decided | None = None) -> float:
        decided = decided or self.seeds[slot]
        share = self.helps.get(f"{slot.rpartition('#')[0]}|{decided.action.blueprint}", 0.0)
        return share + self.noise * float(np.random.default_rng((self.seed, self.numbers[slot])).normal())

    def at(self, slot: str) -> str:
        return f"{slot}.{self.numbers[slot]}"

    def told(self) -> Iterator[tuple[Key, Told]]:
        """Yield what was recorded as a reader of the log has it."""
        counts: dict[str, int] = {}
        for number, (event, step) in enumerate(self.events):
            family = event.type.split(".")[0]
            counts[family] = counts.get(family, 0) + 1
            yield Key(self.name, 1, 0), Told(f"w.{family}", counts[family], 1000 + number, step, event)

    def recorded(self) -> Recorded:
        """Return it as a run that can be gone over again."""
        (one,) = recorded_of(self.told())
        return one
