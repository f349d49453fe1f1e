"""What may be done, and which of it is legal now: from the state and the limits alone."""

from functools import lru_cache
from typing import NamedTuple

from morphogen.schemas import Action

from .limits import Dish, Limits, Setting
from .observe import SlotState, State
from .protocol import ACTIVE, WAIT

GROWING = frozenset({"germinate", "set_alpha", "advance", "fossilize"})  # ops that give a seed more say
_REACHED = 1e-6


def actions(state: State) -> tuple[tuple[Action, ...], tuple[Dish | None, ...]]:
    """Return every action of this run, legal or not, in an order that stays as it is; and the dish of each germination."""
    table = _table(state.setting, tuple((slot.slot, slot.site) for slot in state.slots.values()))
    return table.actions, table.dishes


class _Table(NamedTuple):
    actions: tuple[Action, ...]
    dishes: tuple[Dish | None, ...]
    ends: tuple[int, ...]  # where the actions of each slot end; its germinations come first
    params: tuple[int, ...]


@lru_cache(maxsize=32)
def _table(setting: Setting, slots: tuple[tuple[str, str], ...]) -> _Table:
    limits = setting.limits
    found: list[tuple[Action, Dish | None]] = [(WAIT, None)]
    ends = []
    for slot, site in slots:
        found += [(Action(op="germinate", slot=slot, blueprint=dish.name), dish) for dish in setting.menu.get(site, ())]
        found += [(Action(op=op, slot=slot), None) for op in ("advance", "prune", "fossilize")]
        found += [
            (Action(op="set_alpha", slot=slot, alpha=alpha, ramp=limits.ramp, steps=limits.ramp_steps), None)
            for alpha in limits.alphas
        ]
        ends.append(len(found))
    dishes = tuple(dish for _, dish in found)
    params = tuple(0 if dish is None else dish.params for dish in dishes)
    return _Table(tuple(action for action, _ in found), dishes, tuple(ends), params)


def mask(state: State) -> tuple[tuple[Action, ...], list[bool], tuple[int, ...]]:
    """Return the actions, which of them are legal (`refusal` is None), and how many parameters each would add."""
    table = _table(state.setting, tuple((slot.slot, slot.site) for slot in state.slots.values()))
    legal = [False] * len(table.actions)
    legal[0] = True
    shut = too_soon(state) is not None
    affordable: dict[tuple[int, int | None], bool] = {}  # of many sites and few costs
    at = 1
    for slot, end in zip(state.slots.values(), table.ends, strict=True):
        if slot.stage == "dormant" and not shut:
            while (dish := table.dishes[at] if at < end else None) is not None:
                cost = (dish.params, dish.flops)
                if cost not in affordable:
                    affordable[cost] = over_budget(state, dish) is None
                legal[at] = affordable[cost] and dish.address not in state.quarantined
                at += 1
        elif slot.stage in ACTIVE:
            for other in range(at, end):
                legal[other] = refusal(state, table.actions[other], table.dishes[other]) is None
        at = end
    return table.actions, legal, table.params


def refusal(state: State, action: Action, dish: Dish | None = None) -> str | None:
    """Return why `action` is not legal now, or None where it is. `dish` is looked up where it is not given."""
    if action.op == "wait":
        return None
    slot = state.slots.get(action.slot or "")
    if slot is None:
        return f"there is no slot {action.slot!r}"
    limits = state.setting.limits
    if action.op == "germinate":
        return _germination(state, limits, slot, action, dish)
    if action.op == "prune":
        return None if slot.stage in ACTIVE else f"{slot.slot} is {slot.stage}: there is nothing to prune"
    if action.op == "advance":
        return _advance(state, limits, slot)
    if action.op == "set_alpha":
        return _set_alpha(slot, action)
    if action.op == "fossilize":
        return _fossilization(state, limits, slot)
    return f"there is no action {action.op!r}"


