"""Proposals: all of them build, fit and keep to the budget; the same request gives the same; gains are learned."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.kernels.blueprints import (
    TROUBLES,
    Blueprint,
    BlueprintError,
    Budget,
    GainModel,
    InvalidBlueprint,
    Mlp,
    Request,
    Shape,
    address,
    build,
    decode,
    flops,
    measured,
    params,
    propose,
    proposed,
    shape_of,
    validate,
)
from morphogen.kernels.blueprints.costs import fixed
from morphogen.kernels.blueprints.search import compact, evolve, mutate
from morphogen.kernels.blueprints.templates import templates
from morphogen.schemas import BlueprintProposed

from .sites import SITES, batch, blueprints


def request(kind: str, given: Shape, wanted: Shape, **more: object) -> Request:
    return Request(site="s", kind=kind, in_shape=given, out_shape=wanted, **more)  # type: ignore[arg-type]


@settings(max_examples=12)
@given(
    st.sampled_from(SITES),
    st.integers(0, 2**32),
    st.sampled_from([50, 2_000, 1_000_000]),
    st.sampled_from(TROUBLES),
)
def test_every_proposal_builds_fits_and_keeps_to_the_budget(
    site: tuple[str, Shape, Shape], seed: int, limit: int, trouble: str
) -> None:
    found = propose(request(*site, seed=seed, max_params=limit, max_flops=limit * 100, trouble=(trouble,)))

    for proposal in found:
        module = build(proposal.blueprint, seed=1)
        blueprint = proposal.blueprint
        assert module(batch(blueprint.inputs)).shape[1:] == fixed(shape_of(blueprint), 5, blueprint)
        assert sum(weight.numel() for weight in module.parameters()) == proposal.params <= limit
        assert proposal.flops == flops(blueprint, length=16) <= limit * 100
        assert (proposal.gain, proposal.latency_ns) == (None, None)
    assert len({address(proposal.blueprint) for proposal in found}) == len(found)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_templates_and_search_both_have_a_say_and_nothing_is_drawn_from_the_worlds_randomness(
    site: tuple[str, Shape, Shape],
) -> None:
    state = random.getstate()
    found = propose(request(*site, seed=3))

    assert len(found) == 8
    assert {proposal.origin for proposal in found} == {"template", "search"}
    assert found == propose(request(*site, seed=3))
    assert random.getstate() == state
    for proposal in found:
        assert bool(proposal.parents) == (proposal.origin == "search")


def test_where_nothing_fits_nothing_is_proposed() -> None:
    assert propose(request("features", (64,), (64,), max_params=0)) == []
    assert propose(request("sequence", (8, 4), (4, 4))) == []


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"trouble": ("boredom",)}, "known are"),
        ({"count": 0}, "from 1 to 64"),
        ({"max_latency_ns": 5}, "latency model"),
        ({"in_shape": (0,)}, "from 1 to"),
        ({"out_shape": ()}, "one to three axes"),
        ({"in_shape": (None,)}, "open"),
    ],
)
def test_a_request_that_cannot_be_is_refused(more: dict[str, object], says: str) -> None:
    whole: dict[str, object] = {"site": "s", "kind": "features", "in_shape": (4,), "out_shape": (4,), **more}
    with pytest.raises(InvalidBlueprint, match=says):
        propose(Request(**whole))  # type: ignore[arg-type]


def test_proposals_become_events_from_which_the_blueprint_can_be_read_back() -> None:
    asked = request("features", (8,), (4,), trouble=("bottleneck",))
    found = propose(asked)
    events = proposed(asked, found)

    assert [event.rank for event in events] == list(range(1, 9))
    for event, proposal in zip(events, found, strict=True):
        assert isinstance(event, BlueprintProposed)
        assert decode(event.spec) == proposal.blueprint
        assert (event.blueprint, event.params) == (address(proposal.blueprint), proposal.params)
    assert proposed(request("features", (8,), (5,)), found)[0].request != events[0].request


def test_what_was_proposed_is_what_is_measured() -> None:
    for proposal in propose(request("image", (3, 6, 6), (4, 6, 6), count=4)):
        event = measured(proposal.blueprint, request="r", batch=2)

        assert (event.built, event.error, event.request) == (True, None, "r")
        assert (event.params, event.flops) == (proposal.params, proposal.flops)
        assert event.latency_ns is not None
        assert event.latency_ns > 0


def test_what_does_not_build_is_measured_as_such() -> None:
    event = measured(Blueprint(name="bad", inputs=(4,), nodes=(Mlp(out=0, hidden=1),), output=1))

    assert (event.built, event.params, event.latency_ns) == (False, None, None)
    assert event.error is not None
    assert "out 0" in event.error


@settings(max_examples=100)
@given(blueprints(), st.integers(0, 2**32))
def test_a_mutation_is_valid_or_refused_and_reads_nothing_twice(blueprint: Blueprint, seed: int) -> None:
    rng = random.Random(seed)
    try:
        child = mutate(blueprint, rng)
        validate(child)
    except BlueprintError:
        return

    assert compact(child) == child
    assert child.inputs == blueprint.inputs
    assert build(child, seed=1)(batch(child.inputs)).shape[1:] == fixed(shape_of(child), 5, child)


def test_a_search_is_a_function_of_its_seed_and_finds_more_than_it_was_given() -> None:
    start = templates((8,), (4,))

    def score(blueprint: Blueprint) -> float:
        return -abs(params(blueprint) - 333)

    found = evolve(start, score, budget=Budget(params=1000), seed=5)

    assert found == evolve(start, score, budget=Budget(params=1000), seed=5)
    assert [f.blueprint for f in found] != [
        f.blueprint for f in evolve(start, score, budget=Budget(params=1000), seed=6)
    ]
    assert found[0].score > max(score(blueprint) for blueprint in start)
    assert all(params(f.blueprint) <= 1000 for f in found)


def test_gains_are_learned_from_outcomes_and_rank_proposals() -> None:
    known = templates((24,), (24,))
    outcomes = [(blueprint, 0.1 * math.log1p(params(blueprint))) for blueprint in known]
    model = GainModel.fit(outcomes)

    error = sum(abs(model.predict(blueprint) - gain) for blueprint, gain in outcomes) / len(outcomes)
    assert error < 0.03
    assert GainModel.decode(model.encode()) == model
    found = propose(request("features", (24,), (24,)), gains=model)
    best, worst = found[0].gain, found[-1].gain
    assert best is not None
    assert worst is not None
    assert best >= worst
    assert best <= max(gain for _, gain in outcomes) + 0.1  # no prediction far beyond what was ever seen


def test_too_few_or_broken_outcomes_and_bytes_give_no_model() -> None:
    known = templates((24,), (24,))
    with pytest.raises(BlueprintError, match="too few"):
        GainModel.fit([(known[0], 1.0)] * 7)
    with pytest.raises(BlueprintError, match="not finite"):
        GainModel.fit([(known[0], math.nan)] * 9)
    for data in (
        b"",
        b"{}",
        GainModel.fit([(b, 1.0) for b in known]).encode().replace(b'"weights":[', b'"weights":[1.0,'),
    ):
        with pytest.raises(BlueprintError):
            GainModel.decode(data)
