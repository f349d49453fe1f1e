"""What a germination will be worth: regression over all outcomes that were ever recorded, whoever decided.

The off-policy part, by prioritised replay (Schaul et al. 2015): what was predicted badly comes up more often, and
weighs less each time. It is our own, over some thousand priorities in an array: TorchRL's sampler needs a compiled tree
that is not in every build of it. Each member of the ensemble weighs every outcome by chance of its own (a Bayesian
bootstrap), so that members disagree where little is known.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from .batch import batch_of
from .episode import Lesson
from .network import Network
from .scale import Scale
from .settings import Settings

if TYPE_CHECKING:
    from .encode import Floats, Indices

_LEAST = 1e-2  # priority of what is predicted exactly


class Replay:
    """Germinations that were judged, and how well each is predicted; beyond the capacity the oldest are forgotten."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings = settings
        self.lessons: list[Lesson] = []
        self.priorities: Floats = np.zeros(0, np.float32)
        self._shares: Floats = np.zeros((settings.members, 0), np.float32)
        self._chance = np.random.default_rng((seed, 0x6761))

    def add(self, lessons: Sequence[Lesson]) -> None:
        """Take in more; what is new comes up as often as what is predicted worst."""
        many, most = len(lessons), self.settings.capacity
        first = self.priorities.max(initial=0) or 1.0
        drawn = self._chance.exponential(size=(many, self.settings.members)).T.astype(np.float32)
        self.lessons = [*self.lessons, *lessons][-most:]
        self.priorities = np.concatenate([self.priorities, np.full(many, first, np.float32)])[-most:]
        self._shares = np.concatenate([self._shares, drawn], axis=1)[:, -most:]

    def draw(self, many: int) -> "tuple[Indices, Floats]":
        """Return places, drawn by priority, and their importance weights, at most 1; both of shape (many,)."""
        shares = self.priorities.astype(np.float64) ** self.settings.priority
        shares /= shares.sum()
        places = self._chance.choice(len(shares), size=many, p=shares)
        weights = (len(shares) * shares[places]) ** -self.settings.correction
        return places, (weights / weights.max()).astype(np.float32)

    def train(
        self, network: Network, scale: Scale, mean: float, spread: float, optimizer: torch.optim.Optimizer
    ) -> dict[str, float]:
        """Draw `gain_draws` times, take `gain_steps` steps on each draw, and return how far predictions were off, in units of `spread`."""
        if not self.lessons:
            return {}
        errors: list[float] = []
        for _ in range(self.settings.gain_draws):
            places, weights = self.draw(min(self.settings.gain_batch, 2 * len(self.lessons)))
            lessons = [self.lessons[at] for at in places]
            batch = batch_of([lesson.seen.only(lesson.index) for lesson in lessons], scale)
            target = torch.tensor([(lesson.reward - mean) / spread for lesson in lessons])
            shares = torch.from_numpy(self._shares[:, places] * weights)
            for _ in range(self.settings.gain_steps):
                predicted = network.expect(batch)
                loss = functional.huber_loss(predicted, target.expand_as(predicted), reduction="none")
                optimizer.zero_grad()
                (loss * shares).mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            off = (predicted.detach().mean(dim=0) - target).abs()
            self.priorities[places] = off.numpy() + _LEAST
            errors.append(float(off.mean()))
        return {"gain_error": float(np.mean(errors))}
