"""What the log says of a growth that begins: where it may grow, what, within what limits, and who decides."""

import msgspec

from morphogen.consumers.executor import Stock
from morphogen.consumers.policy import Dish, Limits, Policy, Weights, config_of, options_of
from morphogen.consumers.policy.identity import version_of
from morphogen.kernels.slots import Slots
from morphogen.schemas import AdaptationStarted, line_of

from .config import GrowthConfig
from .errors import GrowthError


def beginning(
    slots: Slots,
    offered: Stock,
    policy: Policy,
    *,
    name: str,
    limits: Limits,
    weights: Weights,
    config: GrowthConfig,
    every: int,
    seed: int,
    label: str | None,
) -> AdaptationStarted:
    """Return the event that growth at these slots begins with, under the policy of this name.

    Raises GrowthError where the log cannot hold it, such as a module's name that is no text.
    """
    dishes = {
        site: [Dish(name=one.name, params=one.params, flops=one.flops, address=one.address) for one in items.values()]
        for site, items in offered.items()
    }
    told = config_of(limits, dishes, (), msgspec.to_builtins(weights)) | {
        "growth": msgspec.to_builtins(config),
        "every": every,
        "policy_options": options_of(policy),
        "refused_sites": dict(slots.refused),
    }
    started = AdaptationStarted(
        sites=list(slots.sites),
        policy=name,
        policy_version=version_of(policy),
        config=told,
        seed=seed,
        host_params=sum(p.numel() for p in slots.root.parameters()) - slots.params(),
        label=label,
    )
    try:
        started.encode()
    except Exception as error:
        raise GrowthError(f"the beginning of growth cannot be recorded: {line_of(error)}") from error
    return started
