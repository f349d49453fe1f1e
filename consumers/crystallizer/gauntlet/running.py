"""The gauntlet itself: the stages in their order, up to the first that is not passed."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from morphogen.consumers.executions import Trace
from morphogen.kernels.sandbox import Capabilities, Sandbox, SandboxError
from morphogen.schemas import CrystalChecked, CrystalDrafted
from morphogen.schemas.crystals import Guard

from ..errors import unforeseen
from ..guards import derive_guards
from .config import GauntletConfig
from .promoting import promoted, shadowed
from .properties import properties
from .replaying import Replayed, imported, replayed
from .stage import Stage
from .statics import in_grammar, parsed, typed
from .verdict import Verdict

_log = logging.getLogger("morphogen.crystallizer")


def run_gauntlet(
    draft: CrystalDrafted,
    held_out: Sequence[Trace],
    *,
    sandbox: Sandbox,
    made_from: Sequence[Trace] = (),
    rejected: Sequence[Trace] = (),
    capabilities: Capabilities | None = None,
    shadows: tuple[int, int] | None = None,
    config: GauntletConfig | None = None,
    on_stage: Callable[[CrystalChecked], None] | None = None,
) -> Verdict:
    """Judge a draft, stage by stage; it never calls a real tool, and never raises for what the draft is or does.

    Args:
        draft: the text and what it says of itself.
        held_out: executions that whoever drafted has not seen. Those that succeeded and are whole are replayed, all of them.
        sandbox: where it is run; its pool may be shared. Runs that must not share a hash seed get interpreters of their own.
        made_from: the executions that the draft was made from. They widen the guards and are searched for contradictions.
        rejected: executions that somebody judged a failure; a draft that repeats one of them is refused.
        capabilities: the real ones, for the names of positional arguments and defaults; none of them is called.
        shadows: (agreed, run) beside the live mode, where they are to be judged as well; without, the stages `shadow` and
            `promotion` are left to come.
        config: how hard to try.
        on_stage: is told each stage as it is judged.

    Raises LayerMissing, SandboxBroken or Unsupported where nothing can be run on this machine.
    """
    config = config or GauntletConfig()
    proof = [trace for trace in held_out if trace.ok and trace.whole]
    others = [trace for trace in made_from if trace.ok and trace.whole]
    refused = [trace for trace in rejected if trace.outcome == "failure" and trace.whole and trace.output is not None]
    stages: list[CrystalChecked] = []
    guards: list[Guard] = []
    runs: list[tuple[Replayed, ...]] = []
    known = [*others, *proof]

    def replay() -> Stage:
        stage, found, sentinels = replayed(draft, proof, others, refused, sandbox, capabilities, config.held_out)
        runs.append(found)
        guards.extend(sentinels)
        return stage

    def property_() -> Stage:
        guards.extend(derive_guards(draft.params, known, frozenset(draft.capabilities)))
        with fresh(sandbox) as single:
            return properties(draft, known, runs[0], guards, sandbox, single, capabilities, config)

    def order() -> Iterator[tuple[str, Callable[[], Stage]]]:
        yield "parse", lambda: parsed(draft)
        yield "grammar", lambda: in_grammar(draft, known)
        yield "types", lambda: typed(draft, known)
        yield "sandbox_import", lambda: imported(draft, sandbox)
        yield "replay", replay
        yield "property", property_
        if shadows is not None:
            yield "shadow", lambda: shadowed(*shadows, config)
            yield "promotion", lambda: promoted(len(proof), *shadows, config)

    for name, judge in order():
        began = time.monotonic_ns()
        stages.append(_judged(name, judge).event(draft.attempt, time.monotonic_ns() - began))
        if on_stage is not None:
            on_stage(stages[-1])
        if not stages[-1].ok:
            return Verdict(draft=draft, stages=tuple(stages))
    return Verdict(
        draft=draft,
        stages=tuple(stages),
        guards=tuple(guards),
        effects=effects_of(draft, known),
        replayed=len(proof),
        limits={name: float(value) for name, value in msgspec.structs.asdict(sandbox.limits).items()},
    )


def _judged(name: str, judge: Callable[[], Stage]) -> Stage:
    """Return a stage as it was judged; one that nobody foresaw is not passed."""
    try:
        return judge()
    except (SandboxError, OSError):  # OSError: a full disk, no descriptor left: it is not the draft's fault
        raise
    except Exception as error:  # noqa: BLE001  told in the stage's reason
        _log.debug("the stage %s came to no end", name, exc_info=True)
        return Stage(name, f"it could not be judged: unexpected {unforeseen(error)}")


def effects_of(draft: CrystalDrafted, traces: Sequence[Trace]) -> tuple[str, ...]:
    """Return the effect classes that a draft's capabilities had in the recordings, sorted."""
    names = set(draft.capabilities)
    return tuple(sorted({step.effect for trace in traces for step in trace.tools if step.name in names}))


def fresh(sandbox: Sandbox) -> Sandbox:
    """Return a sandbox like this one that starts an interpreter for each call, with a hash seed of its own."""
    return Sandbox(sandbox.limits, layers=sandbox.required, own_interpreter=True, modules=sandbox.modules)
