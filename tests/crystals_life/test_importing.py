"""A tool that comes from another project: judged anew on what it brings and on what is here, then in shadow."""

import dataclasses
import errno
import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from morphogen.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.consumers.crystallizer import BadPackage, GauntletConfig
from morphogen.consumers.crystallizer.gauntlet import running
from morphogen.consumers.crystallizer.packages import Package, pack, package_of, unpack
from morphogen.consumers.crystallizer.past import Past
from morphogen.consumers.crystallizer.worker import Crystallizer, WorkerConfig
from morphogen.consumers.executions import Families, Trace
from morphogen.kernels.sandbox import Sandbox
from morphogen.producers import executions
from morphogen.schemas.crystals import Guard

from .kit import GOOD, SIGNATURE, TOOL, WRONG, Drafting, making, record, shop

LIGHT = WorkerConfig(gauntlet=GauntletConfig(again=1, crossed=1, edges=1, wrong=1, worlds=1))


def crystallizer(bus: Bus, settings: Settings, sandbox: Sandbox, **more: object) -> Crystallizer:
    made = Crystallizer(
        bus, sandbox, settings.home, capabilities=shop(), environment={"python": "9.9"}, config=LIGHT, **more
    )  # type: ignore[arg-type]
    made.catch_up()
    return made


