"""Errors of this room, below those of the policies, and the one place that knows what must be installed.

PolicyError
├── LearningError      a policy cannot be trained with what it was given
├── MissingExtra       an optional package is not installed
└── CheckpointError    a checkpoint does not fit
"""

import warnings
from typing import Any

from ..errors import PolicyError

_EXTRA = "training policy gnn-ppo needs its extra: pip install 'morphogen[policy]'"


class LearningError(PolicyError):
    """A policy cannot be trained with what it was given."""


class MissingExtra(PolicyError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


def geometric() -> tuple[Any, Any]:
    """Return PyTorch Geometric's GATv2 and attention pooling. Raises MissingExtra."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what these packages say about torch while they load is not the user's to mend
        try:
            from torch_geometric.nn import GATv2Conv
            from torch_geometric.nn.aggr import AttentionalAggregation
        except ImportError as error:
            raise MissingExtra(f"{_EXTRA} ({error})") from error
    return GATv2Conv, AttentionalAggregation


def reinforcement() -> Any:
    """Return TorchRL and TensorDict's parts that are used here, by name. Raises MissingExtra."""
    from types import SimpleNamespace

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from tensordict import TensorDict
            from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
            from torchrl.modules import MaskedCategorical
            from torchrl.objectives import ClipPPOLoss
        except ImportError as error:
            raise MissingExtra(f"{_EXTRA} ({error})") from error
    return SimpleNamespace(
        TensorDict=TensorDict,
        TensorDictModule=TensorDictModule,
        ProbabilisticTensorDictModule=ProbabilisticTensorDictModule,
        ProbabilisticTensorDictSequential=ProbabilisticTensorDictSequential,
        MaskedCategorical=MaskedCategorical,
        ClipPPOLoss=ClipPPOLoss,
    )
