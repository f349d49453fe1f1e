"""Changes of state: the table, and what a fold makes of moves that it does not allow."""

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.consumers.crystallizer import MOVES, IllegalMove, Registry, move
from morphogen.consumers.crystallizer.moves import BIRTH, legal, refusal
from morphogen.schemas import CrystalMoved, CrystalRegistered
from morphogen.schemas.crystals import STATES

TOOL, FAMILY = "tool_00000000000000aa", "g1-00000000000000aa"


def registered(number: int) -> CrystalRegistered:
    return CrystalRegistered(
        tool=TOOL, number=number, signature=FAMILY, attempt=f"a{number}", source="", source_sha256=""
    )


def path_to(state: str) -> list[str]:
    """Return the shortest way from birth to a state."""
    ways = [[BIRTH]]
    while ways[0][-1] != state:
        way = ways.pop(0)
        ways += [[*way, after] for after in sorted(MOVES[way[-1]])]
    return ways[0]


def test_the_table_is_of_the_states_of_the_log() -> None:
    assert set(MOVES) == set(STATES)
    assert all(after <= set(STATES) for after in MOVES.values())
    assert MOVES["retired"] == frozenset()


@pytest.mark.parametrize(("was", "now"), list(product(STATES, STATES)))
def test_each_pair_of_states_is_a_move_or_is_refused_in_one_line(was: str, now: str) -> None:
    if now in MOVES[was]:
        assert legal(was, now)
        assert move(TOOL, 1, was, now, "why").now == now
        return
    with pytest.raises(IllegalMove) as refused:
        move(TOOL, 1, was, now, "why")
    assert str(refused.value).startswith(f"{TOOL} version 1: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("was", "now"), list(product(STATES, STATES)))
def test_the_fold_makes_the_moves_of_the_table_and_no_others(was: str, now: str) -> None:
    registry = Registry([registered(1)])
    way = path_to(was)
    for before, after in pairwise(way):
        registry.seen(move(TOOL, 1, before, after, "on the way"))
    assert registry.refusals == 0
    registry.seen(CrystalMoved(tool=TOOL, number=1, was=was, now=now, reason="tried"))
    found = registry.version(TOOL, 1)
    assert found is not None
    assert found.state == (now if legal(was, now) else was)
    assert registry.refusals == (0 if legal(was, now) else 1)
    active = registry.active(FAMILY)
    assert (active is not None) == (found.state == "active")


def test_unknown_states_are_refused() -> None:
    assert refusal("shadow", "loved") is not None
    assert refusal("born", "active") is not None


moves = st.lists(st.tuples(st.integers(1, 3), st.sampled_from(STATES), st.sampled_from(STATES)), max_size=30)


@settings(max_examples=60)
@given(moves)
def test_whatever_the_log_says_at_most_one_version_is_active(told: list[tuple[int, str, str]]) -> None:
    registry = Registry([registered(1), registered(2)])
    for number, was, now in told:
        registry.seen(CrystalMoved(tool=TOOL, number=number, was=was, now=now, reason=""))
        states = [one.state for one in registry.tools[TOOL].versions.values()]
        assert states.count("active") <= 1
        active = registry.active(FAMILY)
        assert (active is None) == ("active" not in states)
        assert active is None or active.number == registry.tools[TOOL].active
