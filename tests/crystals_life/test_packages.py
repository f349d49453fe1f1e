"""A tool in a file: the same bytes each time, and one line of refusal for whatever is not a whole, unaltered package."""

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.crystallizer import BadPackage, KeyRefused
from morphogen.consumers.crystallizer.packages import LARGEST, MAGIC, Package, events_of, pack, read_package, unpack
from morphogen.consumers.executions import At, Families
from morphogen.kernels.blueprints.signing import new_key, public_key
from morphogen.schemas import LogLine
from morphogen.schemas.crystals import Parameter

from .kit import GOOD, TOOL, making, trace


def package(**changes: Any) -> Package:
    return Package(**{**making(), **changes})


def resealed(body: bytes) -> bytes:
    """Return a body under a head that fits it."""
    return MAGIC + f"sha256 {hashlib.sha256(body).hexdigest()}\nunsigned\n".encode() + body


def altered(**fields: Any) -> bytes:
    """Return a package whose body was taken apart, changed and sealed again."""
    body = msgspec.msgpack.decode(pack(package()).split(b"\n", 3)[3])
    return resealed(msgspec.msgpack.encode({**body, **fields}))


def refused(data: bytes, **options: Any) -> str:
    with pytest.raises(BadPackage) as caught:
        unpack(data, **options)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text


def test_a_package_comes_back_as_it_was_and_has_the_same_bytes_each_time() -> None:
    there = package()
    data = pack(there)
    assert data == pack(package())
    here = unpack(data)
    assert here.registered == there.registered
    assert here.drafted == there.drafted
    assert here.requested == there.requested
    assert here.checked == there.checked
    assert [one.execution for one in here.traces] == [one.execution for one in there.traces]
    for one, other in zip(here.traces, there.traces, strict=True):
        assert (one.params, one.output, one.tools[0].result) == (other.params, other.output, other.tools[0].result)
        assert one.whole
        assert one.ok
    assert pack(here) == data
    assert here.name == f"{TOOL}-v1.crystal"


def test_an_execution_is_told_as_the_log_tells_it() -> None:
    families = Families()
    for at, event in enumerate(events_of(trace(3))):
        families.seen(event, At(0, at))
    found = families.trace("x3")
    assert found is not None
    assert (found.params, found.output, found.outcome, found.judged_by) == (
        trace(3).params, trace(3).output, "success", "assertion",
    )  # fmt: skip


