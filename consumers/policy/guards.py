"""What stands between a proposal and the network: each guard says what it found, and one that says no is enough.

The mask holds honest policies to most of this already. Guards ask again, from the state alone, because a policy is
anybody's code.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

from morphogen.schemas import Action, GuardResult, line_of

from .legal import GROWING, over_budget, refusal, too_soon
from .limits import Dish
from .observe import State
from .protocol import Proposal

DryRun: TypeAlias = Callable[[Action], str | None]
"""Tries an action on a shadow copy of the network; returns why it must not be done, or None."""


def guards(
    state: State, action: Action, proposal: Proposal | None = None, dry_run: DryRun | None = None
) -> tuple[GuardResult, ...]:
    """Ask every guard that has a say in `action`; the dry run comes last, and only where all others agree."""
    if action.op == "wait":
        return ()
    results = [_said("legal", refusal(state, action))]
    if action.op == "germinate":
        dish = _dish(state, action)
        results.append(_said("budget", "not on the menu" if dish is None else over_budget(state, dish)))
        results.append(_said("cooldown", too_soon(state)))
    if action.op in GROWING:
        results.append(_said("stability", unstable(state)))
        results.append(_said("uncertainty", _uncertain(state, proposal)))
    if dry_run is not None and action.op in GROWING and all(result.passed for result in results):
        results.append(_said("dry_run", _tried(dry_run, action)))
    return tuple(results)


def unstable(state: State) -> str | None:
    """Return why this is no time for a network to change, or None: a loss that explodes, or trouble not long ago."""
    limits = state.setting.limits
    if state.troubled is not None and state.epoch - state.troubled < limits.calm:
        return f"something failed {state.epoch - state.troubled} epochs ago, {limits.calm} calm ones are needed"
    if not state.epochs:
        return "no epoch was measured yet"
    newest = state.epochs[-1]
    losses = [loss for loss in (newest.train_loss, newest.val_loss) if loss is not None]
    if not losses:
        return "no loss was measured"
    if not all(map(math.isfinite, losses)):
        return "the loss is not finite"
    known = [epoch.val_loss for epoch in state.epochs if epoch.val_loss is not None and math.isfinite(epoch.val_loss)]
    best = min(known, default=None)
    if best is not None and newest.val_loss is not None and newest.val_loss > limits.explosion * best > 0:
        return f"the loss is {newest.val_loss:.4g}, more than {limits.explosion:g} times {best:.4g}"
    return None


def _uncertain(state: State, proposal: Proposal | None) -> str | None:
    most = state.setting.limits.max_uncertainty
    uncertainty = None if proposal is None else proposal.uncertainty
    if most is None or uncertainty is None:
        return None
    return None if uncertainty <= most else f"the policy's uncertainty is {uncertainty:.3g}, {most:g} may be"


def _dish(state: State, action: Action) -> Dish | None:
    slot = state.slots.get(action.slot or "")
    dishes = () if slot is None else state.setting.menu.get(slot.site, ())
    return next((dish for dish in dishes if dish.name == action.blueprint), None)


def _tried(dry_run: DryRun, action: Action) -> str | None:
    try:
        return dry_run(action)
    except Exception as error:  # noqa: BLE001  the shadow copy may do anything; the network must not follow it there
        return f"{type(error).__name__}: {line_of(error, 200)}"


def _said(guard: str, reason: str | None) -> GuardResult:
    return GuardResult(guard=guard, passed=reason is None, reason=reason or "")
