"""Which KV states lie in which tier: least recently used first down, pins and leases left alone, budgets kept.

Pure: the shelf is plain data, the clock a number that comes in. What follows from a shelf is a list of moves, which
the worker carries out and tells of.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from morphogen.schemas.kv import TIERS

from .errors import NoRoomLeft


@dataclass(frozen=True, kw_only=True)
class Item:
    """One state in one tier; `used` is any clock that goes up."""

    state: str
    tier: str
    size: int
    used: int = 0
    session: str | None = None
    tokens: int = 0
    pinned: bool = False
    held: int = 0  # by so many who read it, or to whom it is offered
    hits: int = 0


@dataclass(frozen=True)
class Move:
    """A state goes from a tier to a slower one, or away (`to_tier` None)."""

    state: str
    from_tier: str
    to_tier: str | None
    size: int


@dataclass(frozen=True)
class Shelf:
    """All items by state, and the bytes that each tier may hold; a tier without a budget is not used."""

    budgets: Mapping[str, int]
    items: Mapping[str, Item] = field(default_factory=dict)

    def used(self, tier: str) -> int:
        """Return the bytes that lie in a tier."""
        return sum(item.size for item in self.items.values() if item.tier == tier)

    def put(self, item: Item) -> "tuple[Shelf, list[Move]]":
        """Return the shelf with `item`, and the moves that make room for it, in their order.

        Raises NoRoomLeft where its tier can never hold it, or where all that lies there is pinned or held.
        """
        if item.tier not in TIERS:
            raise NoRoomLeft(f"there is no tier {item.tier!r}: choose one of {', '.join(TIERS)}")
        budget = self.budgets.get(item.tier, 0)
        if item.size > budget:
            raise NoRoomLeft(
                f"a KV state of {item.size} bytes does not fit into tier {item.tier} of {budget} bytes: raise its budget"
            )
        before = self.items.get(item.state)
        fixed = sum(
            one.size
            for one in self.items.values()
            if one.tier == item.tier and one.state != item.state and (one.pinned or one.held)
        )
        if fixed + item.size > budget:
            raise NoRoomLeft(
                f"tier {item.tier} has {budget - fixed} of {budget} bytes that are neither pinned nor in use, and "
                f"{item.size} are needed: drop something or raise its budget"
            )
        kept = replace(item, hits=item.hits + (before.hits if before else 0))
        shelf = replace(self, items={**self.items, item.state: kept})
        return shelf.settle(protect=(item.state,))

    def touch(self, state: str, now: int) -> "Shelf":
        """Return the shelf after a state was used."""
        return self._with(state, lambda item: replace(item, used=now, hits=item.hits + 1))

    def hold(self, state: str, count: int = 1) -> "Shelf":
        """Return the shelf after `count` more (or fewer) have a state open."""
        return self._with(state, lambda item: replace(item, held=max(0, item.held + count)))

    def pin(self, state: str, pinned: bool = True) -> "Shelf":
        """Return the shelf with a state that stays, or may go again."""
        return self._with(state, lambda item: replace(item, pinned=pinned))

    def drop(self, state: str) -> "Shelf":
        """Return the shelf without a state."""
        return replace(self, items={key: item for key, item in self.items.items() if key != state})

    def settle(self, protect: Iterable[str] = ()) -> "tuple[Shelf, list[Move]]":
        """Return the shelf within its budgets, and the moves that lead there.

        Of what may go, the least recently used goes first, to the next slower tier that could ever hold it; that tier
        is settled after. States in `protect`, pinned or held stay, and so a tier may stay over its budget.
        """
        kept = frozenset(protect)
        items, moves = dict(self.items), list[Move]()
        for place, tier in enumerate(TIERS):
            over = sum(item.size for item in items.values() if item.tier == tier) - self.budgets.get(tier, 0)
            if over <= 0:
                continue
            movable = [
                item
                for item in items.values()
                if item.tier == tier and not item.pinned and not item.held and item.state not in kept
            ]
            for item in sorted(movable, key=lambda one: (one.used, one.state)):
                if over <= 0:
                    break
                lower = next((next_ for next_ in TIERS[place + 1 :] if self.budgets.get(next_, 0) >= item.size), None)
                moves.append(Move(item.state, tier, lower, item.size))
                if lower is None:
                    del items[item.state]
                else:
                    items[item.state] = replace(item, tier=lower)
                over -= item.size
        return replace(self, items=items), moves

    def _with(self, state: str, change: Callable[[Item], Item]) -> "Shelf":
        item = self.items.get(state)
        return self if item is None else replace(self, items={**self.items, state: change(item)})
