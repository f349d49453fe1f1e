"""The closed table of pure operations: each is one line of Python, which is both what is run and what is written.

An operation is its template, `$0` and `$1` standing for the operands. The function that the search and the interpreter use is
compiled from that very line, so a program means the same as data and as text.
"""

import calendar
import csv
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import msgspec

# How tightly Python binds: an operand that binds less than its place asks for is put in parentheses.
ANY, OR, AND, NOT, COMPARE, UNION, SUM, PRODUCT, SIGN, ATOM = 0, 2, 3, 4, 5, 6, 8, 9, 10, 12


class Operation(msgspec.Struct, frozen=True):
    """One operation: its line, how tightly it binds, what its operands must, and what the line needs to be defined."""

    name: str
    template: str
    binds: int
    operands: tuple[int, ...]
    imports: tuple[str, ...]
    helper: str | None
    repeats: bool  # an operand stands twice in the line


HELPERS: dict[str, tuple[tuple[str, ...], str]] = {
    "deep_merge": ((), '''\
def deep_merge(base: dict[str, object], over: dict[str, object]) -> dict[str, object]:
    """Return base with the values of over, mappings inside merged likewise."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = deep_merge(merged[key], value) if both else value
    return merged
'''),
    "fields_of": ((), '''\
def fields_of(line: str) -> dict[str, str]:
    """Return the name=value pieces of a line."""
    return {piece.split("=", 1)[0]: piece.split("=", 1)[1] for piece in line.split() if "=" in piece}
'''),
    "options_of": ((), '''\
def options_of(text: str, mark: str) -> dict[str, str]:
    """Return the lines of a text that name a value, as a mapping."""
    pairs = [line.split(mark, 1) for line in text.splitlines() if mark in line and not line.lstrip().startswith("#")]
    return {name.strip(): value.strip() for name, value in pairs}
'''),
    "keyed_rows": ((), '''\
def keyed_rows(columns: list[str], rows: list[list[object]]) -> list[dict[str, object]]:
    """Return rows with their columns named."""
    return [dict(zip(columns, row)) for row in rows]
'''),
    "add_months": (("import calendar", "from datetime import date"), '''\
def add_months(day: str, months: int) -> str:
    """Return the day some months later, the last of the month where there is no such day."""
    start = date.fromisoformat(day)
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(start.day, last)).isoformat()
'''),
    "add_workdays": (("from datetime import date, timedelta",), '''\
def add_workdays(day: str, days: int) -> str:
    """Return the day after so many days that are no Saturday or Sunday."""
    at = date.fromisoformat(day)
    if not 0 <= days <= 100000:
        raise ValueError("the days to add must be between 0 and 100000")
    while days > 0:
        at += timedelta(days=1)
        days -= at.weekday() < 5
    return at.isoformat()
'''),
    "on_workday": (("from datetime import date, timedelta",), '''\
def on_workday(day: str) -> str:
    """Return the day, or the Monday after it where it is a Saturday or Sunday."""
    at = date.fromisoformat(day)
    return (at + timedelta(days=7 - at.weekday() if at.weekday() >= 5 else 0)).isoformat()
'''),
    "as_number": ((), '''\
def as_number(text: str) -> int | float | str:
    """Return the number that a text is, or the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
'''),
    "as_value": ((), '''\
def as_value(text: str) -> object:
    """Return the number, the truth value or the text that a text says."""
    if text in ("true", "false", "True", "False"):
        return text in ("true", "True")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
'''),
    "short_of": ((), '''\
def short_of(size: float, step: int, units: list[str]) -> list[object]:
    """Return a size in the largest unit that leaves at least one of it, and the unit."""
    value = float(size)
    place = 0
    while value >= step and place < len(units) - 1:
        value /= step
        place += 1
    return [value, units[place]]
'''),
    "bounded": ((), '''\
def bounded(count: int) -> int:
    """Return a count of things to make, where it is a reasonable one."""
    if not 0 <= count <= 100000:
        raise ValueError(f"{count} is too many, or too few: give 0 to 100000")
    return count
'''),
}  # fmt: skip