@given(st.integers(0, len(pack(package())) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(place: int, flip: int) -> None:
    data = bytearray(pack(package()))
    data[place] ^= flip
    refused(bytes(data))


@given(st.integers(0, len(pack(package())) - 1))
def test_no_part_can_be_cut_off(length: int) -> None:
    refused(pack(package())[:length])


@given(st.binary(max_size=300))
def test_any_bytes_under_a_fitting_head_are_refused(body: bytes) -> None:
    refused(resealed(body))
    refused(body)


def test_a_body_that_is_nested_without_end_is_refused() -> None:
    refused(resealed(b"\x91" * 500_000))
    refused(resealed(b"\x81" * 500_000))


@pytest.mark.parametrize("size", ["array32", "map32", "bin32"])
def test_a_body_that_claims_to_be_huge_is_refused_without_room_for_it(size: str) -> None:
    code = {"array32": b"\xdd", "map32": b"\xdf", "bin32": b"\xc6"}[size]
    refused(resealed(code + b"\xff\xff\xff\xff"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template": "another goal"}, "template"),
        ({"traces": []}, "no executions"),
        ({"making": []}, "0 events"),
        ({"more": 1}, "no tool"),
    ],
)
def test_a_body_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    assert said in refused(altered(**changes))


def test_events_that_are_no_part_of_a_making_are_refused() -> None:
    body = msgspec.msgpack.decode(pack(package()).split(b"\n", 3)[3])
    line = LogLine(message="hello")
    making_ = [*body["making"], {"type": line.type, "version": 1, "body": msgspec.msgpack.decode(line.encode())}]
    assert "no part of a tool's making" in refused(altered(making=making_))
    assert "cannot be read" in refused(altered(making=[{"type": "crystal.unheard_of", "version": 1, "body": {}}]))


@pytest.mark.parametrize(
    ("part", "field", "value", "said"),
    [
        ("registered", "source", "def run():\n    return 2\n", "not what was drafted"),
        ("registered", "source_sha256", "sha256:0", "sha256"),
        ("registered", "tool", "tool_../../etc/passwd", "named after"),
        ("registered", "number", 0, "version is 0"),
        ("registered", "attempt", "a-other", "several attempts"),
        ("registered", "signature", "g1-0000000000000000", "template"),
        ("requested", "held_out", [], "not held out"),
    ],
)
def test_what_contradicts_itself_is_not_exported_either(part: str, field: str, value: Any, said: str) -> None:
    there = package()
    changed = msgspec.structs.replace(getattr(there, part), **{field: value})
    with pytest.raises(BadPackage, match=said):
        pack(package(**{part: changed}))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("part", "fields", "said"),
    [
        ("drafted", {"program": nested(500)}, "nested deeper than 100"),
        ("drafted", {"params": [Parameter(name="count", type="int", seen=(nested(500),))]}, "nested deeper than 100"),
        ("registered", {"provenance": {"a": nested(500)}}, "nested deeper than 100"),
        ("registered", {"params": [Parameter(name="count", type="int", minimum=1.0)]}, "has not two ends"),
        ("drafted", {"params": [Parameter(name="x", type="int", minimum=1.0, maximum=math.inf)]}, "has not two ends"),
        ("requested", {"maker": "x\x1b[2J\nY"}, "is no name"),
        ("drafted", {"maker": ""}, "is no name"),
    ],
)
def test_what_no_tool_says_of_itself_is_refused(part: str, fields: dict[str, Any], said: str) -> None:
    there = package()
    with pytest.raises(BadPackage, match=said):
        pack(package(**{part: msgspec.structs.replace(getattr(there, part), **fields)}))


@pytest.mark.parametrize(
    "step",
    [
        {"effect": "boom"},
        {"kind": "thought"},
        {"result": {None: 1, 1: 2, b"x": 3}},
        {"result": {1.5: 2}},
        {"result": msgspec.msgpack.Ext(5, b"abc")},
        {"result": nested(40)},
        {"args": {"item": {True: 1}}},
    ],
    ids=str,
)
def test_what_no_recorder_writes_is_refused(step: dict[str, Any]) -> None:
    odd = dataclasses.replace(trace(0), steps=(dataclasses.replace(trace(0).steps[0], **step),))
    with pytest.raises(BadPackage, match="the execution 'x0': step 0"):
        pack(package(traces=(odd,)))
    with pytest.raises(BadPackage, match="never recorded"):
        pack(package(traces=(trace(0, params={"count": {None: 1}}),)))


def test_a_package_is_taken_from_nobody_where_no_key_is_trusted() -> None:
    assert "no key is trusted" in refused(pack(package()), trusted=())
    assert "no key is trusted" in refused(pack(package(), new_key()), trusted=())


@pytest.mark.parametrize(
    "changes",
    [{"outcome": "failure"}, {"signature": "g1-0000000000000000"}, {"output_whole": False, "output_blob": "ab"}],
)
def test_executions_that_prove_nothing_are_refused(changes: dict[str, Any]) -> None:
    odd = trace(0, **changes)
    try:
        data = pack(package(traces=(odd,)))
    except BadPackage:
        return
    if changes.get("output_whole") is False:  # what lay in a blob is inlined, whatever it is: the replay will judge it
        assert unpack(data).traces[0].whole
        return
    refused(data)


def test_a_signature_says_who_vouches_and_nothing_else_passes_for_it() -> None:
    key, other = new_key(), new_key()
    data = pack(package(), key)
    assert unpack(data).signer == public_key(key)
    assert unpack(data, trusted=[public_key(key)]).signer == public_key(key)
    assert "not among the trusted" in refused(data, trusted=[public_key(other)])
    assert "unsigned" in refused(pack(package()), trusted=[public_key(key)])
    head, shas, signed, body = data.split(b"\n", 3)
    forged = signed.replace(public_key(key).encode(), public_key(other).encode())
    assert "not by the key" in refused(b"\n".join([head, shas, forged, body]))
    assert "no signature" in refused(b"\n".join([head, shas, b"ed25519 " + b"0" * 64, body]))
    with pytest.raises(KeyRefused):
        pack(package(), b"short")


def test_a_file_is_named_in_the_refusal(tmp_path: Path) -> None:
    path = tmp_path / "tool.crystal"
    path.write_bytes(b"PK\x03\x04 an archive")
    with pytest.raises(BadPackage, match=r"tool\.crystal: this is no package"):
        read_package(path)
    with pytest.raises(BadPackage, match="No such file"):
        read_package(tmp_path / "nowhere.crystal")
    path.write_bytes(MAGIC.replace(b"1\n", b"9\n"))
    with pytest.raises(BadPackage, match="another version"):
        read_package(path)
    with path.open("wb") as file:
        file.truncate(LARGEST + 10)
    with pytest.raises(BadPackage, match="is the most"):
        read_package(path)


def test_nothing_of_a_package_is_run_by_reading_it(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    source = GOOD + f"\n\nopen({str(canary)!r}, 'w').write('x')\n"
    unpack(pack(Package(**making(source=source))))
    assert not canary.exists()
