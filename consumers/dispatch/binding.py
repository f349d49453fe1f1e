"""Which parameter of a family a request's parameter is: for a family that is merely like the request. Pure.

Equal names are equal parameters. Where names differ, the templates must say which is which: one name is left on either side, or each
stands after the same word in both. What cannot be told apart is refused, never guessed.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import DispatchError

_TOKEN = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}|(\S+)")


class Unbound(DispatchError):
    """A request's parameters cannot be taken for those of a family."""


def bind(template: str, params: Mapping[str, Any], other: str, names: Iterable[str]) -> dict[str, Any]:
    """Return the request's values under the family's names.

    `template` and `params` are the request's; `other` and `names` are the template and the parameters of the family.
    Raises Unbound with the reason where a name has no partner, or could have several.
    """
    theirs = set(names)
    mine = set(params)
    same = mine & theirs
    left, wanted = mine - same, theirs - same
    if not left and not wanted:
        return dict(params)
    if len(left) != len(wanted):
        raise Unbound(_count(left, wanted))
    before_mine, before_theirs = _before(template), _before(other)
    missing = [name for name in sorted(left) if name not in before_mine]
    missing += [name for name in sorted(wanted) if name not in before_theirs]
    if missing:
        raise Unbound(f"the parameter {missing[0]!r} stands in only one of the two, and not in the words")
    if len(left) == 1:
        partner = {next(iter(left)): next(iter(wanted))}
    else:
        partner = {}
        for name in sorted(left):
            found = [one for one in sorted(wanted) if before_theirs[one] == before_mine[name]]
            if len(found) != 1:
                raise Unbound(f"the parameter {name!r} could be {_listed(found or sorted(wanted))}")
            partner[name] = found[0]
        if len(set(partner.values())) != len(partner):
            raise Unbound(f"two of the parameters {_listed(sorted(left))} would be one")
    return {partner.get(name, name): value for name, value in params.items()}


def _before(template: str) -> dict[str, str]:
    """Return the word before each placeholder's first place; the text's beginning is an empty word."""
    found: dict[str, str] = {}
    word = ""
    for match in _TOKEN.finditer(template):
        name, plain = match.groups()
        if name is not None:
            found.setdefault(name, word)
        word = plain or "{}"
    return found


def _count(left: set[str], wanted: set[str]) -> str:
    if wanted and not left:
        return f"the request does not give {_listed(sorted(wanted))}"
    if left and not wanted:
        return f"the family knows no parameter {_listed(sorted(left))}"
    return f"the request gives {_listed(sorted(left))} where the family takes {_listed(sorted(wanted))}"


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
