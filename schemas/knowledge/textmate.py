"""The TextMate grammar that editors colour the language with, made from the lexer's own table of words.

python -m morphogen.schemas.knowledge.textmate > editors/morphogen-knowledge.tmLanguage.json
"""

import json
from typing import Any

from .keywords import BASIC_TYPES, CONSTANTS, DECLARATIONS, ITEMS, OPERATORS, SECTIONS, STATEMENTS
from .units import UNITS

SCOPE = "source.morphogen-knowledge"

_ESCAPES = r"\\(?:[ntr0\\\"'{}]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\})"


def textmate_grammar() -> dict[str, Any]:
    """Return the grammar as the plain values of its JSON file."""
    return {
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "Morphogen knowledge",
        "scopeName": SCOPE,
        "fileTypes": ["mk"],
        "patterns": [{"include": f"#{name}"} for name in _repository()],
        "repository": _repository(),
    }


def textmate_json() -> str:
    """Return the text of the grammar's file."""
    return json.dumps(textmate_grammar(), indent=2, ensure_ascii=True) + "\n"


def _repository() -> dict[str, Any]:
    """Name the groups of patterns, the first to try first."""
    return {
        "front-matter": {
            "begin": r"\A---\s*$",
            "end": r"^---\s*$",
            "name": "meta.embedded.block.yaml",
            "patterns": [{"include": "source.yaml"}],
        },
        "comments": {
            "patterns": [
                {"name": "comment.block", "begin": r"/\*", "end": r"\*/"},
                {"name": "comment.line.double-slash", "match": r"//.*$"},
                {"name": "comment.line.number-sign", "match": r"#.*$"},
            ]
        },
        "strings": {
            "patterns": [
                _string("string.quoted.triple", '"{3}', '"{3}'),
                _string("string.quoted.triple", "'{3}", "'{3}"),
                _string("string.quoted.double", '"', '"|$'),
                _string("string.quoted.single", "'", "'|$"),
            ]
        },
        "declaration": {
            "match": rf"\b({_words(*_NAMING)})\s+([^\W\d]\w*)(?!\w|\s*[=.])",
            "captures": {"1": {"name": "keyword.declaration"}, "2": {"name": "entity.name"}},
        },
        "key": {"match": r"([^\W\d]\w*)\s*(:)", "captures": {"1": {"name": "variable.other.property"}}},
        "keywords": {
            "patterns": [
                _keyword("keyword.declaration", *DECLARATIONS, *SECTIONS, *ITEMS),
                _keyword("keyword.control", *STATEMENTS),
                _keyword("keyword.operator.word", *OPERATORS),
                _keyword("constant.language", *CONSTANTS),
                _keyword("support.type", *BASIC_TYPES),
            ]
        },
        "numbers": {
            "match": rf"\b([0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?)(?:[ \t]*({_units()})(?!\w)|(%))?",
            "captures": {
                "1": {"name": "constant.numeric"},
                "2": {"name": "keyword.other.unit"},
                "3": {"name": "keyword.other.unit"},
            },
        },
        "calls": {"match": r"\b([^\W\d]\w*(?:\.[^\W\d]\w*)*)(?=\s*[({])", "name": "entity.name.function"},
        "operators": {"match": r"->|&&|\|\||[=!<>]=|[<>+\-*/%=!|?]", "name": "keyword.operator"},
    }


_NAMING = (
    *("system_model", "task", "system", "domain", "const", "view", "function", "procedure"),
    *("agent_loop", "service_loop", "engineering_loop"),
    *("type", "variant", "case", "fact", "rule", "invariant", "hint", "step"),
)


def _words(*words: str) -> str:
    return "|".join(sorted(words, key=lambda word: (-len(word), word)))


def _units() -> str:
    spelled = (unit.replace("/", r"\/") for unit in {*UNITS, "m"} - {"%"})
    return _words(*spelled)


def _keyword(scope: str, *words: str) -> dict[str, str]:
    return {"name": scope, "match": rf"(?<!\.)\b(?:{_words(*words)})\b(?!\s*(?::|=(?!=)|\.))"}


def _string(scope: str, begin: str, end: str) -> dict[str, Any]:
    hole = {
        "name": "meta.template.expression",
        "begin": r"\{\{",
        "end": r"\}\}",
        "patterns": [{"include": "#numbers"}, {"include": "#keywords"}, {"include": "#operators"}],
    }
    return {
        "name": scope,
        "begin": begin,
        "end": end,
        "patterns": [{"name": "constant.character.escape", "match": _ESCAPES}, hole],
    }


if __name__ == "__main__":
    print(textmate_json(), end="")
