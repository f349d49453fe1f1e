"""`morphogen schema` describes every registered event."""

import json

from morphogen.schemas import event_classes, json_schema


def test_every_registered_event_has_a_definition() -> None:
    document = json.loads(json.dumps(json_schema()))

    assert {f"{cls.type}@{cls.version}" for cls in event_classes()} <= set(document["$defs"])
    assert document["$defs"]["health.layer@1"]["properties"]["layers"] == {"type": "array", "items": {"type": "string"}}
    assert document["$defs"]["metrics.scalars@1"]["x-high-rate"] is True
