"""Many observations as one, for training: graphs side by side as PyTorch Geometric has them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from .chances import spread_evenly
from .encode import EDGE_KINDS, KINDS, Encoded
from .forward import node_inputs, op_counts
from .scale import Scale


@dataclass(frozen=True, eq=False)
class Batch:
    """Observations one after the other: nodes, edges and actions are flat; `of_*` say whose they are; `at` is (many, most).

    `at` places each flat action in a padded row; `legal` (many, most) and `spread` (many, most) are padded already.
    """

    many: int
    most: int
    nodes: torch.Tensor
    is_run: torch.Tensor
    of_node: torch.Tensor
    edges: torch.Tensor
    edge_kinds: torch.Tensor
    actions: torch.Tensor
    places: torch.Tensor
    ops: torch.Tensor
    counts: torch.Tensor
    rules: torch.Tensor
    of_action: torch.Tensor
    at: torch.Tensor
    legal: torch.Tensor
    spread: torch.Tensor

    def padded(self, flat: torch.Tensor, filler: float) -> torch.Tensor:
        """Return flat numbers, one an action, as (many, most)."""
        rows = flat.new_full((self.many, self.most), filler)
        rows[self.of_action, self.at] = flat
        return rows


def batch_of(many: Sequence[Encoded], scale: Scale) -> Batch:
    """Put observations together; node places are shifted, -1 leads to the row of zeros behind the last node."""
    sizes = [len(seen.values) for seen in many]
    starts = [sum(sizes[:at]) for at in range(len(many))]
    counts = [len(seen.ops) for seen in many]
    most, total = max(counts), sum(sizes)
    places = [torch.tensor(seen.places) for seen in many]
    shifted = [torch.where(place < 0, total, place + start) for place, start in zip(places, starts, strict=True)]
    rules = [torch.arange(count) == seen.rule for seen, count in zip(many, counts, strict=True)]
    legal, spread = torch.zeros(len(many), most, dtype=torch.bool), torch.zeros(len(many), most)
    for row, seen in enumerate(many):
        legal[row, : counts[row]] = torch.from_numpy(seen.legal.copy())
        spread[row, : counts[row]] = torch.from_numpy(spread_evenly(seen.ops, seen.legal))
    return Batch(
        many=len(many),
        most=most,
        nodes=torch.cat([torch.from_numpy(node_inputs(scale, seen)) for seen in many]),
        is_run=torch.cat([torch.from_numpy(seen.kinds == KINDS.index("global")) for seen in many]),
        of_node=torch.repeat_interleave(torch.arange(len(many)), torch.tensor(sizes)),
        edges=torch.cat([torch.tensor(seen.edges) + start for seen, start in zip(many, starts, strict=True)], dim=1),
        edge_kinds=functional.one_hot(
            torch.cat([torch.from_numpy(seen.edge_kinds) for seen in many]), EDGE_KINDS
        ).float(),
        actions=torch.cat([torch.tensor(seen.actions) for seen in many]),
        places=torch.cat(shifted),
        ops=torch.cat([torch.tensor(seen.ops) for seen in many]),
        counts=torch.cat([torch.from_numpy(op_counts(seen.ops, seen.legal)) for seen in many]),
        rules=torch.cat(rules).float(),
        of_action=torch.repeat_interleave(torch.arange(len(many)), torch.tensor(counts)),
        at=torch.cat([torch.arange(count) for count in counts]),
        legal=legal,
        spread=spread,
    )
