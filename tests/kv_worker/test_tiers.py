"""Tiers keep their budgets by moving down what was used longest ago; pins and leases are left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.kv import Item, Move, NoRoomLeft, Shelf
from morphogen.schemas.kv import TIERS

ITEMS = st.builds(
    Item,
    state=st.text("abcdefgh", min_size=1, max_size=2),
    tier=st.sampled_from(TIERS),
    size=st.integers(1, 20),
    used=st.integers(0, 50),
    pinned=st.booleans(),
    held=st.integers(0, 1),
)
BUDGETS = st.fixed_dictionaries({}, optional={tier: st.integers(0, 60) for tier in TIERS})


def replayed(before: Shelf, moves: list[Move]) -> dict[str, str | None]:
    where: dict[str, str | None] = {state: item.tier for state, item in before.items.items()}
    for move in moves:
        assert where[move.state] == move.from_tier
        where[move.state] = move.to_tier
    return where


@given(BUDGETS, st.lists(ITEMS, max_size=12))
def test_after_settling_a_tier_is_over_its_budget_only_by_what_may_not_go(
    budgets: dict[str, int], items: list[Item]
) -> None:
    before = Shelf(budgets, {item.state: item for item in items})

    shelf, moves = before.settle()

    for tier in TIERS:
        free = [item for item in shelf.items.values() if item.tier == tier and not (item.pinned or item.held)]
        assert not free or shelf.used(tier) <= budgets.get(tier, 0)
    assert replayed(before, moves) == {
        state: shelf.items[state].tier if state in shelf.items else None for state in before.items
    }


@given(BUDGETS, st.lists(ITEMS, max_size=12))
def test_what_is_pinned_or_held_never_moves_and_nothing_moves_up(budgets: dict[str, int], items: list[Item]) -> None:
    before = Shelf(budgets, {item.state: item for item in items})

    _, moves = before.settle()

    for move in moves:
        item = before.items[move.state]
        assert not item.pinned
        assert not item.held
        if move.to_tier is not None:
            assert TIERS.index(move.to_tier) > TIERS.index(move.from_tier)
            assert item.size <= budgets[move.to_tier]


@given(BUDGETS, st.lists(ITEMS, max_size=12))
def test_settling_twice_moves_nothing_more(budgets: dict[str, int], items: list[Item]) -> None:
    shelf, _ = Shelf(budgets, {item.state: item for item in items}).settle()

    assert shelf.settle() == (shelf, [])


@given(BUDGETS, st.lists(ITEMS, max_size=20))
def test_whatever_is_put_is_there_or_refused_and_no_free_state_is_over_a_budget(
    budgets: dict[str, int], items: list[Item]
) -> None:
    shelf = Shelf(budgets)
    for item in items:
        try:
            shelf, _ = shelf.put(item)
        except NoRoomLeft:
            continue
        assert shelf.items[item.state].tier == item.tier
    for tier in TIERS:
        assert shelf.used(tier) <= budgets.get(tier, 0)


def test_the_least_recently_used_goes_first_and_a_touch_saves_it() -> None:
    shelf = Shelf({"memory": 20, "disk": 100})
    for used, state in enumerate("ab"):
        shelf, _ = shelf.put(Item(state=state, tier="memory", size=10, used=used))

    _, moves = shelf.put(Item(state="c", tier="memory", size=10, used=9))
    assert moves == [Move("a", "memory", "disk", 10)]

    _, moves = shelf.touch("a", 5).put(Item(state="c", tier="memory", size=10, used=9))
    assert moves == [Move("b", "memory", "disk", 10)]


def test_a_full_lower_tier_passes_its_own_oldest_on_and_without_a_next_tier_a_state_is_gone() -> None:
    shelf = Shelf({"memory": 10, "disk": 10})
    shelf, _ = shelf.put(Item(state="a", tier="memory", size=10, used=1))
    shelf, _ = shelf.put(Item(state="b", tier="memory", size=10, used=2))

    shelf, moves = shelf.put(Item(state="c", tier="memory", size=10, used=3))

    assert moves == [Move("b", "memory", "disk", 10), Move("a", "disk", None, 10)]
    assert set(shelf.items) == {"b", "c"}


def test_a_pin_makes_the_next_one_go_and_a_tier_full_of_pins_refuses() -> None:
    shelf = Shelf({"memory": 10, "disk": 10})
    shelf, _ = shelf.put(Item(state="a", tier="memory", size=10, pinned=True))

    with pytest.raises(NoRoomLeft, match="0 of 10 bytes"):
        shelf.put(Item(state="b", tier="memory", size=1))
    shelf, moves = shelf.pin("a", pinned=False).put(Item(state="b", tier="memory", size=1, used=1))
    assert moves == [Move("a", "memory", "disk", 10)]


def test_a_state_larger_than_its_tier_and_a_tier_that_is_none_are_refused() -> None:
    with pytest.raises(NoRoomLeft, match="does not fit into tier memory of 10 bytes"):
        Shelf({"memory": 10}).put(Item(state="a", tier="memory", size=11))
    with pytest.raises(NoRoomLeft, match="there is no tier 'attic'"):
        Shelf({"memory": 10}).put(Item(state="a", tier="attic", size=1))


def test_hits_are_counted_and_survive_being_put_again() -> None:
    shelf, _ = Shelf({"memory": 10}).put(Item(state="a", tier="memory", size=5))
    shelf = shelf.touch("a", 1).touch("a", 2)
    shelf, _ = shelf.put(Item(state="a", tier="memory", size=5))

    assert shelf.items["a"].hits == 2
    assert shelf.hold("a").hold("a", -1).hold("a", -1).items["a"].held == 0
    assert shelf.drop("a").items == {}
