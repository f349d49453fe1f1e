"""Gates: what was not measured never passes."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.kernels.slots import GATE_OF, LEGAL, GateConfig, Measurements, SlotError, evaluate_gate

GOOD = Measurements(
    params=10,
    epochs_in_stage=5,
    alpha=1.0,
    alpha_target=1.0,
    grad_norm=0.1,
    grad_ratio=1.0,
    nonfinite=0.0,
    tripped=False,
    improvement=0.1,
    contribution=0.2,
    accuracy_gain=0.1,
)
GATES = ["G1", "G2", "G3", "G5"]
ASKS = {
    "G1": {"params", "tripped"},
    "G2": {"epochs_in_stage", "grad_norm", "nonfinite", "tripped"},
    "G3": {"epochs_in_stage", "alpha", "alpha_target", "nonfinite", "tripped"},
    "G5": {"epochs_in_stage", "contribution", "nonfinite", "tripped"},
}
FIELDS = Measurements.__struct_fields__


def with_(**changes: Any) -> Measurements:
    return msgspec.structs.replace(GOOD, **changes)


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_passes_on_good_measurements_and_names_its_checks(gate: str) -> None:
    result = evaluate_gate(gate, GOOD)

    assert result.passed and result.checks_passed and result.checks_failed == () and result.gate == gate


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("field", FIELDS)
def test_what_was_not_measured_never_passes_a_gate_that_asks_for_it(gate: str, field: str) -> None:
    assert evaluate_gate(gate, with_(**{field: None})).passed == (field not in ASKS[gate])


@pytest.mark.parametrize("gate", GATES)
def test_nothing_measured_passes_nothing(gate: str) -> None:
    result = evaluate_gate(gate, Measurements())

    assert not result.passed and result.checks_passed == ()


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("field", [field for field in FIELDS if isinstance(getattr(GOOD, field), float)])
def test_nan_never_passes_a_gate_that_asks_for_it(gate: str, field: str) -> None:
    assert evaluate_gate(gate, with_(**{field: float("nan")})).passed == (field not in ASKS[gate])


@pytest.mark.parametrize(
    ("gate", "wrong"),
    [
        ("G1", {"tripped": True}),
        ("G2", {"epochs_in_stage": 0}),
        ("G2", {"grad_norm": 0.0}),
        ("G2", {"grad_norm": 1e4}),
        ("G2", {"nonfinite": 1.0}),
        ("G3", {"alpha": 0.9}),
        ("G5", {"contribution": 0.0}),
        ("G5", {"contribution": -0.1}),
        ("G5", {"epochs_in_stage": 0}),
    ],
)
def test_a_gate_fails_on_what_it_asks_for(gate: str, wrong: dict[str, Any]) -> None:
    result = evaluate_gate(gate, with_(**wrong))

    assert not result.passed and len(result.checks_failed) == 1


def test_fossilizing_has_no_fallback_to_the_improvement_of_the_run() -> None:
    assert not evaluate_gate("G5", with_(contribution=None, improvement=100.0, accuracy_gain=1.0)).passed


def test_the_configuration_moves_the_bounds() -> None:
    strict = GateConfig(min_contribution=0.3, min_training_epochs=9, max_grad_norm=0.01)

    assert evaluate_gate("G5", GOOD, strict).checks_failed == ("contributes",)
    assert evaluate_gate("G2", GOOD, strict).checks_failed == ("epochs_in_training", "gradient_not_exploding")


def test_gates_stand_at_steps_of_the_table() -> None:
    assert all(there in LEGAL[here] for here, there in GATE_OF)
    assert sorted(GATE_OF.values()) == GATES
    with pytest.raises(SlotError, match="G4"):
        evaluate_gate("G4", GOOD)


@given(
    st.sampled_from(GATES),
    st.builds(Measurements, **{field: st.none() | st.floats() for field in ("grad_norm", "contribution")}),
)
def test_every_check_is_named_once(gate: str, measured: Measurements) -> None:
    result = evaluate_gate(gate, measured)

    names = (*result.checks_passed, *result.checks_failed)
    assert len(set(names)) == len(names) and result.passed == (not result.checks_failed)
