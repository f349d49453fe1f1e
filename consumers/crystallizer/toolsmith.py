"""Makes a tool of a family: splits its executions, drafts a text, has it judged, and tells the log each step of it.

An *attempt* is named after the family, the executions and the maker, so the same attempt is made once, by whoever makes it
and however often they are killed: what the log holds of it is taken up and not done again. Who drafts sees `made_from`
only; `held_out` is what the text is judged on. A tool from another project is judged on the executions that it brings
and on those of its family here.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from morphogen.bus.errors import BusError, MessageTooLarge
from morphogen.consumers.executions import Family, Trace, tool_name
from morphogen.kernels.sandbox import Capabilities, Sandbox, SandboxError, value_sha256
from morphogen.kernels.synthesis import Budget, NotFound
from morphogen.kernels.synthesis.program import FORMAT
from morphogen.schemas import CrystalDrafted, CrystalFailed, CrystalRequested, Event
from morphogen.schemas.crystals import Guard

from .drafting import Drafter, asked, may_cost, question, source_in
from .drafts import MODEL, SYNTHESIS, drafted_by_model, drafted_by_synthesis, effects_of, example
from .errors import (
    BadPackage,
    CrystalError,
    DraftInterrupted,
    DraftOverBudget,
    DraftUnanswered,
    NoDraft,
    NotMade,
    unforeseen,
)
from .gauntlet import GauntletConfig, Verdict, run_gauntlet
from .packages import Package
from .past import Past
from .planning import learnable
from .registry import Attempt
from .signing import signed
from .splitting import attempt_id, split

MAKERS = (SYNTHESIS, MODEL)
_log = logging.getLogger("morphogen.crystallizer")

Write = Callable[[Event, str], bool]
"""Stores an event in the log under a name for ever; returns once it is safe there, false where the name was taken."""


@dataclass(frozen=True)
class Made:
    """What an attempt came to: a version in state shadow, or the stage that it failed and why."""

    attempt: str
    tool: str
    signature: str
    maker: str
    number: int | None = None
    stage: str = ""
    reason: str = ""
    cost_microusd: int | None = 0  # None where nobody knows
    before: bool = False  # it had ended before; nothing was done now

    @property
    def ok(self) -> bool:
        """Whether there is a version."""
        return self.number is not None


class Toolsmith:
    """Makes tools from what `past` has read of the log; writes with `write`, and has `past` read that by `refresh`.

    `capabilities` declare the functions' signatures, by which calls are compared; none of them is ever called. `key` signs what is registered,
    and `environment` is that of this project, for tools that come from another.
    """

    def __init__(
        self,
        past: Past,
        write: Write,
        refresh: Callable[[], object],
        *,
        sandbox: Sandbox,
        capabilities: Capabilities | None = None,
        drafter: Drafter | None = None,
        key: bytes | None = None,
        gauntlet: GauntletConfig | None = None,
        budget: Budget | None = None,
        repairs: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._past, self._write, self._refresh = past, write, refresh
        self._sandbox, self._capabilities = sandbox, capabilities
        self._drafter, self._key, self._repairs = drafter, key, repairs
        self._gauntlet = gauntlet or GauntletConfig()
        self._budget = budget or Budget()
        self._environment = dict(environment or {})

    @property
    def makers(self) -> tuple[str, ...]:
        """Who can draft here, the cheapest first."""
        return MAKERS if self._drafter is not None else (SYNTHESIS,)

    def make(
        self,
        signature: str,
        *,
        maker: str = SYNTHESIS,
        by: str = "manual",
        left_microusd: int | None = None,
        after_ns: int = 0,
    ) -> Made:
        """Make a version of the family's tool from its executions begun after `after_ns`, or say why there is none.

        `left_microusd` is what a model may cost; None is no bound. Raises NotMade where there is nothing to make it from,
        DraftOverBudget before anything is spent or told where the budget does not bear a question, and DraftUnanswered.
        """
        family = self._past.families.family(signature)
        if family is None:
            raise NotMade(
                f"nothing was ever recorded for {signature}: `morphogen crystals list --candidates` shows what was"
            )
        if maker == MODEL and self._drafter is None:
            raise NotMade("no model is there to draft: name a backend, or leave it to synthesis")
        made, held = split(learnable(family, after_ns))
        attempt = self.attempt(signature, [*made, *held], maker)
        known = self._past.registry.attempts.get(attempt)
        ended = None if known is None else self._ended(known)
        if ended is not None:
            return ended
        if maker == MODEL and (known is None or known.requested is None):
            self._affordable(attempt, family, made, left_microusd)
        requested = self._requested(
            known,
            CrystalRequested(
                attempt=attempt,
                signature=signature,
                tool=tool_name(signature),
                by=by,
                maker=maker,
                made_from=[one.execution for one in made],
                held_out=[one.execution for one in held],
                budget_microusd=left_microusd,
            ),
        )

        def work() -> Made:
            drafted = None if known is None else known.drafted
            if drafted is None:
                drafted = (
                    self._synthesized(attempt, family.template, made)
                    if maker == SYNTHESIS
                    else self._modelled(attempt, family, made, left_microusd)
                )
                self._write(drafted, f"{attempt}.drafted")
            return self._judged(known, requested, drafted, held, made, family.bad)

        return self._to_its_end(requested, work)

    def attempt(self, signature: str, traces: Sequence[Trace], maker: str) -> str:
        """Return the name that an attempt with these executions has."""
        name = f"{maker}-{FORMAT}" if maker == SYNTHESIS else f"{maker}-{self._drafter.name if self._drafter else ''}"
        return attempt_id(signature, [one.execution for one in traces], name)

    def take_in(self, package: Package, keep: Callable[[], str] | None = None) -> Made:
        """Have a tool from another project judged here, on the executions that it brings and on those of its family here.

        It begins in shadow, whatever it was there. What its environment was is not asked for here: its guards of the
        environment take the values of this one, where its shadow runs are to prove it. `keep` keeps the package, before a version
        that names it is told, and returns the name of the blob. Raises BadPackage.
        """
        signature = package.registered.signature
        family = self._past.families.family(signature)
        own = [] if family is None else learnable(family)
        brought = self._brought(package)
        known_there = {one.execution for one in brought}
        held = [*brought, *(one for one in own if one.execution not in known_there)]
        maker = f"import {package.sha256}"
        attempt = attempt_id(signature, [one.execution for one in held], maker)
        known = self._past.registry.attempts.get(attempt)
        ended = None if known is None else self._ended(known)
        if ended is not None:
            return ended
        requested = self._requested(
            known,
            msgspec.structs.replace(
                package.requested,
                attempt=attempt,
                by="import",
                held_out=[one.execution for one in held],
                budget_microusd=None,
            ),
        )

        def origin() -> dict[str, Any]:
            return {
                "imported": {
                    "sha256": package.sha256,
                    "signer": package.signer,
                    "blob": None if keep is None else keep(),
                    "number": package.registered.number,
                    "brought": sorted(one.execution for one in package.traces),
                    "own": len(held) - len(brought),
                }
            }

        def work() -> Made:
            drafted = msgspec.structs.replace(package.drafted, attempt=attempt, cost_microusd=0, duration_ns=0)
            if known is None or known.drafted is None:
                self._write(drafted, f"{attempt}.drafted")
            return self._judged(known, requested, drafted, held, (), () if family is None else family.bad, origin)

        return self._to_its_end(requested, work)

    def _brought(self, package: Package) -> list[Trace]:
        """Return the executions of a package that may speak for it: of one that the log has, what the log has of it counts.

        Raises BadPackage where one of ours has another content there.
        """
        found = []
        for one in package.traces:
            ours = self._past.families.trace(one.execution)
            if ours is None:
                found.append(one)
            elif not _same(ours, one):
                raise BadPackage(
                    f"the package's execution {one.execution[:40]!r} is in the log here with another content: "
                    "it was altered; fetch it again"
                )
            elif ours.ok:
                found.append(ours if ours.whole else one)
        return found

    def _to_its_end(self, requested: CrystalRequested, work: Callable[[], Made]) -> Made:
        """Return what an attempt comes to. What nobody foresaw ends it as well, or it would be begun for ever."""
        try:
            return work()
        except DraftUnanswered:
            raise  # nothing has failed yet
        except (NotMade, MessageTooLarge) as reason:
            return self._failed(requested, "draft", str(reason))
        except (CrystalError, SandboxError, BusError, OSError):
            raise  # OSError: a full disk, no descriptor left: it is not the attempt's fault
        except Exception as error:  # noqa: BLE001  told in the reason
            _log.debug("%s came to no end", requested.attempt, exc_info=True)
            return self._failed(requested, "draft", f"unexpected {unforeseen(error)}")

    def _requested(self, known: Attempt | None, event: CrystalRequested) -> CrystalRequested:
        if known is not None and known.requested is not None:
            return known.requested
        self._write(event, f"{event.attempt}.requested")
        return event

    def _affordable(self, attempt: str, family: Family, made: Sequence[Trace], left: int | None) -> None:
        assert self._drafter is not None
        may_cost(question(attempt, 0, family.template, made, effects_of(made)), self._drafter, left)

    def _synthesized(self, attempt: str, template: str, made: Sequence[Trace]) -> CrystalDrafted:
        from morphogen.kernels.synthesis import synthesize

        found = synthesize([example(one) for one in made], tools=effects_of(made), budget=self._budget, goal=template)
        if isinstance(found, NotFound):
            raise NotMade(found.reason)
        return drafted_by_synthesis(attempt, found)

    def _modelled(
        self, attempt: str, family: Family, made: Sequence[Trace], left_microusd: int | None
    ) -> CrystalDrafted:
        assert self._drafter is not None
        effects = effects_of(made)
        drafted: CrystalDrafted | None = None
        source, fault = None, ""
        before = self._past.spending.attempt(attempt)  # is part of what is left already
        for number in range(self._repairs + 1):
            asking = question(attempt, number, family.template, made, effects, before=source, fault=fault)
            spent = self._past.spending.attempt(attempt) - before
            left = None if left_microusd is None else left_microusd - spent
            try:
                reply = asked(
                    asking,
                    self._drafter,
                    past=self._past.spending,
                    left_microusd=left,
                    record=lambda event, name: self._write(event, f"{attempt}.{name}"),
                )
            except (DraftOverBudget, DraftInterrupted, DraftUnanswered):
                if drafted is None:
                    raise
                break  # the text that is there is judged as it is
            finally:
                self._refresh()
            try:
                source = source_in(reply.reply or "")
            except NoDraft as wrong:
                source, fault = reply.reply or "", str(wrong)
                continue
            drafted = drafted_by_model(
                attempt, source, made, sorted(effects), reply.model, self._past.spending.told(attempt)
            )
            fault = self._rehearsed(drafted, made)
            if not fault:
                break
        if drafted is None:
            raise NoDraft(fault)
        return drafted

    def _rehearsed(self, drafted: CrystalDrafted, made: Sequence[Trace]) -> str:
        """Say what is wrong with a text on the executions that its author has seen; nothing where nothing is."""
        quick = msgspec.structs.replace(self._gauntlet, again=1, crossed=2, edges=2, wrong=2, worlds=2)
        failed = self._verdict(drafted, made, (), (), quick).failed
        return "" if failed is None else f"{failed.stage}: {failed.reason}"

    def _verdict(
        self,
        drafted: CrystalDrafted,
        held: Sequence[Trace],
        made: Sequence[Trace],
        bad: Sequence[Trace],
        config: GauntletConfig | None = None,
    ) -> Verdict:
        return run_gauntlet(
            drafted,
            held,
            sandbox=self._sandbox,
            made_from=made,
            rejected=bad,
            capabilities=self._capabilities,
            config=config or self._gauntlet,
        )

    def _judged(
        self,
        known: Attempt | None,
        requested: CrystalRequested,
        drafted: CrystalDrafted,
        held: Sequence[Trace],
        made: Sequence[Trace],
        bad: Sequence[Trace],
        origin: Callable[[], Mapping[str, Any]] | None = None,
    ) -> Made:
        verdict = self._verdict(drafted, held, made, bad)
        told = set() if known is None else {one.stage for one in known.checked}
        for stage in verdict.stages:
            if stage.stage not in told:
                self._write(stage, f"{drafted.attempt}.checked.{stage.stage}")
        if verdict.failed is not None:
            return self._failed(requested, verdict.failed.stage, verdict.failed.reason)
        tool = self._past.registry.of(requested.signature)
        registered = verdict.registered(
            requested,
            1 if tool is None else max(tool.versions) + 1,
            parent=None if tool is None else tool.active,
            provenance={"doubts": list(drafted.doubts), **(origin() if origin is not None else {})},
        )
        if origin is not None:
            registered = msgspec.structs.replace(registered, guards=self._here(registered.guards))
        if self._key is not None:
            registered = signed(registered, self._key)
        self._write(registered, f"{drafted.attempt}.registered")
        return self._told(requested, registered.number)

    def _here(self, guards: Sequence[Guard]) -> list[Guard]:
        """Return guards with those of the environment as it is here; what is not known of it is not asked for."""
        here = self._environment
        return [
            msgspec.structs.replace(one, expected=here[one.subject]) if one.kind == "environment" else one
            for one in guards
            if one.kind != "environment" or one.subject in here
        ]

    def _failed(self, requested: CrystalRequested, stage: str, reason: str) -> Made:
        line = " ".join(reason.split())[:2000]
        event = CrystalFailed(attempt=requested.attempt, signature=requested.signature, stage=stage, reason=line)
        self._write(event, f"{requested.attempt}.failed")
        return self._told(requested, None, stage, line)

    def _told(
        self, requested: CrystalRequested, number: int | None, stage: str = "", reason: str = "", before: bool = False
    ) -> Made:
        return Made(
            attempt=requested.attempt,
            tool=requested.tool,
            signature=requested.signature,
            maker=requested.maker,
            number=number,
            stage=stage,
            reason=reason,
            cost_microusd=self._past.spending.told(requested.attempt),
            before=before,
        )

    def _ended(self, known: Attempt) -> Made | None:
        """Return what an attempt came to before; None where it has not ended, or the log has lost its beginning."""
        if known.requested is None or not known.done:
            return None
        failed = known.failed
        number = None if known.version is None else known.version[1]
        if number is not None or failed is None:
            return self._told(known.requested, number, before=True)
        return self._told(known.requested, None, failed.stage, failed.reason, before=True)


def _same(ours: Trace, brought: Trace) -> bool:
    """Tell whether an execution of the log is the one that a package brought, by the values that are there."""
    if (ours.signature, value_sha256(dict(ours.params))) != (brought.signature, value_sha256(dict(brought.params))):
        return False
    if ours.output_sha256 != value_sha256(brought.output):
        return False
    done = [
        (one.kind, one.name, value_sha256(dict(one.args)), one.ok, value_sha256(one.result) if one.ok else None)
        for one in brought.steps
    ]
    return not ours.kept or done == [
        (one.kind, one.name, value_sha256(dict(one.args)), one.ok, one.result_sha256) for one in ours.steps
    ]
