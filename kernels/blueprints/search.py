"""Evolution over graphs: change a good blueprint a little, keep what fits and scores. A pure function of its seed."""

import random
from collections.abc import Callable, Sequence

import msgspec

from .blueprint import Blueprint, address, kind_of
from .errors import BlueprintError
from .ops import (
    Activation,
    Attention,
    Conv,
    DepthwiseConv,
    Function,
    Gate,
    Linear,
    LowRankLinear,
    Mlp,
    Node,
    Norm,
    Residual,
)
from .shape_rules import channels_of, shapes
from .validation import Budget, validate

LONGEST = 12  # nodes of what a search makes
_FUNCTIONS: tuple[Function, ...] = ("relu", "gelu", "silu", "tanh")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A blueprint that a search came to, from which parents (their addresses), and how it scored."""

    blueprint: Blueprint
    parents: tuple[str, ...]
    score: float


def evolve(
    start: Sequence[Blueprint],
    score: Callable[[Blueprint], float],
    *,
    budget: Budget,
    seed: int,
    generations: int = 10,
    offspring: int = 32,
    population: int = 16,
    length: int | None = None,
) -> list[Found]:
    """Return what was found beyond the beginning, best first; each is valid, and keeps to the budget.

    Args:
        start: Valid blueprints of one input and output shape.
        score: What to maximise; called once for each new blueprint.
        budget: What each may cost.
        seed: The same seed and the same start give the same result.
        generations: How often to choose and change.
        offspring: Changes tried in a generation.
        population: How many live on.
        length: What an open length counts as.
    """
    if not start:
        return []
    rng = random.Random(seed)  # noqa: S311 an evolution is no secret
    inputs, wanted = start[0].inputs, shapes(start[0])[start[0].output]
    known = {address(blueprint) for blueprint in start}
    ranked = [Found(blueprint=blueprint, parents=(), score=score(blueprint)) for blueprint in start]
    ranked = sorted(ranked, key=_order)[:population]
    for _ in range(generations):
        born = []
        for _ in range(offspring):
            mother, father = _tournament(ranked, rng), _tournament(ranked, rng)
            try:
                child = _child(mother, father, rng)
                validate(child, inputs, wanted, budget, length=length)
            except BlueprintError:
                continue
            name = address(child)
            if name in known or len(child.nodes) > LONGEST:
                continue
            known.add(name)
            parents = (mother, father) if child.name == "both" else (mother,)
            child = msgspec.structs.replace(child, name=f"found-{name[:10]}")
            born.append(
                Found(blueprint=child, parents=tuple(address(parent) for parent in parents), score=score(child))
            )
        ranked = sorted([*ranked, *born], key=_order)[:population]
    return [found for found in ranked if found.parents]


def mutate(blueprint: Blueprint, rng: random.Random) -> Blueprint:
    """Return a blueprint with one change; it may be an invalid one, which `validate` tells.

    Raises:
        InvalidBlueprint: the change led to a graph whose shapes do not fit.
    """
    change = rng.choice((_resize, _resize, _refunction, _insert, _remove, _swap, _branch))
    return compact(change(blueprint, rng))


def crossed(one: Blueprint, other: Blueprint) -> Blueprint:
    """Return the sum of two blueprints of the same shapes, side by side."""
    shift = len(one.nodes)
    moved = [_reread(node, lambda place: place + shift if place else 0) for node in other.nodes]
    total = Residual(of=(one.output, other.output + shift))
    nodes = (*one.nodes, *moved, total)
    return Blueprint(name="both", inputs=one.inputs, nodes=nodes, output=len(nodes))


def compact(blueprint: Blueprint) -> Blueprint:
    """Return the same graph without the nodes that nothing reads."""
    used: set[int] = set()
    waiting = [blueprint.output]
    while waiting:
        number = waiting.pop()
        if number and number not in used:
            used.add(number)
            waiting.extend(blueprint.nodes[number - 1].of)
    places = {0: 0} | {number: place for place, number in enumerate(sorted(used), 1)}
    nodes = tuple(_reread(blueprint.nodes[number - 1], places.__getitem__) for number in sorted(used))
    return Blueprint(name=blueprint.name, inputs=blueprint.inputs, nodes=nodes, output=places[blueprint.output])


def _child(mother: Blueprint, father: Blueprint, rng: random.Random) -> Blueprint:
    if rng.random() < 0.15 and mother != father:
        return crossed(mother, father)
    child = mutate(mother, rng)
    return mutate(child, rng) if rng.random() < 0.3 else child


def _tournament(ranked: Sequence[Found], rng: random.Random) -> Blueprint:
    return min((rng.choice(ranked) for _ in range(3)), key=_order).blueprint


def _order(found: Found) -> tuple[float, int, str]:
    return (-found.score, len(found.blueprint.nodes), address(found.blueprint))


def _resize(blueprint: Blueprint, rng: random.Random) -> Blueprint:
    """Double or halve one inner size."""
    choices = []
    for number, node in enumerate(blueprint.nodes, 1):
        names = {Mlp: ("hidden",), LowRankLinear: ("rank",), Attention: ("heads", "width")}.get(type(node), ())
        if isinstance(node, Linear | Conv) and number != blueprint.output:
            names = ("out",)
        choices += [(number, name) for name in names]
    if not choices:
        return blueprint
    number, name = rng.choice(choices)
    node = blueprint.nodes[number - 1]
    size = getattr(node, name)
    changed = rng.choice((size * 2, size * 3, max(1, size // 2), size + 1))
    return _with(blueprint, number, msgspec.structs.replace(node, **{name: changed}))


def _refunction(blueprint: Blueprint, rng: random.Random) -> Blueprint:
    numbers = [number for number, node in enumerate(blueprint.nodes, 1) if isinstance(node, Activation | Mlp)]
    if not numbers:
        return blueprint
    number = rng.choice(numbers)
    return _with(
        blueprint, number, msgspec.structs.replace(blueprint.nodes[number - 1], function=rng.choice(_FUNCTIONS))
    )


def _insert(blueprint: Blueprint, rng: random.Random) -> Blueprint:
    """Put an operation that keeps the shape before a node, on what it reads first."""
    number = rng.randint(1, len(blueprint.nodes))
    node = blueprint.nodes[number - 1]
    kind = kind_of(shapes(blueprint)[node.of[0]])
    choices: list[Node] = [Norm(kind="layer"), Activation(function=rng.choice(_FUNCTIONS)), Gate()]
    if kind != "image":
        choices.append(Norm(kind="rms"))
    if kind != "features":
        choices.append(DepthwiseConv(kernel=3, padding=1 if kind == "image" else 0))
    added = msgspec.structs.replace(rng.choice(choices), of=node.of[:1])
    moved = [
        _reread(later, lambda place: place + 1 if place >= number else place) for later in blueprint.nodes[number - 1 :]
    ]
    moved[0] = msgspec.structs.replace(moved[0], of=(number, *moved[0].of[1:]))
    nodes = (*blueprint.nodes[: number - 1], added, *moved)
    return Blueprint(name=blueprint.name, inputs=blueprint.inputs, nodes=nodes, output=blueprint.output + 1)


def _remove(blueprint: Blueprint, rng: random.Random) -> Blueprint:
    """Read past a node that keeps the shape."""
    found = shapes(blueprint)
    numbers = [
        number
        for number, node in enumerate(blueprint.nodes, 1)
        if number != blueprint.output and found[number] == found[node.of[0]]
    ]
    if not numbers:
        return blueprint
    number = rng.choice(numbers)
    before = blueprint.nodes[number - 1].of[0]
    nodes = tuple(_reread(node, lambda place: before if place == number else place) for node in blueprint.nodes)
    return msgspec.structs.replace(blueprint, nodes=nodes)


def _swap(blueprint: Blueprint, rng: random.Random) -> Blueprint:
    """Make a linear map richer or poorer."""
    numbers = [n for n, node in enumerate(blueprint.nodes, 1) if isinstance(node, Linear | LowRankLinear | Mlp)]
    if not numbers:
        return blueprint
    number = rng.choice(numbers)
    node = blueprint.nodes[number - 1]
    image = kind_of(shapes(blueprint)[node.of[0]]) == "image"
    size = rng.choice((4, 8, 16, 32, 64))
    out = node.out  # type: ignore[union-attr]
    choices: list[Node] = [Mlp(out=out, hidden=size, function=rng.choice(_FUNCTIONS), of=node.of)]
    if image:
        choices.append(Conv(out=out, kernel=1, of=node.of))
    else:
        choices += [Linear(out=out, of=node.of), LowRankLinear(out=out, rank=size, of=node.of)]
    return _with(blueprint, number, rng.choice(choices))


def _branch(blueprint: Blueprint, rng: random.Random) -> Blueprint:
    """Add a second way from some value of the output's kind to the output."""
    found = shapes(blueprint)
    wanted = found[blueprint.output]
    out = channels_of(wanted)
    places = [place for place, shape in enumerate(found) if len(shape) == len(wanted) and shape[:-1] == wanted[:-1]]
    if kind_of(wanted) == "image":
        places = [place for place, shape in enumerate(found) if len(shape) == 3 and shape[1:] == wanted[1:]]
    if not places:
        return blueprint
    start, size = rng.choice(places), rng.choice((4, 16, 64))
    way: Node = Mlp(out=out, hidden=size, function=rng.choice(_FUNCTIONS), of=(start,))
    count = len(blueprint.nodes)
    nodes = (*blueprint.nodes, way, Residual(of=(blueprint.output, count + 1)))
    return msgspec.structs.replace(blueprint, nodes=nodes, output=count + 2)


def _with(blueprint: Blueprint, number: int, node: Node) -> Blueprint:
    nodes = (*blueprint.nodes[: number - 1], node, *blueprint.nodes[number:])
    return msgspec.structs.replace(blueprint, nodes=nodes)


def _reread(node: Node, where: Callable[[int], int]) -> Node:
    return msgspec.structs.replace(node, of=tuple(where(place) for place in node.of))
