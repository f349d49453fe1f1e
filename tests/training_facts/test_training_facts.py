"""Each trouble that the standard facts name, in a real training run; and a healthy run, of which none holds.

All runs are recorded by one process into one log, and judged by the module as `morphogen know load std.training` brings it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import morphogen
from morphogen.bus import broker as brokers
from morphogen.bus.settings import Settings
from morphogen.schemas.knowledge.program import load

SCENARIOS = Path(__file__).with_name("scenarios.py")
HIDDEN = ["0", "2", "4", "6", "8", "10", "12", "14", "16"]  # the layers of sixteen that get less than a millionth

# What must be found in each run, and what else may truly be said of it.
MUST = {
    "healthy": set(),
    "vanishing": {"vanishing_gradients"},
    "exploding": {"exploding_gradients"},
    "dead": {"dead_units"},
    "plateau": {"plateau"},
    "divergence": {"divergence"},
    "leak": {"memory_growth"},
    "stall": {"data_stall"},
    "broken": {"divergence", "nonfinite_metrics", "nonfinite_values"},
}  # fmt: skip
MAY = {
    # A step of 30 times the gradient overflows, kills the units, and leaves the last layer saturated.
    "divergence": {"dead_units", "nonfinite_metrics", "nonfinite_values", "vanishing_gradients"},
}
RULES = {
    "vanishing": "Let the gradient through", "exploding": "Tame the gradient", "dead": "Revive the units",
    "plateau": "Change something", "divergence": "Stop and step back", "leak": "Find what is kept",
    "stall": "Feed the model", "broken": "Find where numbers end",
}  # fmt: skip
FACTS = [name.partition(".")[2] for name in load("std.training").facts]


def command(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "MORPHOGEN_HOME": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A log in which std.training was loaded, and then each scenario recorded."""
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORPHOGEN_HOME", str(folder))
        settings = Settings.from_environ()
    try:
        assert command(folder, "-m", "morphogen.cli", "know", "load", "std.training").startswith("Training: loaded")
        command(folder, str(SCENARIOS), *MUST)
        yield settings
    finally:
        brokers.down(settings)


@pytest.fixture(scope="module")
def changes(recorded: Settings) -> list[tuple[Any, ...]]:
    """What the stream found: place, run, fact, layer (or None), and whether it became true."""
    return morphogen.query(
        "SELECT seq, idx, part, run, fact, key->>'layer', holds FROM facts WHERE system = 'Training' ORDER BY ALL",
        wait=True, settings=recorded,
    ).rows()  # fmt: skip


@pytest.fixture(scope="module")
def found(changes: list[tuple[Any, ...]]) -> dict[str, dict[str, set[str | None]]]:
    """By run and fact, the layers (or None) of which it was true at some step."""
    held: dict[str, dict[str, set[str | None]]] = {name: {} for name in MUST}
    for *_, run, fact, layer, holds in changes:
        if holds:
            held[run].setdefault(fact, set()).add(layer)
    return held


@pytest.mark.parametrize("name", MUST)
def test_a_run_shows_what_is_wrong_with_it_and_nothing_else(
    found: dict[str, dict[str, set[str | None]]], name: str
) -> None:
    shown = set(found[name])

    assert MUST[name] <= shown
    assert shown - MUST[name] <= MAY.get(name, set())


def test_facts_about_layers_name_the_layers(found: dict[str, dict[str, set[str | None]]]) -> None:
    assert found["vanishing"]["vanishing_gradients"] == set(HIDDEN)
    assert found["exploding"]["exploding_gradients"] == {str(2 * i) for i in range(10)}
    # Layer 2 is silent, and so layer 0 gets no gradient at all: that is dead, and not vanishing.
    assert {"0", "2"} <= found["dead"]["dead_units"] <= {"0", "2", "4"}
    assert found["broken"]["nonfinite_values"] == {"0", "2", "4"}


def test_the_views_of_the_facts_and_the_stream_say_the_same_of_every_item(
    recorded: Settings, changes: list[tuple[Any, ...]]
) -> None:
    asked = []
    for name, info in load("std.training").facts.items():
        layer = "layer" if info.case == "Training.Layer" else "NULL::VARCHAR"
        asked.append(
            f"SELECT seq, idx, part, run, '{info.fact.name}' AS fact, whose, holds FROM (SELECT *, {layer} AS whose, "
            f"lag(holds) OVER (PARTITION BY run, {layer} ORDER BY seq, idx, part) AS before "
            f"FROM fact_training_{name.partition('.')[2]}) WHERE holds IS DISTINCT FROM before"
        )
    shown = morphogen.query(" UNION ALL ".join(asked) + " ORDER BY ALL", wait=True, settings=recorded)

    assert shown.rows() == changes
    assert {fact for *_, fact, _, holds in changes if holds} == set(FACTS)


def test_every_fact_has_a_rule_that_fired_where_it_holds_and_none_fired_in_the_healthy_run(recorded: Settings) -> None:
    fired: dict[str, set[str]] = {}
    for run, name in morphogen.query("SELECT run, name FROM rules_fired", wait=True, settings=recorded).rows():
        fired.setdefault(run, set()).add(name)

    assert {run: name for run, name in RULES.items() if name not in fired.get(run, set())} == {}
    assert "healthy" not in fired
    asked = {fact for rule in load("std.training").rules.values() for fact in rule.facts}
    assert asked == set(load("std.training").facts)


def test_the_command_shows_what_holds_now(recorded: Settings) -> None:
    shown = command(recorded.home, "-m", "morphogen.cli", "facts", "--run", "leak", "--json")

    assert '"fact": "memory_growth"' in shown
    assert shown.count("\n") == 1
