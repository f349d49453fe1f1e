"""The editors' grammar is what the language is."""

import re
from pathlib import Path
from typing import Any

from morphogen.schemas.knowledge.keywords import KEYWORDS
from morphogen.schemas.knowledge.textmate import textmate_grammar, textmate_json

FILE = Path(__file__).parents[2] / "editors" / "morphogen-knowledge.tmLanguage.json"


def patterns(name: str) -> list[dict[str, Any]]:
    found: dict[str, Any] = textmate_grammar()["repository"][name]
    return found.get("patterns", [found])  # type: ignore[no-any-return]


def scopes(line: str) -> dict[str, str]:
    """Colour the words of a line as an editor does: the leftmost match wins, then the first pattern."""
    rules = [rule for name in textmate_grammar()["repository"] for rule in patterns(name) if "match" in rule]
    found: dict[str, str] = {}
    at = 0
    while at < len(line):
        matches = [
            (match.start(), index, match)
            for index, rule in enumerate(rules)
            if (match := re.compile(rule["match"]).search(line, at))
        ]
        if not matches:
            break
        _, index, match = min(matches, key=lambda one: one[:2])
        rule = rules[index]
        for number, capture in rule.get("captures", {"0": {"name": rule.get("name", "")}}).items():
            if match[int(number)]:
                found[match[int(number)]] = capture["name"]
        at = max(match.end(), at + 1)
    return found


def test_the_committed_grammar_is_the_one_that_the_code_makes() -> None:
    assert FILE.read_text() == textmate_json(), f"run python -m morphogen.schemas.knowledge.textmate > {FILE.name}"


def test_every_keyword_is_coloured() -> None:
    for word in KEYWORDS:
        assert scopes(f" {word} ").get(word, "").startswith(("keyword", "constant")), word


def test_a_line_is_coloured_by_what_its_words_are() -> None:
    found = scopes("fact slow(t: Item.Perf) { return t.step < 10.5 ms and p95(t.x) over last 3 } // end")

    assert found["fact"] == "keyword.declaration"
    assert found["slow"] == "entity.name"
    assert found["return"] == "keyword.control"
    assert found["10.5"] == "constant.numeric"
    assert found["ms"] == "keyword.other.unit"
    assert found["and"] == found["over"] == "keyword.operator.word"
    assert found["p95"] == "entity.name.function"
    assert found["// end"] == "comment.line.double-slash"
    assert "step" not in found


def test_a_keyword_that_is_a_key_or_a_field_is_no_keyword() -> None:
    assert scopes("step: 3")["step"] == "variable.other.property"
    assert "type" not in scopes("t.type")
