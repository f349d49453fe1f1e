"""Each layer by itself: where it is missing it is named, and the others still keep every attack in."""

from collections.abc import Iterator

import pytest

from morphogen.kernels.sandbox import ALL, WITHOUT_NAMESPACES, LayerMissing, Limits, Sandbox

from .canary import ALONE, ATTACKS, HOSTILE_MODULES, Canary
from .spoiling import without

LIMITS = Limits(wall_seconds=2.0, cpu_seconds=1, memory_bytes=320 << 20)
NAMESPACES = ALL - WITHOUT_NAMESPACES
SPOILT = {"namespaces": NAMESPACES, "landlock": {"landlock"}, "seccomp": {"seccomp"}}
HANGS = {"double_fork_daemon"}  # takes half a second of its own


@pytest.fixture(scope="module", params=SPOILT)
def weakened(request: pytest.FixtureRequest) -> Iterator[tuple[str, Sandbox]]:
    patch = pytest.MonkeyPatch()
    without(patch, request.param)
    with Sandbox(LIMITS, layers=ALL - SPOILT[request.param], pool=1, modules=HOSTILE_MODULES) as sandbox:
        sandbox.probe()
        yield request.param, sandbox
    patch.undo()


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    found = Canary(tmp_path_factory.mktemp("canary"))
    yield found
    found.close()


@pytest.mark.parametrize("name", ALONE)
def test_no_attack_that_does_harm_outside_escapes_when_one_layer_is_gone(
    name: str, weakened: tuple[str, Sandbox], canary: Canary
) -> None:
    layer, sandbox = weakened
    canary.reset()
    outcome = sandbox.run(ATTACKS[name], {"c": canary.arguments()})

    assert canary.harm(repr(outcome)) == []
    assert set(outcome.layers_held) == ALL - SPOILT[layer]


@pytest.mark.parametrize("layer", SPOILT)
@pytest.mark.parametrize("own", [True, False])
def test_a_required_layer_that_does_not_hold_is_refused_by_name(
    layer: str, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, layer)
    with Sandbox(LIMITS, own_interpreter=own, pool=1) as sandbox:
        with pytest.raises(LayerMissing) as caught:
            sandbox.run("def run():\n    return 1\n")
        assert caught.value.layer in SPOILT[layer]
        assert "\n" not in str(caught.value)
        assert "spoilt" in str(caught.value)
        held = sandbox.probe()

    assert {name for name, reason in held.items() if reason} == SPOILT[layer]