_LINES: tuple[tuple[str, str, int, tuple[int, ...]], ...] = (
    # numbers
    ("add", "$0 + $1", SUM, (SUM, PRODUCT)),
    ("sub", "$0 - $1", SUM, (SUM, PRODUCT)),
    ("mul", "$0 * $1", PRODUCT, (PRODUCT, SIGN)),
    ("div", "$0 / $1", PRODUCT, (PRODUCT, SIGN)),
    ("floordiv", "$0 // $1", PRODUCT, (PRODUCT, SIGN)),
    ("mod", "$0 % $1", PRODUCT, (PRODUCT, SIGN)),
    ("neg", "-$0", SIGN, (ATOM,)),
    ("abs", "abs($0)", ATOM, (ANY,)),
    ("round", "round($0)", ATOM, (ANY,)),
    ("round_to", "round($0, $1)", ATOM, (ANY, ANY)),
    ("int", "int($0)", ATOM, (ANY,)),
    ("float", "float($0)", ATOM, (ANY,)),
    ("ceil", "math.ceil($0)", ATOM, (ANY,)),
    ("floor", "math.floor($0)", ATOM, (ANY,)),
    ("min2", "min($0, $1)", ATOM, (ANY, ANY)),
    ("max2", "max($0, $1)", ATOM, (ANY, ANY)),
    # lists
    ("len", "len($0)", ATOM, (ANY,)),
    ("sum", "sum($0)", ATOM, (ANY,)),
    ("min", "min($0)", ATOM, (ANY,)),
    ("max", "max($0)", ATOM, (ANY,)),
    ("mean", "sum($0) / len($0)", PRODUCT, (ANY,)),
    ("fmean", "statistics.fmean($0)", ATOM, (ANY,)),
    ("smean", "statistics.mean($0)", ATOM, (ANY,)),
    ("median", "statistics.median($0)", ATOM, (ANY,)),
    ("stdev", "statistics.stdev($0)", ATOM, (ANY,)),
    ("pstdev", "statistics.pstdev($0)", ATOM, (ANY,)),
    ("fsum", "math.fsum($0)", ATOM, (ANY,)),
    ("item", "$0[$1]", ATOM, (ATOM, ANY)),
    ("first_of", "next(iter($0), None)", ATOM, (ANY,)),
    ("take", "$0[:$1]", ATOM, (ATOM, SUM)),
    ("take_last", "$0[-$1:]", ATOM, (ATOM, ATOM)),
    ("drop", "$0[$1:]", ATOM, (ATOM, SUM)),
    ("drop_last", "$0[:-$1]", ATOM, (ATOM, ATOM)),
    ("slice", "$0[$1:$2]", ATOM, (ATOM, SUM, SUM)),
    ("backwards", "$0[::-1]", ATOM, (ATOM,)),
    ("sorted", "sorted($0)", ATOM, (ANY,)),
    ("sorted_down", "sorted($0, reverse=True)", ATOM, (ANY,)),
    ("unique", "list(dict.fromkeys($0))", ATOM, (ANY,)),
    ("sorted_set", "sorted(set($0))", ATOM, (ANY,)),
    ("contains", "$1 in $0", COMPARE, (UNION, UNION)),
    ("lacks", "$1 not in $0", COMPARE, (UNION, UNION)),
    ("joined", "$1.join($0)", ATOM, (ANY, ATOM)),
    ("concat", "$0 + $1", SUM, (SUM, PRODUCT)),
    ("flat", "[item for part in $0 for item in part]", ATOM, (OR,)),
    ("zipped", "[[left, right] for left, right in zip($0, $1)]", ATOM, (ANY, ANY)),
    ("numbered", "[[number, item] for number, item in enumerate($0, 1)]", ATOM, (ANY,)),
    ("range", "list(range(bounded($0)))", ATOM, (ANY,)),
    ("range_one", "list(range(1, bounded($0) + 1))", ATOM, (ANY,)),
    ("without", "[one for one in $0 if one not in $1]", ATOM, (OR, UNION)),
    ("shared", "[one for one in $0 if one in $1]", ATOM, (OR, UNION)),
    ("keyed_rows", "keyed_rows($0, $1)", ATOM, (ANY, ANY)),
    ("position", "$0.index($1)", ATOM, (ATOM, ANY)),
    # mappings
    ("keys", "list($0)", ATOM, (ANY,)),
    ("values", "list($0.values())", ATOM, (ATOM,)),
    ("pairs", "[[key, value] for key, value in $0.items()]", ATOM, (ATOM,)),
    ("get_or", "$0.get($1, $2)", ATOM, (ATOM, ANY, ANY)),
    ("merge", "$0 | $1", UNION, (UNION, SUM)),
    ("deep_merge", "deep_merge($0, $1)", ATOM, (ANY, ANY)),
    ("counted", "dict(Counter($0))", ATOM, (ANY,)),
    ("by_key", "dict(sorted($0.items()))", ATOM, (ATOM,)),
    # texts
    ("text", "str($0)", ATOM, (ANY,)),
    ("lower", "$0.lower()", ATOM, (ATOM,)),
    ("upper", "$0.upper()", ATOM, (ATOM,)),
    ("title", "$0.title()", ATOM, (ATOM,)),
    ("capital", "$0.capitalize()", ATOM, (ATOM,)),
    ("strip", "$0.strip()", ATOM, (ATOM,)),
    ("strip_of", "$0.strip($1)", ATOM, (ATOM, ANY)),
    ("replace", "$0.replace($1, $2)", ATOM, (ATOM, ANY, ANY)),
    ("split", "$0.split($1)", ATOM, (ATOM, ANY)),
    ("words", "$0.split()", ATOM, (ATOM,)),
    ("lines", "$0.splitlines()", ATOM, (ATOM,)),
    ("before", "$0.split($1, 1)[0]", ATOM, (ATOM, ANY)),
    ("after", "$0.split($1, 1)[1]", ATOM, (ATOM, ANY)),
    ("before_last", "$0.rsplit($1, 1)[0]", ATOM, (ATOM, ANY)),
    ("after_last", "$0.rsplit($1, 1)[1]", ATOM, (ATOM, ANY)),
    ("starts", "$0.startswith($1)", ATOM, (ATOM, ANY)),
    ("ends", "$0.endswith($1)", ATOM, (ATOM, ANY)),
    ("without_prefix", "$0.removeprefix($1)", ATOM, (ATOM, ANY)),
    ("without_suffix", "$0.removesuffix($1)", ATOM, (ATOM, ANY)),
    ("zeros", "$0.zfill($1)", ATOM, (ATOM, ANY)),
    ("times_in", "$0.count($1)", ATOM, (ATOM, ANY)),
    ("found", "re.findall($1, $0)", ATOM, (ANY, ANY)),
    ("bytes_of", "$0.encode()", ATOM, (ATOM,)),
    ("text_of", "$0.decode()", ATOM, (ATOM,)),
    # notations
    ("json", "json.loads($0)", ATOM, (ANY,)),
    ("json_text", "json.dumps($0)", ATOM, (ANY,)),
    ("json_sorted", "json.dumps($0, sort_keys=True)", ATOM, (ANY,)),
    ("json_indent", "json.dumps($0, indent=$1)", ATOM, (ANY, ANY)),
    ("json_indent_sorted", "json.dumps($0, indent=$1, sort_keys=True)", ATOM, (ANY, ANY)),
    ("json_tight", 'json.dumps($0, separators=(",", ":"))', ATOM, (ANY,)),
    ("json_tight_sorted", 'json.dumps($0, sort_keys=True, separators=(",", ":"))', ATOM, (ANY,)),
    ("csv", "list(csv.DictReader($0.splitlines()))", ATOM, (ATOM,)),
    ("csv_by", "list(csv.DictReader($0.splitlines(), delimiter=$1))", ATOM, (ATOM, ANY)),
    ("csv_cells", "list(csv.reader($0.splitlines()))", ATOM, (ATOM,)),
    ("fields", "fields_of($0)", ATOM, (ANY,)),
    ("options", "options_of($0, $1)", ATOM, (ANY, ANY)),
    ("number", "as_number($0)", ATOM, (ANY,)),
    ("value", "as_value($0)", ATOM, (ANY,)),
    ("short", "short_of($0, $1, $2)", ATOM, (ANY, ANY, ANY)),
    # dates
    ("date_add", "(date.fromisoformat($0) + timedelta(days=$1)).isoformat()", ATOM, (ANY, ANY)),
    ("days_between", "(date.fromisoformat($1) - date.fromisoformat($0)).days", ATOM, (ANY, ANY)),
    ("date_as", "date.fromisoformat($0).strftime($1)", ATOM, (ANY, ANY)),
    ("weekday", "date.fromisoformat($0).weekday()", ATOM, (ANY,)),
    ("moment_add", "(datetime.fromisoformat($0) + timedelta(seconds=$1)).isoformat()", ATOM, (ANY, ANY)),
    ("seconds_between", "(datetime.fromisoformat($1) - datetime.fromisoformat($0)).total_seconds()", ATOM, (ANY, ANY)),
    ("add_months", "add_months($0, $1)", ATOM, (ANY, ANY)),
    ("add_workdays", "add_workdays($0, $1)", ATOM, (ANY, ANY)),
    ("on_workday", "on_workday($0)", ATOM, (ANY,)),
    # predicates
    ("eq", "$0 == $1", COMPARE, (UNION, UNION)),
    ("ne", "$0 != $1", COMPARE, (UNION, UNION)),
    ("lt", "$0 < $1", COMPARE, (UNION, UNION)),
    ("le", "$0 <= $1", COMPARE, (UNION, UNION)),
    ("gt", "$0 > $1", COMPARE, (UNION, UNION)),
    ("ge", "$0 >= $1", COMPARE, (UNION, UNION)),
    ("is_none", "$0 is None", COMPARE, (UNION,)),
    ("is_some", "$0 is not None", COMPARE, (UNION,)),
    ("not", "not $0", NOT, (NOT,)),
    ("and", "$0 and $1", AND, (AND, NOT)),
    ("or", "$0 or $1", OR, (OR, AND)),
    ("truth", "bool($0)", ATOM, (ANY,)),
)  # fmt: skip

