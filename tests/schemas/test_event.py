"""Event classes register, evolve and never stop a reader."""

from typing import Any

import msgspec
import pytest

from morphogen.schemas import Event, Metrics, SchemaError, Unknown, decode_event, encode, event_class, upcaster


class Sample(Event, type="testing.sample", version=3):
    """Lives in a test, as a user's event would in their package."""

    total: int
    label: str = "none"


@upcaster("testing.sample", from_version=1)
def _rename(body: dict[str, Any]) -> dict[str, Any]:
    return {"total": body["amount"]}


@upcaster("testing.sample", from_version=2)
def _label(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "label": "old"}


def test_a_users_event_knows_its_place() -> None:
    assert (Sample.type, Sample.version, Sample.family, Sample.high_rate) == ("testing.sample", 3, "testing", False)
    assert event_class("testing.sample") is Sample
    assert decode_event("testing.sample", 3, Sample(total=2).encode()) == Sample(total=2)


def test_older_versions_are_lifted_on_read() -> None:
    assert decode_event("testing.sample", 1, encode({"amount": 5})) == Sample(total=5, label="old")
    assert decode_event("testing.sample", 2, encode({"total": 6})) == Sample(total=6, label="old")


@pytest.mark.parametrize(
    ("kind", "version", "body", "reason"),
    [
        ("nobody.knows", 1, {"x": 1}, "not registered"),
        ("testing.sample", 4, {"x": 1}, "newer than version 3"),
        ("testing.sample", 3, {"total": "many"}, "does not fit"),
        ("testing.sample", 1, {"wrong": 1}, "does not fit"),
        ("testing.sample", 0, {}, "no upcaster from version 0"),
        ("testing.sample", 3, [1, 2], "does not fit"),
    ],
)
def test_what_cannot_be_read_is_kept_whole(kind: str, version: int, body: Any, reason: str) -> None:
    event = decode_event(kind, version, encode(body))

    assert isinstance(event, Unknown)
    assert reason in event.reason
    assert event.fields() == body


def test_fields_that_a_newer_producer_added_are_ignored() -> None:
    assert decode_event("testing.sample", 3, encode({"total": 1, "added_later": 2})) == Sample(total=1)


def test_two_classes_cannot_claim_one_version() -> None:
    with pytest.raises(SchemaError, match="already"):
        type(Event)("Other", (Event,), {"__module__": "elsewhere"}, type="metrics.scalars", version=1)


@pytest.mark.parametrize("name", ["Metrics", "a b", "a..b", "", ".a", "a.*", "ä"])
def test_a_type_that_would_break_a_subject_is_refused(name: str) -> None:
    with pytest.raises(SchemaError, match="dotted lower-case"):
        type(Event)("Bad", (Event,), {}, type=name, version=1)


def test_field_names_of_the_envelope_are_refused() -> None:
    with pytest.raises(SchemaError, match="rename"):
        type(Event)("Bad", (Event,), {"__annotations__": {"version": int}}, type="testing.taken", version=1)


def test_options_that_break_other_readers_are_refused() -> None:
    with pytest.raises(SchemaError, match="break readers"):
        type(Event)("Bad", (Event,), {}, type="testing.closed", version=1, forbid_unknown_fields=True)


def test_a_missing_version_or_a_bad_one_is_refused() -> None:
    with pytest.raises(SchemaError, match="version"):
        type(Event)("Bad", (Event,), {}, type="testing.zero", version=0)


def test_two_upcasters_from_one_version_are_refused() -> None:
    with pytest.raises(SchemaError, match="two upcasters"):
        upcaster("testing.sample", from_version=1)(_rename)


def test_events_are_immutable_and_keyword_only() -> None:
    event = Metrics(values={"a": 1})

    with pytest.raises(AttributeError):
        event.values = {}  # type: ignore[misc]
    with pytest.raises(TypeError):
        Metrics({"a": 1})  # type: ignore[misc]
    assert msgspec.structs.asdict(event) == {"values": {"a": 1}}
