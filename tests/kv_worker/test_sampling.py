"""A token is a function of logits, settings, seed and position: nothing else has to be remembered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.kv import Sampling, pick
from morphogen.consumers.kv.sampling import uniform

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40).map(lambda row: np.array(row, np.float32))
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.floats(0, 2),
    top_k=st.integers(0, 50),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    repeat_penalty=st.floats(0.5, 2),
    seed=st.integers(0, 2**64 - 1),
)


@given(LOGITS, SAMPLINGS, st.integers(0, 10**6), st.lists(st.integers(0, 1), max_size=9))
def test_the_same_place_gives_the_same_token_and_it_is_one_of_the_vocabulary(
    logits: np.ndarray, sampling: Sampling, position: int, recent: list[int]
) -> None:
    before = logits.copy()
    token = pick(logits, sampling, position, recent)

    assert token == pick(logits.copy(), sampling, position, list(recent))
    assert 0 <= token < len(logits)
    assert np.array_equal(logits, before)


@given(LOGITS, SAMPLINGS, st.integers(0, 10**6))
def test_top_k_of_one_and_a_tiny_top_p_are_greedy(logits: np.ndarray, sampling: Sampling, position: int) -> None:
    greedy = int(np.argmax(logits))

    assert pick(logits, Sampling(), position) == greedy
    assert pick(logits, Sampling(temperature=1.0, top_k=1, seed=sampling.seed), position) == greedy
    assert pick(logits, Sampling(temperature=1.0, top_p=1e-9, seed=sampling.seed), position) == greedy
    likely = pick(logits, Sampling(temperature=1.0, min_p=1.0, seed=sampling.seed), position)
    assert logits[likely] == pytest.approx(logits.max(), abs=1e-6)


def test_tokens_are_drawn_as_often_as_their_probability_says() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    sampling = Sampling(temperature=1.0, seed=3)

    drawn = [pick(logits, sampling, position) for position in range(4000)]

    counts = np.bincount(drawn, minlength=3) / len(drawn)
    assert counts == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_positions_and_seeds_are_independent_draws() -> None:
    assert len({uniform(1, position) for position in range(100)}) == 100
    assert len({uniform(seed, 1) for seed in range(100)}) == 100
    assert uniform(7, 12) == uniform(7, 12)


def test_a_penalty_turns_away_from_what_was_just_said() -> None:
    logits = np.array([2.0, 1.9, -1.0])

    assert pick(logits, Sampling(repeat_penalty=1.5), 4, [0]) == 1
    assert pick(logits, Sampling(repeat_penalty=1.5, repeat_last=1), 4, [0, 1]) == 0


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": 2}, {"repeat_penalty": 0}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="temperature is from 0"):
        Sampling(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("setting", ["temperature", "repeat_penalty"])
def test_what_is_no_number_is_refused(setting: str, number: float) -> None:
    with pytest.raises(ValueError, match="are numbers"):
        Sampling(**{setting: number})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 2**200])
def test_a_seed_that_no_journal_can_hold_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="a seed has 64 bits"):
        Sampling(seed=seed)


@pytest.mark.filterwarnings("error")
def test_next_to_no_temperature_takes_the_likeliest_without_a_word() -> None:
    assert pick(np.array([1.0, 3.0, 2.0]), Sampling(temperature=5e-324), 7) == 1