def test_it_is_proven_on_the_executions_that_it_brings_and_begins_in_shadow(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    at = crystallizer(bus, settings, sandbox)
    package = unpack(pack(Package(**making())))
    made = at.take_in(package)
    assert made.ok, made
    version = at.past.registry.version(TOOL, 1)
    assert version is not None
    assert (version.state, at.past.registry.active(SIGNATURE)) == ("shadow", None)
    said = version.made.provenance
    assert said["imported"]["sha256"] == package.sha256
    assert (len(said["imported"]["brought"]), said["imported"]["own"], said["replayed"]) == (10, 0, 10)
    requested = at.past.registry.attempts[made.attempt].requested
    assert requested is not None
    assert requested.by == "import"
    guards = {one.subject: one.expected for one in version.made.guards if one.kind == "environment"}
    assert guards == {"python": "9.9"}  # of this project: its shadow runs prove it here
    again = at.take_in(package)
    assert again.before
    assert again.number == 1


def test_what_is_here_counts_as_well_and_a_tool_that_is_wrong_here_is_refused(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(6), wrong=1)  # prices carry a fee here
    made = crystallizer(bus, settings, sandbox).take_in(unpack(pack(Package(**making()))))
    assert (made.ok, made.stage) == (False, "replay")


def test_the_judgement_that_travels_with_it_is_not_believed(bus: Bus, settings: Settings, sandbox: Sandbox) -> None:
    at = crystallizer(bus, settings, sandbox)
    wrong = unpack(pack(Package(**making(source=WRONG))))
    made = at.take_in(wrong)
    assert (made.ok, made.stage) == (False, "replay")
    escaping = GOOD.replace("price = shop", "().__class__.__base__.__subclasses__()\n    price = shop")
    made = at.take_in(unpack(pack(Package(**making(source=escaping)))))
    assert (made.ok, made.stage) == (False, "grammar")
    assert at.past.registry.tools == {}


def test_guards_that_travel_with_it_are_not_believed(bus: Bus, settings: Settings, sandbox: Sandbox) -> None:
    there = making()
    there["registered"] = msgspec.structs.replace(
        there["registered"], guards=[Guard(kind="type", subject="count", expected="Any")]
    )
    made = crystallizer(bus, settings, sandbox).take_in(unpack(pack(Package(**there))))
    assert made.ok
    at = crystallizer(bus, settings, sandbox)
    version = at.past.registry.version(TOOL, 1)
    assert version is not None
    assert Guard(kind="type", subject="count", expected="int") in version.made.guards


def test_what_was_made_here_can_be_carried_away(bus: Bus, settings: Settings, sandbox: Sandbox, tmp_path: Path) -> None:
    record(settings, range(12))
    at = crystallizer(bus, settings, sandbox, drafter=Drafting(GOOD))
    made = at.make(SIGNATURE, maker="llm")
    version = at.past.registry.version(TOOL, 1)
    assert made.ok
    assert version is not None
    package = unpack(pack(package_of(at.past, version)))
    requested = at.past.registry.attempts[made.attempt].requested
    assert requested is not None
    assert [one.execution for one in package.traces] == requested.held_out
    assert package.registered == version.made
    few = package_of(at.past, version, most=2)
    assert len(few.traces) == 2
    assert all(one.whole for one in few.traces)


def test_what_was_imported_can_be_carried_on_with_what_it_brought(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(6))
    at = crystallizer(bus, settings, sandbox)
    at.take_in(unpack(pack(Package(**making()))))
    version = at.past.registry.version(TOOL, 1)
    assert version is not None
    onward = unpack(pack(at.package(version)))
    assert len(onward.traces) == 16
    assert onward.registered == version.made
    bus.blobs.delete(version.made.provenance["imported"]["blob"])
    assert len(at.package(version).traces) == 6
    alone = Past()
    alone.registry, alone.families = at.past.registry, Families()
    with pytest.raises(BadPackage, match="none of the executions that it was proven on is left"):
        package_of(alone, version)


def test_what_was_imported_can_be_carried_on_from_where_nobody_pursued_its_goal(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    at = crystallizer(bus, settings, sandbox)
    package = unpack(pack(Package(**making())))
    at.take_in(package)
    version = at.past.registry.version(TOOL, 1)
    assert version is not None
    onward = unpack(pack(at.package(version)))
    assert (onward.template, len(onward.traces)) == (package.template, 10)
    bus.blobs.delete(version.made.provenance["imported"]["blob"])
    assert at.take_in(package).before  # which keeps it once more
    assert len(at.package(version).traces) == 10


def test_a_package_that_is_refused_leaves_no_blob_and_what_is_no_fault_of_it_can_be_tried_again(
    bus: Bus, settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(settings, range(6))
    at = crystallizer(bus, settings, sandbox)
    family = at.past.families.family(SIGNATURE)
    assert family is not None
    told = [dataclasses.replace(one, output={**one.output, "cents": one.output["cents"] + 9}) for one in family.good]
    lying = unpack(pack(of(told, GOOD.replace('price["cents"] * count', 'price["cents"] * count + 9'))))
    with pytest.raises(BadPackage):
        at.take_in(lying)
    assert not bus.blobs.exists(hashlib.sha256(pack(lying)).hexdigest())
    package = unpack(pack(of(family.good, GOOD)))
    with monkeypatch.context() as full:
        full.setattr(running, "derive_guards", _full)
        with pytest.raises(OSError, match="No space left"):
            at.take_in(package)
    assert at.take_in(package).ok


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_the_log_has_of_an_execution_counts_and_not_what_a_package_says_of_it(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    record(settings, range(6))
    at = crystallizer(bus, settings, sandbox)
    family = at.past.families.family(SIGNATURE)
    assert family is not None
    told = [dataclasses.replace(one, output={**one.output, "cents": one.output["cents"] + 9}) for one in family.good]
    lying = GOOD.replace('price["cents"] * count', 'price["cents"] * count + 9')
    with pytest.raises(BadPackage, match="is in the log here with another content"):
        at.take_in(unpack(pack(of(told, lying))))
    assert at.past.registry.attempts == {}
    made = at.take_in(unpack(pack(of(family.good, GOOD))))
    version = at.past.registry.version(TOOL, 1)
    assert made.ok, made
    assert version is not None
    assert (len(version.made.provenance["held_out"]), version.made.provenance["imported"]["own"]) == (6, 0)


def test_an_execution_that_was_judged_a_failure_here_speaks_for_no_package(
    bus: Bus, settings: Settings, sandbox: Sandbox
) -> None:
    names = record(settings, range(6))
    at = crystallizer(bus, settings, sandbox)
    family = at.past.families.family(SIGNATURE)
    assert family is not None
    package = unpack(pack(of(family.good, GOOD)))
    for name in names:
        executions.feedback(name, "failure", settings=settings)
    assert executions.flush(20)
    made = at.take_in(package)
    assert not made.ok
    attempt = at.past.registry.attempts[made.attempt].requested
    assert attempt is not None
    assert attempt.held_out == []
    assert not bus.blobs.exists(hashlib.sha256(pack(package)).hexdigest())


def of(traces: Sequence[Trace], source: str) -> Package:
    """Return a package that brings these executions."""
    there = making(source=source)
    told = msgspec.structs.replace(there["requested"], held_out=[one.execution for one in traces])
    return Package(**{**there, "requested": told, "traces": tuple(traces)})
