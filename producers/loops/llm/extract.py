"""One rule for finding the answer in what a model wrote: the last complete JSON object in the text.

Whatever stands around it (a fence, an explanation, a draft that was thought better of) is passed over. Strict JSON: no
NaN, no comments, no key twice.
"""

import json
from typing import Any

_TRIES = 400  # places where an object may begin; more is not an answer but noise


def last_object(text: str) -> tuple[dict[str, Any] | None, str]:
    """Return the last outermost JSON object in the text, or None and a sentence that says what was found instead."""
    found: dict[str, Any] | None = None
    trouble = "the answer holds no JSON object"
    at, tries = text.find("{"), 0
    while at >= 0 and tries < _TRIES:
        tries += 1
        try:
            value, end = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            trouble = f"the answer holds no complete JSON object: {_first_line(error)}"
            end = at + 1
        else:
            found = value
        at = text.find("{", end)
    return found, "" if found is not None else trouble


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {key!r} stands there twice")
        made[key] = value
    return made


_decoder = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_once)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
