"""Which executions a tool is learned from, which it is held to, and what an attempt with them is called. Pure."""

import hashlib
from collections.abc import Callable, Sequence

from morphogen.consumers.executions import Trace

from .errors import NotMade
from .planning import FEWEST, INDEPENDENT, reasoned

LEARN = 30  # executions that a text is made from at most; the others of that side are held out too


def split(traces: Sequence[Trace]) -> tuple[list[Trace], list[Trace]]:
    """Return (made_from, held_out): half and half, by the order of a hash of their ids; whoever made them has no say.

    There is one on each side in which somebody reasoned. Raises NotMade where there are fewer than five executions, or two
    that were reasoned out.
    """
    if len(traces) < FEWEST:
        raise NotMade(f"{len(traces)} executions may be learned from, and {FEWEST} are needed: record more of them")
    independent = sum(map(reasoned, traces))
    if independent < INDEPENDENT:
        raise NotMade(
            f"{independent} of {len(traces)} executions were reasoned out, the others repeat them, and {INDEPENDENT} are "
            "needed: have it done once more with --mode learner"
        )
    ranked = sorted(traces, key=lambda one: _rank(one.execution))
    half = len(ranked) // 2
    held, made = ranked[:half], ranked[half:]
    for side, other in ((made, held), (held, made)):
        if not any(map(reasoned, side)):
            side.append(_taken(other, reasoned))
            other.append(_taken(side, lambda one: not reasoned(one)))
    made.sort(key=lambda one: not reasoned(one))  # what was reasoned out is learned from first
    held += made[LEARN:]
    return _in_time(made[:LEARN]), _in_time(held)


def _taken(side: list[Trace], fitting: Callable[[Trace], bool]) -> Trace:
    return side.pop(next(at for at, one in enumerate(side) if fitting(one)))


def attempt_id(signature: str, executions: Sequence[str], maker: str) -> str:
    """Return the name of an attempt: of the family, the set of executions and the maker."""
    said = "\n".join([signature, maker, *sorted(executions)])
    return f"a-{hashlib.sha256(said.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}"


def _rank(execution: str) -> bytes:
    return hashlib.sha256(execution.encode("utf-8", "surrogatepass")).digest()


def _in_time(traces: Sequence[Trace]) -> list[Trace]:
    return sorted(traces, key=lambda one: (one.at, one.execution))
