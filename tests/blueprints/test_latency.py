"""The latency model: it covers what is proposed, grows with what is asked for, and survives being kept."""

import math

import msgspec
import pytest
import torch

from morphogen.kernels.blueprints import (
    Blueprint,
    BlueprintError,
    LatencyModel,
    Linear,
    Mlp,
    Request,
    UnfitBlueprint,
    calibrate,
    measure_latency,
    propose,
)
from morphogen.kernels.blueprints.templates import templates

from .sites import SITES


@pytest.fixture(scope="module")
def model() -> LatencyModel:
    return calibrate(batch=8, density=0.1, rounds=2)


def test_it_covers_every_template_and_stays_within_bounds(model: LatencyModel) -> None:
    for _, given, wanted in SITES:
        for blueprint in templates(given, wanted):
            assert 100 < model.predict(blueprint, length=8) < 10**9


def test_much_more_work_takes_longer(model: LatencyModel) -> None:
    small, large = (
        Blueprint(name="n", inputs=(32, width), nodes=(Mlp(out=width, hidden=4 * width),), output=1)
        for width in (4, 256)
    )

    assert model.predict(large) > 3 * model.predict(small)


def test_it_is_near_what_is_measured(model: LatencyModel) -> None:
    blueprint = Blueprint(name="n", inputs=(64,), nodes=(Linear(out=64),), output=1)
    took = measure_latency(torch.nn.Sequential(torch.nn.Linear(64, 64)), (64,), batch=8)

    assert 1 / 8 < model.predict(blueprint) / took < 8  # benchmarks/blueprints.py has the figure on a quiet machine


def test_a_limit_on_latency_is_kept(model: LatencyModel) -> None:
    asked = Request(site="s", kind="features", in_shape=(64,), out_shape=(10,))
    free = propose(asked, latency=model)
    times = sorted(proposal.latency_ns or 0 for proposal in free)
    limited = Request(site="s", kind="features", in_shape=(64,), out_shape=(10,), max_latency_ns=times[2])

    found = propose(limited, latency=model)
    assert found
    assert all(proposal.latency_ns is not None and proposal.latency_ns <= times[2] for proposal in found)


def test_it_is_kept_as_bytes_and_foreign_bytes_are_refused(model: LatencyModel) -> None:
    assert LatencyModel.decode(model.encode()) == model
    with pytest.raises(BlueprintError, match="no latency model"):
        LatencyModel.decode(b"{}")


def test_a_model_that_was_kept_before_whole_blueprints_were_measured_still_adds_up(model: LatencyModel) -> None:
    blueprint = Blueprint(name="n", inputs=(64,), nodes=(Linear(out=64), Linear(out=8, of=(1,))), output=2)
    kept = msgspec.json.decode(model.encode())
    assert set(kept.pop("wholes")) == {"features", "sequence", "image"}

    old = LatencyModel.decode(msgspec.json.encode(kept))
    total, terms = old._sum(blueprint, None)
    assert old.predict(blueprint) == round(total)
    corrected = msgspec.structs.replace(old, wholes={"features": [0.1, 0.0, 0.2]})
    assert corrected.predict(blueprint) == round(total * math.exp(0.1 + 0.2 * terms[2]))


def test_an_operation_that_was_not_calibrated_is_said() -> None:
    bare = LatencyModel(batch=1, device="cpu", threads=1, call_ns=1.0, fits={})
    with pytest.raises(UnfitBlueprint, match="linear was not calibrated"):
        bare.predict(Blueprint(name="n", inputs=(4,), nodes=(Linear(out=4),), output=1))