_IMPORTS = {
    "math.": "import math", "statistics.": "import statistics", "json.": "import json", "csv.": "import csv",
    "re.": "import re", "Counter(": "from collections import Counter", "datetime.": "from datetime import datetime",
    "date.": "from datetime import date", "timedelta(": "from datetime import timedelta",
}  # fmt: skip


def _operation(name: str, template: str, binds: int, operands: tuple[int, ...]) -> Operation:
    imports = tuple(
        line for mark, line in _IMPORTS.items() if re.search(rf"(?<![\w.\]]){re.escape(mark)}", template) is not None
    )
    helper = next((one for one in HELPERS if f"{one}(" in template), None)
    repeats = any(template.count(f"${place}") > 1 for place in range(len(operands)))
    return Operation(name, template, binds, operands, imports, helper, repeats)


TABLE: dict[str, Operation] = {line[0]: _operation(*line) for line in _LINES}


def _compiled() -> dict[str, Callable[..., Any]]:
    space: dict[str, Any] = {
        "math": math, "statistics": statistics, "json": json, "csv": csv, "re": re, "Counter": Counter, "date": date,
        "datetime": datetime, "timedelta": timedelta, "calendar": calendar,
    }  # fmt: skip
    # Constants of this file, and no byte of anybody's: so search, interpreter and written tool mean the same by one line.
    for _, text in HELPERS.values():
        exec(compile(text, "<operators>", "exec", dont_inherit=True), space)  # noqa: S102 - the constant texts above
    functions: dict[str, Callable[..., Any]] = {}
    for operation in TABLE.values():
        names = [f"operand{place}" for place in range(len(operation.operands))]
        line = operation.template
        for place, name in enumerate(names):
            line = line.replace(f"${place}", name)
        functions[operation.name] = eval(f"lambda {', '.join(names)}: {line}", space)  # noqa: S307 - the lines above
    return functions


FUNCTIONS: dict[str, Callable[..., Any]] = _compiled()
