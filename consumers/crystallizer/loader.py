"""The tools in use: active versions verified, loaded side by side and called behind their guards, without a restart.

A version is loaded when its name, its hash, its signature (where keys are set), its grammar and its capabilities hold and it
can be imported in the sandbox. The table of loaded tools is replaced as a whole: calls in flight finish on the version they
began with, and a version that cannot be loaded leaves the one before it in place.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from morphogen.consumers.executions import tool_name
from morphogen.kernels.sandbox import (
    BadJob,
    Capabilities,
    Outcome,
    Sandbox,
    SandboxError,
    UnsafeTool,
    check,
    value_sha256,
)
from morphogen.schemas import CrystalInvoked, CrystalShadowed, Event
from morphogen.schemas.crystals import Guard
from morphogen.schemas.settling import settled

from . import world
from .acting import Use, Watch
from .annotations import NotAType, fits, parse
from .errors import GuardMissed, LoadRefused, NoTool
from .guards import malformed, missed, name_of
from .registry import Registry, Version
from .signing import distrust, trusted_keys
from .source import IMPORTED, importing, source_sha256
from .tape import Recorded, Tape


@dataclass(frozen=True)
class Loaded:
    """A version that was verified here. It never changes, so that a call can hold on to it."""

    version: Version
    capabilities: tuple[str, ...]

    @property
    def guards(self) -> Sequence[Guard]:
        """What must hold for it to be called."""
        return self.version.made.guards


@dataclass(frozen=True, kw_only=True)
class Called:
    """What came of a call. `uses` is what was done with capabilities, in order, also where it failed then.

    `invoked` is the event to publish. `error` is one line: what the tool raised, or what ended it.
    """

    tool: str
    number: int
    ok: bool
    value: Any = None
    error: str | None = None
    uses: tuple[Use, ...] = ()
    invoked: CrystalInvoked
    outcome: Outcome | None = None


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """What a refresh did, as (tool, number); `kept` and `refused` tell why a version could not be loaded."""

    loaded: tuple[tuple[str, int], ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()
    kept: dict[str, str] = field(default_factory=dict)  # the tool goes on with its version from before
    refused: dict[str, str] = field(default_factory=dict)  # the tool cannot be called


class Loader:
    """Calls tools. All active versions of `registry` are loaded at once; `refresh` takes what has come since.

    `capabilities` are what tools may be given; a call may pass its own of the same names. With `trusted` (public keys), only
    versions signed by one of them are loaded. Safe to use from several threads.
    """

    def __init__(
        self,
        registry: Registry,
        capabilities: Capabilities,
        sandbox: Sandbox,
        *,
        trusted: Iterable[str] | None = None,
    ) -> None:
        self.registry = registry
        self.capabilities = capabilities
        self.sandbox = sandbox
        self.trusted = None if trusted is None else trusted_keys(trusted)
        self._lock = threading.Lock()
        self._active: dict[str, Loaded] = {}  # by signature; replaced, never changed
        self._shadows: dict[str, Loaded] = {}
        self.boot = self.refresh()

    def refresh(self, events: Iterable[Event] = ()) -> Refreshed:
        """Fold events into the registry and bring the loaded tools up to it, all at once."""
        with self._lock:
            for event in events:
                self.registry.seen(event)
            return self._swap()

    def active(self, signature: str) -> Version | None:
        """Return the loaded version that a call for this family would run, or None."""
        found = self._active.get(signature)
        return None if found is None else found.version

    def shadowing(self, signature: str) -> Version | None:
        """Return the loaded version that waits beside the live mode, or None."""
        found = self._shadows.get(signature)
        return None if found is None else found.version

    def call(
        self,
        signature: str,
        params: Mapping[str, Any],
        request: str,
        environment: Mapping[str, str],
        *,
        capabilities: Capabilities | None = None,
    ) -> Called:
        """Call the active version for a family.

        Raises NoTool where there is none that can run here, and GuardMissed where it is not for this call; both before
        anything is run, but for guards of the world, where `GuardMissed.uses` says what was done.
        """
        loaded = self._loaded(signature)
        made = loaded.version.made
        began = time.monotonic_ns()
        found = missed(loaded.guards, params, environment)
        if found is not None:
            raise self._missed(loaded, request, *found, began=began)
        given = self.capabilities if capabilities is None else capabilities
        absent = [name for name in loaded.capabilities if name not in given.functions]
        if absent:
            raise NoTool(f"{made.tool} needs the capability {absent[0]!r}, which this call does not give; declare it")
        broke: list[tuple[Guard, str]] = []

        def look(use: Use) -> str | None:
            one = world.broken(loaded.guards, use.name, use.args, use.result, params)
            if one is not None:
                broke.append(one)
            return None if one is None else f"the world is not as it was: {one[1]}"

        watch = Watch(given, loaded.capabilities, look)
        asked, changed = self._ask(loaded, params, given)
        if changed is not None:
            raise self._missed(loaded, request, *changed, began=began, uses=asked)
        outcome = self._run(loaded, params, watch.capabilities)
        if broke:
            raise self._missed(loaded, request, *broke[0], began=began, outcome=outcome, uses=(*asked, *watch.uses))
        error = _error(outcome) or _misfit(made.returns, outcome.value)
        return Called(
            tool=made.tool,
            number=made.number,
            ok=error is None,
            value=outcome.value if error is None else None,
            error=error,
            uses=(*asked, *watch.uses),
            invoked=_invoked(loaded, request, began, outcome=outcome, error=error),
            outcome=outcome,
        )

    def shadow(
        self,
        signature: str,
        params: Mapping[str, Any],
        request: str,
        environment: Mapping[str, str],
        *,
        steps: Iterable[Recorded],
        output: Any,
        served_ns: int = 0,
    ) -> CrystalShadowed | None:
        """Run the waiting version on a tape of what the mode that served did, and compare; nothing is done for real.

        None where there is no such version, where its guards do not hold for this call, or where it cannot be run here.
        """
        loaded = self._shadows.get(signature)
        if loaded is None or missed(loaded.guards, params, environment) is not None:
            return None
        began = time.monotonic_ns()
        tape = Tape(steps, self.capabilities)
        try:
            outcome = self._run(loaded, params, tape.capabilities)
        except NoTool:
            return None
        for use in tape.uses:
            if use.ok and world.broken(loaded.guards, use.name, use.args, use.result, params) is not None:
                return None
        reason = tape.fault() or _error(outcome) or _difference(outcome.value, settled(output))
        return CrystalShadowed(
            tool=loaded.version.tool,
            number=loaded.version.number,
            request=request,
            agreed=reason is None,
            reason=reason or "",
            duration_ns=time.monotonic_ns() - began,
            served_ns=served_ns,
        )

    def _loaded(self, signature: str) -> Loaded:
        found = self._active.get(signature)
        if found is None:
            raise NoTool(f"there is no active tool for {signature}; see: morphogen crystals list")
        return found

    def _ask(
        self, loaded: Loaded, params: Mapping[str, Any], given: Capabilities
    ) -> tuple[tuple[Use, ...], tuple[Guard, str] | None]:
        """Make the reads that the tool itself leaves out, and say which no longer gives what it always gave."""
        sentinels = [(one, args) for one in loaded.guards if (args := world.asked_of(one, params)) is not None]
        reads = Watch(given, {one.subject for one, _ in sentinels if one.subject in given.functions})
        for one, args in sentinels:
            declared = given.functions.get(one.subject)
            if declared is None or declared.effect not in {"read", "pure"}:
                return tuple(reads.uses), (one, f"{one.subject} cannot be read here")
            try:
                result = reads.capabilities.functions[one.subject].function(**args)
            except Exception as error:  # noqa: BLE001 - a declared function may fail in any way: it is no longer as it was
                return tuple(reads.uses), (one, f"{one.subject} failed: {error}")
            broke = world.broken(loaded.guards, one.subject, args, result, params)
            if broke is not None:
                return tuple(reads.uses), broke
        return tuple(reads.uses), None

    def _run(self, loaded: Loaded, params: Mapping[str, Any], capabilities: Capabilities) -> Outcome:
        made = loaded.version.made
        try:
            return self.sandbox.run(made.source, dict(params), entry=made.entry, capabilities=capabilities)
        except BadJob as error:
            raise NoTool(f"{made.tool} cannot be called with this: {error}") from None
        except SandboxError as error:
            raise NoTool(f"{made.tool} cannot be run here: {error}") from None

    def _missed(
        self,
        loaded: Loaded,
        request: str,
        guard: Guard,
        why: str,
        *,
        began: int,
        outcome: Outcome | None = None,
        uses: tuple[Use, ...] = (),
    ) -> GuardMissed:
        name = name_of(guard)
        invoked = _invoked(loaded, request, began, outcome=outcome, error=why, guard=name)
        made = loaded.version.made
        return GuardMissed(f"{made.tool} version {made.number}: guard {name}: {why}", guard, invoked, uses, name)

    def _swap(self) -> Refreshed:
        active: dict[str, Loaded] = {}
        shadows: dict[str, Loaded] = {}
        done = Refreshed()
        loaded: list[tuple[str, int]] = []
        for tool in self.registry.tools.values():
            before = self._active.get(tool.signature)
            wanted = self.registry.active(tool.signature)
            if wanted is not None:
                try:
                    active[tool.signature] = self._take(wanted, before)
                except LoadRefused as refused:
                    if before is not None and self._may_stay(before):
                        active[tool.signature] = before
                        done.kept[tool.name] = str(refused)
                    else:
                        done.refused[tool.name] = str(refused)
                else:
                    if active[tool.signature] is not before:
                        loaded.append((wanted.tool, wanted.number))
            waiting = self.registry.shadow(tool.signature)
            if waiting is not None:
                try:
                    shadows[tool.signature] = self._take(waiting, self._shadows.get(tool.signature))
                except LoadRefused as refused:
                    done.refused.setdefault(f"{tool.name} version {waiting.number}", str(refused))
        dropped = tuple(
            (one.version.tool, one.version.number)
            for signature, one in self._active.items()
            if signature not in active or active[signature].version.number != one.version.number
        )
        self._active, self._shadows = active, shadows
        return Refreshed(loaded=tuple(loaded), dropped=dropped, kept=done.kept, refused=done.refused)

    def _may_stay(self, before: Loaded) -> bool:
        """Whether a version that another should have replaced is still fit to be called: it was not judged bad."""
        now = self.registry.version(before.version.tool, before.version.number)
        return now is not None and now.state in {"active", "superseded"}

    def _take(self, version: Version, before: Loaded | None) -> Loaded:
        if before is not None and before.version.made == version.made:
            return before
        self._verify(version)
        return Loaded(version, tuple(version.made.capabilities))

    def _verify(self, version: Version) -> None:
        """Raise LoadRefused where a version may not be loaded here."""
        made = version.made
        where = f"{made.tool} version {made.number} is not loaded"
        if made.tool != tool_name(made.signature):
            raise LoadRefused(f"{where}: its name is not that of its family {made.signature}")
        if made.source_sha256 != source_sha256(made.source):
            raise LoadRefused(f"{where}: its text is not the one that was registered; import or make it again")
        if self.trusted is not None and (why := distrust(made, self.trusted)) is not None:
            raise LoadRefused(f"{where}: {why}")
        for guard in made.guards:
            if (why := malformed(guard)) is not None:
                raise LoadRefused(f"{where}: guard {name_of(guard)[:80]}: {why}")
        asked = {one.subject for one in made.guards if world.asked_of(one, {}) is not None}
        for name in sorted({*made.capabilities, *asked}):
            declared = self.capabilities.functions.get(name)
            if declared is None:
                raise LoadRefused(f"{where}: it needs the capability {name!r}; declare it")
            if declared.effect not in made.effects and name not in asked:
                raise LoadRefused(f"{where}: {name!r} is {declared.effect} now, and it was proven with another effect")
        try:
            check(made.source, entry=made.entry, tools=made.capabilities)
        except UnsafeTool as refusal:
            raise LoadRefused(f"{where}: {refusal}") from None
        try:
            outcome = self.sandbox.run(importing(made.source), entry=IMPORTED, capabilities=Capabilities())
        except SandboxError as error:
            raise LoadRefused(f"{where}: {error}") from None
        if not outcome.ok:
            raise LoadRefused(f"{where}: it cannot be imported: {_error(outcome)}")


def _invoked(
    loaded: Loaded,
    request: str,
    began: int,
    *,
    outcome: Outcome | None = None,
    error: str | None = None,
    guard: str | None = None,
) -> CrystalInvoked:
    return CrystalInvoked(
        tool=loaded.version.tool,
        number=loaded.version.number,
        request=request,
        ok=error is None,
        guard=guard,
        error=error,
        duration_ns=time.monotonic_ns() - began,
        cpu_ns=0 if outcome is None else outcome.cpu_ns,
        rss_bytes=0 if outcome is None else outcome.rss_bytes,
        layers=() if outcome is None else outcome.layers_held,
    )


def _error(outcome: Outcome) -> str | None:
    """Return what a tool raised, or what ended it, in one line."""
    failure = outcome.error
    if failure is None:
        return None
    line = f" (line {failure.line})" if failure.line is not None else ""
    return f"{failure.type}: {' '.join(failure.message.split())[:500]}{line}"


def _misfit(returns: str, value: Any) -> str | None:
    try:
        return None if fits(parse(returns), value) else f"it gave {type(value).__name__}, and says {returns}"
    except NotAType:
        return None  # what the gauntlet let through without a type is not judged by one


def _difference(value: Any, output: Any) -> str | None:
    if value_sha256(value) == value_sha256(output):
        return None
    return f"it gives {repr(value)[:200]} where {repr(output)[:200]} was given"
