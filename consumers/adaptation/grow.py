"""`grow`: wire growth into a training loop."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from morphogen.consumers.executor import Evaluate, Menu
from morphogen.consumers.policy import Limits, Policy

from .config import GrowthConfig
from .recorder import Recorder

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from .grower import Grower


def grow(
    run: Recorder,
    model: "nn.Module",
    optimizer: "Optimizer",
    *,
    policy: "str | Policy | type[Any]" = "heuristic",
    evaluate: Evaluate | None = None,
    sites: Any = None,
    slots: int = 1,
    every: int = 1,
    budget: Limits | Mapping[str, Any] | None = None,
    config: GrowthConfig | Mapping[str, Any] | None = None,
    reward: Mapping[str, float] | None = None,
    seed: int = 0,
    label: str | None = None,
    menu: "Menu | Literal['proposed']" = None,
    example: Any = None,
) -> "Grower":
    """Let `model` grow while it trains; call the returned grower's `epoch()` after each epoch.

    Args:
        run: What `morphogen.record` returned, or anything with its `event` method. It holds one growth.
        model: The model; it stays the same object, and the same bits until something germinates.
        optimizer: The optimizer that trains it; seeds join it and leave it.
        policy: A built-in name, the path of a checkpoint, `module:Class`, a class, a policy, or `remote`: then the
            commands for `adapt.<run>` decide.
        evaluate: Returns loss and accuracy of a model on the same validation batches every time. Without it no seed is
            ever measured, and so none is kept.
        sites: Where it may grow: classes of modules, names, patterns, or a predicate; None chooses. The slots of a model
            that was restored from a checkpoint: growth goes on from there, and `config` bounds their seeds too.
        slots: Places at each site.
        every: Epochs from one decision to the next.
        budget: What may grow, and when: `policy.Limits`, or a mapping of its names.
        config: How it grows: `GrowthConfig`, or a mapping of its names.
        reward: Weights of the reward's terms: the names of `policy.Weights`.
        seed: Of the weights of seeds and of the policy's choices.
        label: What you call this kind of run, such as the arm of an experiment.
        menu: What may be germinated: names of the standard menu (all of it without this), blueprints or paths of artifacts
            by name, a function of the site that returns such, or `proposed`: what the generator proposes for each site.
        example: An input of the model (a tuple for several); without it the shapes are those of the first forward pass.

    Raises GrowthError, SlotError or PolicyError, in one line, for what cannot begin; after that nothing is raised.
    """
    from .grower import Grower

    return Grower(
        run,
        model,
        optimizer,
        policy=policy,
        evaluate=evaluate,
        sites=sites,
        slots=slots,
        every=every,
        budget=budget,
        config=config,
        reward=reward,
        seed=seed,
        label=label,
        menu=menu,
        example=example,
    )