def _germination(state: State, limits: Limits, slot: SlotState, action: Action, dish: Dish | None) -> str | None:
    dish = dish or next((one for one in state.setting.menu.get(slot.site, ()) if one.name == action.blueprint), None)
    if dish is None:
        return f"the menu of {slot.site} has no {action.blueprint!r}"
    if slot.stage != "dormant":
        return f"{slot.slot} is {slot.stage}, not dormant"
    if dish.address is not None and dish.address in state.quarantined:
        return f"{dish.name} is in quarantine"
    return over_budget(state, dish) or too_soon(state)


def over_budget(state: State, dish: Dish) -> str | None:
    """Return which budget one more seed of this kind would break, or None."""
    limits = state.setting.limits
    if state.active >= limits.max_active:
        return f"{state.active} seeds are not judged yet, {limits.max_active} may be"
    if limits.max_fossilized is not None and state.fossilized + state.active >= limits.max_fossilized:
        return f"{state.fossilized + state.active} seeds stand, {limits.max_fossilized} may be fossilized"
    params, flops = state.grown
    if limits.max_params is not None and params + dish.params > limits.max_params:
        return f"{params + dish.params} parameters would have grown, {limits.max_params} may"
    if limits.max_flops is not None and flops + (dish.flops or 0) > limits.max_flops:
        return f"{flops + (dish.flops or 0)} FLOPs would have grown, {limits.max_flops} may"
    return None


def too_soon(state: State) -> str | None:
    """Return why nothing may be germinated at this time of the run, or None."""
    limits = state.setting.limits
    if state.epoch < limits.earliest:
        return f"nothing grows before epoch {limits.earliest}"
    if state.changed is not None and state.epoch - state.changed < limits.cooldown:
        return f"the last change was {state.epoch - state.changed} epochs ago, the cooldown is {limits.cooldown}"
    left = epochs_left(state)
    if left is not None and left < limits.last_call:
        return f"{left} epochs are left, a seed needs {limits.last_call}"
    return None


def epochs_left(state: State) -> int | None:
    """Return how many epochs are still to come; None where the run's length is not known."""
    horizon = state.setting.limits.horizon
    return None if horizon is None else max(0, horizon - 1 - state.epoch)


def _advance(state: State, limits: Limits, slot: SlotState) -> str | None:
    epochs = state.epoch - slot.since
    if slot.stage == "germinated":
        return None
    if slot.stage == "training":
        return None if epochs >= limits.min_training else f"{epochs} epochs trained, {limits.min_training} are needed"
    if slot.stage == "blending":
        reached = slot.target is not None and slot.target > 0 and abs(slot.alpha - slot.target) <= _REACHED
        return None if reached else f"alpha is {slot.alpha:g}, not yet {slot.target}"
    return f"{slot.slot} is {slot.stage}: it does not advance"


def _set_alpha(slot: SlotState, action: Action) -> str | None:
    if slot.stage not in {"blending", "holding"}:
        return f"{slot.slot} is {slot.stage}: its alpha does not move"
    if action.alpha is None or not 0.0 <= action.alpha <= 1.0:
        return f"alpha {action.alpha} is not from 0 to 1"
    current = slot.alpha if slot.target is None else slot.target
    return f"alpha is {current:g} already" if abs(current - action.alpha) <= _REACHED else None


def _fossilization(state: State, limits: Limits, slot: SlotState) -> str | None:
    if slot.stage != "holding":
        return f"{slot.slot} is {slot.stage}, not holding"
    if state.epoch - slot.since < limits.min_holding:
        return f"{state.epoch - slot.since} epochs held, {limits.min_holding} are needed"
    if limits.max_fossilized is not None and state.fossilized >= limits.max_fossilized:
        return f"{state.fossilized} seeds are fossilized, {limits.max_fossilized} may be"
    judged = slot.contribution
    if judged is None or judged.loss is None or judged.alpha <= 0 or judged.epoch < slot.since - 1:
        return "its contribution was not measured while it was blended"
    if not judged.loss > limits.min_contribution:
        return f"it takes {judged.loss:.4g} off the loss, more than {limits.min_contribution:g} is needed"
    return None
