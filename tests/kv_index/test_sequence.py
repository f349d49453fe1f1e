"""Numbers: whatever is lost, kept, sent again or begun anew, each message is taken once, in order, or said to be lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.kv_index.sequence import Sequence, Step, digest


class World:
    """A publisher of several lives, a wire that loses messages, and a reader that does what `Sequence` says."""

    def __init__(self, *, buffer: int, replays: bool = True) -> None:
        self.sequence = Sequence()
        self.buffer, self.replays = buffer, replays
        self.life, self.number = 0, 0
        self.kept: list[tuple[int, bytes]] = []
        self.taken: list[bytes] = []
        self.lost: list[tuple[int, int, int]] = []
        self.restarts = 0

    def send(self, *, heard: bool) -> None:
        payload = f"{self.life}.{self.number}".encode()
        self.kept = [*self.kept, (self.number, payload)][-self.buffer :] if self.buffer else []
        number, self.number = self.number, self.number + 1
        if heard:
            self.do(self.sequence.heard(number, payload))

    def restart(self) -> None:
        self.life, self.number, self.kept = self.life + 1, 0, []

    def do(self, step: Step) -> None:
        for _ in range(5):
            if step.restarted:
                self.restarts += 1
            if step.ask is None:
                break
            found = [one for one in self.kept if one[0] >= step.ask] if self.replays else None
            step = self.sequence.replayed(found)
        else:
            raise AssertionError("asks without an end")
        self.lost += [(self.life, first, last) for first, last in step.missing]
        self.taken += [payload for _, payload in step.take]


def test_messages_in_order_are_taken_as_they_come() -> None:
    world = World(buffer=10)
    for _ in range(4):
        world.send(heard=True)

    assert world.taken == [b"0.0", b"0.1", b"0.2", b"0.3"]


def test_what_the_wire_lost_is_had_again() -> None:
    world = World(buffer=10)
    for heard in (False, False, True, False, False, True):
        world.send(heard=heard)

    assert world.taken == [f"0.{n}".encode() for n in range(6)]
    assert (world.lost, world.restarts) == ([], 0)


def test_what_was_kept_no_more_is_said_to_be_lost() -> None:
    world = World(buffer=3)
    for heard in (True, *[False] * 6, True):
        world.send(heard=heard)

    assert world.taken == [b"0.0", b"0.5", b"0.6", b"0.7"]
    assert world.lost == [(0, 1, 4)]


def test_without_a_replay_socket_a_gap_is_a_gap() -> None:
    world = World(buffer=10, replays=False)
    for heard in (True, False, True):
        world.send(heard=heard)

    assert (world.taken, world.lost) == ([b"0.0", b"0.2"], [(0, 1, 1)])


def test_a_publisher_that_counts_from_zero_again_has_begun_anew() -> None:
    world = World(buffer=10)
    for _ in range(3):
        world.send(heard=True)
    world.restart()
    world.send(heard=True)
    world.send(heard=True)

    assert (world.restarts, world.taken[3:], world.lost) == (1, [b"1.0", b"1.1"], [])


def test_a_publisher_that_began_anew_unheard_is_found_out_by_what_it_sends_again() -> None:
    world = World(buffer=10)
    for _ in range(3):
        world.send(heard=True)
    world.restart()
    for heard in (False, False, False, False, True):
        world.send(heard=heard)

    assert (world.restarts, world.taken[3:], world.lost) == (1, [f"1.{n}".encode() for n in range(5)], [])


def test_a_silent_publisher_that_began_anew_is_found_out_by_asking() -> None:
    world = World(buffer=10)
    world.do(world.sequence.check())
    for _ in range(3):
        world.send(heard=True)
    world.do(world.sequence.check())
    world.restart()
    world.do(world.sequence.check())

    assert (world.restarts, world.taken, world.sequence.last) == (1, [b"0.0", b"0.1", b"0.2"], -1)
    world.send(heard=True)
    assert world.taken[3:] == [b"1.0"]


def test_the_tail_that_was_lost_is_had_by_asking() -> None:
    world = World(buffer=10)
    for heard in (True, False, False):
        world.send(heard=heard)
    world.do(world.sequence.check())

    assert world.taken == [b"0.0", b"0.1", b"0.2"]


def resumed(world: World) -> None:
    """Let another process go on with what the log has."""
    last = world.sequence.last
    known = digest(world.taken[-1]) if last >= 0 else None
    world.sequence = Sequence(last, known)


def test_a_reader_that_comes_back_asks_for_what_it_missed() -> None:
    world = World(buffer=10)
    world.send(heard=True)
    for _ in range(3):
        world.send(heard=False)
    resumed(world)
    world.do(world.sequence.check())

    assert (world.taken, world.restarts) == ([b"0.0", b"0.1", b"0.2", b"0.3"], 0)


@pytest.mark.parametrize("said", [0, 1, 2, 3, 6])
def test_a_publisher_that_began_anew_while_nobody_listened_is_found_out(said: int) -> None:
    world = World(buffer=10)
    for _ in range(3):
        world.send(heard=True)
    world.restart()
    for _ in range(said):
        world.send(heard=False)
    resumed(world)
    world.do(world.sequence.check())

    assert world.restarts == 1
    assert world.taken[3:] == [f"1.{n}".encode() for n in range(said)]


MOVES = st.lists(st.sampled_from(["heard", "heard", "heard", "lost", "restart", "check"]), max_size=60)


@given(MOVES, st.integers(0, 6), st.booleans())
def test_each_message_is_taken_once_in_order_or_lost_and_nothing_of_a_past_life_after_it_ended(
    moves: list[str], buffer: int, replays: bool
) -> None:
    world = World(buffer=buffer, replays=replays)
    for move in moves:
        if move == "restart":
            world.restart()
        elif move == "check" and replays:
            world.do(world.sequence.check())
        elif move != "check":
            world.send(heard=move == "heard")

    pairs = [tuple(map(int, payload.split(b"."))) for payload in world.taken]
    assert pairs == sorted(set(pairs)), "each once, in order, life after life"


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.booleans())
def test_of_one_life_what_is_not_taken_is_lost(heard: list[bool], replays: bool) -> None:
    world = World(buffer=3, replays=replays)
    for one in [*heard, True]:
        world.send(heard=one)

    numbers = {int(payload.split(b".")[1]) for payload in world.taken}
    missing = {number for _, first, last in world.lost for number in range(first, last + 1)}
    assert numbers | missing == set(range(len(heard) + 1))
    assert not numbers & missing
    assert world.restarts == 0
