"""The network for training it: PyTorch Geometric's attention, over many observations at once.

`forward.think` computes the same for one observation; the weights have the same names here and there.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from .batch import Batch
from .encode import ACTION_FEATURES, EDGE_KINDS
from .errors import geometric
from .forward import GERMINATE
from .settings import OPS, Settings
from .weights import FIXED, TRUNKS

if TYPE_CHECKING:
    from .weights import Weights

_NEVER = -1e9


class Trunk(nn.Module):
    """Reads a graph: rounds of GATv2 with a residual, attention pooling, and what each action is about."""

    def __init__(self, settings: Settings, inputs: int, rounds: int) -> None:
        super().__init__()
        conv, pool = geometric()
        hidden, heads = settings.hidden, settings.heads
        self.nodes = nn.Linear(inputs, hidden)
        self.rounds = nn.ModuleList(
            conv(hidden, hidden // heads, heads=heads, edge_dim=EDGE_KINDS, add_self_loops=False) for _ in range(rounds)
        )
        self.pool = pool(nn.Linear(hidden, 1))
        self.whole = nn.Linear(2 * hidden, hidden)
        self.action = nn.Linear(ACTION_FEATURES, hidden)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (all actions, 3 * hidden) and (many, hidden)."""
        nodes = functional.relu(self.nodes(batch.nodes))
        nodes = nodes + self._runs(nodes, batch)[batch.of_node]
        for attend in self.rounds:
            nodes = nodes + functional.relu(attend(nodes, batch.edges, batch.edge_kinds))
        pooled = self.pool(nodes, batch.of_node, dim_size=batch.many)
        whole = functional.relu(self.whole(torch.cat([pooled, self._runs(nodes, batch)], dim=1)))
        told = functional.relu(self.action(batch.actions))
        about = torch.cat([nodes, nodes.new_zeros(1, nodes.shape[1])])[batch.places]
        return torch.cat([about, told, whole[batch.of_action]], dim=1), whole

    @staticmethod
    def _runs(nodes: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the sum of each graph's nodes of kind `global`, (many, hidden)."""
        rows = nodes.new_zeros(batch.many, nodes.shape[1])
        return rows.index_add(0, batch.of_node[batch.is_run], nodes[batch.is_run])


class Members(nn.Module):
    """An ensemble of small networks over the same input, all at once."""

    def __init__(self, members: int, inputs: int, hidden: int) -> None:
        super().__init__()
        first = nn.Module()
        first.weight = nn.Parameter(torch.empty(members, hidden, inputs))
        first.bias = nn.Parameter(torch.empty(members, hidden))
        second = nn.Module()
        second.weight = nn.Parameter(torch.empty(members, hidden))
        self.add_module("0", first)
        self.add_module("1", second)

    def forward(self, about: torch.Tensor) -> torch.Tensor:
        """Return (members, rows)."""
        weight, bias = self.get_parameter("0.weight"), self.get_parameter("0.bias")
        inner = functional.relu(torch.einsum("ai,mhi->mah", about, weight) + bias[:, None])
        return torch.einsum("mah,mh->ma", inner, self.get_parameter("1.weight"))


class Fixed(nn.Module):
    """The random functions below the ensemble's members (Osband, Aslanides and Cassirer 2018); never trained."""

    def __init__(self, settings: Settings, inputs: int) -> None:
        super().__init__()
        self.nodes = nn.Linear(inputs, settings.hidden, bias=False)
        inner = Members(settings.members, ACTION_FEATURES + settings.hidden, settings.hidden // 2)
        for name, part in inner.named_children():
            self.add_module(name, part)
        self._inner = [inner]  # in a list: its parts are ours already

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return (members, all actions)."""
        nodes = torch.tanh(self.nodes(batch.nodes))
        about = torch.cat([nodes, nodes.new_zeros(1, nodes.shape[1])])[batch.places]
        found: torch.Tensor = self._inner[0](torch.cat([batch.actions, about], dim=1))
        return found


class Network(nn.Module):
    """All of it; made from weights, and read back as weights."""

    def __init__(self, weights: "Weights", settings: Settings) -> None:
        super().__init__()
        inputs, hidden = weights["act.nodes.weight"].shape[1], settings.hidden
        with torch.device("meta"):  # nothing is drawn: the weights are given
            for trunk in TRUNKS:
                self.add_module(trunk, Trunk(settings, inputs, settings.rounds[trunk]))
            self.score = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.Linear(hidden, 1, bias=False))
            self.ops = nn.Linear(hidden, len(OPS) + 1)
            self.rule = nn.Parameter(torch.empty(1))
            self.value = nn.Sequential(nn.Linear(hidden, hidden), nn.Linear(hidden, 1))
            self.gains = Members(settings.members, 3 * hidden, hidden // 2)
            self.add_module(FIXED, Fixed(settings, inputs))
        self.load_state_dict({name: torch.tensor(value) for name, value in weights.items()}, assign=True)
        self.settings = settings
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.startswith(f"{FIXED}."))

    def weights(self) -> "Weights":
        """Return a copy of all weights."""
        return {name: value.detach().numpy().copy() for name, value in self.state_dict().items()}

    def acting(self) -> list[nn.Parameter]:
        """Return what PPO trains."""
        return [one for name, one in self.named_parameters() if one.requires_grad and not name.startswith("gain")]

    def gaining(self) -> list[nn.Parameter]:
        """Return what the regression of rewards trains."""
        return [one for name, one in self.named_parameters() if one.requires_grad and name.startswith("gain")]

    def think(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the flat logits of all actions, before legality and predicted rewards, and the values, (many,)."""
        about, whole = self._part("act")(batch)
        hidden = functional.relu(self.score[0](about))
        logits = self.score[1](hidden)[:, 0] + self.ops(whole)[batch.of_action, batch.ops] - batch.counts
        inner = functional.relu(self.value[0](whole))
        return logits + self.rule * batch.rules, self.value[1](inner)[:, 0]

    def expect(self, batch: Batch) -> torch.Tensor:
        """Return the standardised reward that each member expects of each action, (members, all actions)."""
        about, _ = self._part("gain")(batch)
        with torch.no_grad():
            prior = self._part(FIXED)(batch)
        found: torch.Tensor = self.gains(about) + self.settings.prior * prior
        return found

    def log_chances(self, logits: torch.Tensor, batch: Batch, bonus: torch.Tensor) -> torch.Tensor:
        """Return the logarithms of the chances while exploring, (many, most); see `chances.chances`."""
        rows = batch.padded(logits + bonus, _NEVER).masked_fill(~batch.legal, _NEVER)
        shares = torch.softmax(rows, dim=1)
        floor = self.settings.floor
        mixed = (1 - floor) * shares + floor * batch.spread
        return torch.where(batch.legal, mixed.clamp_min(1e-30).log(), torch.tensor(_NEVER))

    def bonus(self, batch: Batch, optimism: float, nothing: float) -> torch.Tensor:
        """Return the log-odds that predicted rewards are worth, one an action, without gradient."""
        with torch.no_grad():
            gains = self.expect(batch)
            expected = gains.mean(0) + optimism * gains.std(0, correction=0)
        return self.settings.trust * torch.where(batch.ops == GERMINATE, expected - nothing, 0.0)

    def _part(self, name: str) -> Any:
        return self._modules[name]
