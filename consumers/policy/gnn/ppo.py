"""Proximal policy optimisation with masked actions, over what this very version has just decided.

TorchRL gives the clipped objective, the critic's loss and the masked distribution. The old log-probabilities are those
that were recorded with the decisions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from .advantage import advantages
from .batch import batch_of
from .episode import Episode
from .errors import reinforcement
from .learned import Step
from .network import Network
from .scale import Scale

if TYPE_CHECKING:
    from .batch import Batch


def improve(
    network: Network,
    episodes: Sequence[Episode],
    scale: Scale,
    optimizer: torch.optim.Optimizer,
    mean: float,
    spread: float,
) -> dict[str, float]:
    """Train `network` in place and return what was measured. `mean` and `spread` are of the rewards, as the version knew them."""
    settings = network.settings
    kept = [episode for episode in episodes if episode.steps]
    if not kept:
        return {}
    steps: list[Step] = [step for episode in kept for step in episode.steps]
    batch = batch_of([step.seen for step in steps], scale)
    with torch.no_grad():
        values = network.think(batch)[1].numpy()
    found, wanted, at = [], [], 0
    for episode in kept:
        epochs = np.array([step.seen.epoch for step in episode.steps], np.int64)
        own = values[at : at + len(epochs)]
        at += len(epochs)
        pair = advantages(
            epochs, episode.paid(settings.discount) / spread, own, discount=settings.discount, trace=settings.trace
        )
        found.append(pair[0])
        wanted.append(pair[1])
    advantage, target = np.concatenate(found), np.concatenate(wanted)
    told = {"return": float(target.mean()) * spread, "advantage_spread": float(advantage.std())}
    normal = (advantage - advantage.mean()) / (advantage.std() + 1e-3)
    return told | _passes(network, batch, steps, normal, target, optimizer, -mean / spread)


def _passes(
    network: Network,
    batch: "Batch",
    steps: Sequence[Step],
    advantage: Any,
    target: Any,
    optimizer: torch.optim.Optimizer,
    nothing: float,
) -> dict[str, float]:
    rl, settings = reinforcement(), network.settings
    many = len(steps)
    data = rl.TensorDict(
        {
            "step": torch.arange(many),
            "action": torch.tensor([step.index for step in steps]),
            "action_log_prob": torch.tensor([step.logprob for step in steps]),
            "advantage": torch.from_numpy(advantage)[:, None],
            "value_target": torch.from_numpy(target)[:, None],
        },
        batch_size=[many],
    )
    actor = rl.ProbabilisticTensorDictSequential(
        rl.TensorDictModule(_Actor(network, batch, nothing), in_keys=["step"], out_keys=["logits", "mask"]),
        rl.ProbabilisticTensorDictModule(
            in_keys=["logits", "mask"],
            out_keys=["action"],
            distribution_class=rl.MaskedCategorical,
            return_log_prob=True,
        ),
    )
    critic = rl.TensorDictModule(_Critic(network, batch), in_keys=["step"], out_keys=["state_value"])
    loss = rl.ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=settings.clip,
        entropy_coeff=settings.entropy,
        critic_coeff=settings.critic,
        functional=False,
    )
    told: dict[str, float] = {}
    for done in range(settings.passes):
        losses = loss(data)
        drift = float(losses["kl_approx"])
        if done and abs(drift) > settings.max_kl:
            break
        total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
        if not torch.isfinite(total):
            break
        optimizer.zero_grad()
        total.backward()
        norm = nn.utils.clip_grad_norm_(network.acting(), settings.grad_norm)
        optimizer.step()
        told = {
            "policy_loss": float(losses["loss_objective"].detach()),
            "value_loss": float(losses["loss_critic"].detach()),
            "entropy": float(losses["entropy"]),
            "kl": drift,
            "clipped": float(losses["clip_fraction"]),
            "grad_norm": float(norm),
            "passes": float(done + 1),
        }
    return told


class _Actor(nn.Module):
    """The chances of all actions at some steps of a batch."""

    def __init__(self, network: Network, batch: "Batch", nothing: float) -> None:
        super().__init__()
        self.network, self.batch = network, batch
        self.bonus = network.bonus(batch, network.settings.optimism, nothing)

    def forward(self, step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, _ = self.network.think(self.batch)
        return self.network.log_chances(logits, self.batch, self.bonus)[step], self.batch.legal[step]


class _Critic(nn.Module):
    """The values of some steps of a batch."""

    def __init__(self, network: Network, batch: "Batch") -> None:
        super().__init__()
        self.network, self.batch = network, batch

    def forward(self, step: torch.Tensor) -> torch.Tensor:
        return self.network.think(self.batch)[1][step, None]
