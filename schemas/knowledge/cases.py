"""Cases of a trace as event types: their names in the log, their classes, and items that are what the case declares.

Case `Performance` of system `MatMul` is the event type `trace.mat_mul.performance`. Its fields stand in the event under
the names that the case gives them; `origin` says whether the values were measured, simulated or projected, and `source`
what produced them.
"""

import hashlib
import keyword
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import SchemaError
from ..event import Event, EventMeta, event_class
from .errors import KnowledgeError
from .logic import Value
from .tree import Node, System
from .types import Type, problem_of

if TYPE_CHECKING:
    from .program import CaseInfo, Program

ORIGINS = ("measured", "simulated", "projected")
FAMILY = "trace"
_RESERVED = frozenset({"type", "version", "family", "high_rate", "encode"})
_INT = range(-(2**63), 2**63)
_PYTHON: Mapping[str, Any] = {"int": int, "float": float, "string": str, "boolean": bool, "list": list, "map": dict}

_made: dict[str, tuple[str, str, type[Event]]] = {}  # (structure, path of the module, class) by event type


def snake(name: str) -> str:
    """Return a name as a word of an event type: lower-case ASCII letters, digits and `_`, beginning with a letter.

    `MatMul` is mat_mul, `FMHA` fmha, `LoopLM` loop_lm. A name with nothing of that kind in it becomes a hash.
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", ascii_name)
    word = re.sub(r"[^a-z0-9]+", "_", parts.lower()).strip("_")
    lost = sum(
        not character.isascii() and not unicodedata.combining(character)
        for character in unicodedata.normalize("NFKD", name)
    )
    if not word or lost:
        word = f"{word}_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}".strip("_")
    return word if word[0].isalpha() else f"n{word}"


def words_of(system: System) -> Iterator[tuple[str, str, Node]]:
    """Yield what a system and its cases and facts are called in SQL, where two of one word cannot be told apart.

    A word comes with the full name and the declaration; SQL cuts long ones short, and they stay apart.
    """
    word = snake(system.name)
    yield f"facts_{word}", system.name, system
    for case in (case for variant in system.variants for case in variant.cases):
        yield f"trace_{word}_{snake(case.name)}", f"{system.name}.{case.name}", case
    for fact in system.facts:
        yield f"fact_{word}_{snake(fact.name)}", f"{system.name}.{fact.name}", fact


def unrecordable(fields: Mapping[str, Type]) -> tuple[str, str] | None:
    """Return a field with which no item of a case can be recorded, and what is wrong with it; None without one."""
    if "origin" in fields:
        return "origin", "a field `origin`, which every item has already"
    if "source" in fields and fields["source"].kind != "string":
        return "source", "a field `source` that is no string; every item has one that says what produced it"
    return None


def case_type(system: str, case: str) -> str:
    """Return the event type of a case."""
    return f"{FAMILY}.{snake(system)}.{snake(case)}"


def type_of(info: "CaseInfo") -> str:
    """Return the event type that a case's items are: its own, or the one that it reads from."""
    return info.source or case_type(info.system, info.case.name)


def case_event(program: "Program", case: str) -> type[Event]:
    """Return the event class of a case (any spelling of it), made and registered on first use.

    A case that reads from an event type of the log has that type's class. Raises KnowledgeError where another module
    declares the same type otherwise, or a field cannot be one of an event.
    """
    info = program.case(case)
    if info.source is not None:
        found = event_class(info.source)
        if found is None:
            raise KnowledgeError.plain(
                f"{program.path}: case `{info.name}` reads `{info.source}`, an event type that is not known here: import "
                "the package that declares it",
                path=program.path,
            )
        return found
    name = type_of(info)
    shape = structure(info)
    known = _made.get(name)
    if known is not None and known[0] == shape:
        return known[2]
    if known is not None and known[1] != program.path:
        raise KnowledgeError.plain(
            f"{program.path}: case `{info.name}` is the event type `{name}`, which {known[1]} declares with other fields: "
            "rename the system or the case in one of them",
            path=program.path,
        )
    made = _class_of(info, name, program.path)
    _made[name] = (shape, program.path, made)
    return made


def make_item(
    program: "Program", case: str, values: Mapping[str, Value], *, origin: str = "measured", source: str = ""
) -> Event:
    """Return an item of a case as an event. Raises KnowledgeError that names the field that is wrong or missing."""
    info = program.case(case)
    if info.source is not None:
        raise KnowledgeError.plain(
            f"case `{info.name}` reads the event type `{info.source}`: record those events, its items come from them",
            path=program.path,
        )
    if origin not in ORIGINS:
        raise KnowledgeError.plain(
            f"case `{info.name}`: origin is {origin!r}; it must be one of {', '.join(ORIGINS)}", path=program.path
        )
    cls = case_event(program, case)
    if problem := problem_of_item(info, values):
        raise KnowledgeError.plain(f"case `{info.name}`: {problem}", path=program.path)
    names = attributes(info)
    given = {
        names[name]: _exact(values[name], type_) for name, type_ in info.fields.items() if values.get(name) is not None
    }
    given.update(
        {names[name]: None for name, type_ in info.fields.items() if values.get(name) is None and _nullable(type_)}
    )
    extra = {"origin": origin} | ({} if "source" in info.fields else {"source": source})
    return cls(**given, **extra)


def problem_of_item(info: "CaseInfo", values: Mapping[str, Value]) -> str | None:
    """Say what is wrong with the values of an item; None where nothing is."""
    from .diagnostics import did_you_mean

    for name in values:
        if name not in info.fields:
            hint = did_you_mean(name, list(info.fields)) or f"it has {', '.join(info.fields)}"
            return f"it has no field `{name}`; {hint}"
    for name, type_ in info.fields.items():
        value = values.get(name)
        if isinstance(value, float) and value != value and type_.kind == "float":  # noqa: PLR0124
            continue  # NaN is a reading that says nothing, and not a missing one
        if problem := problem_of(value, type_):
            return f"`{name}` {problem}"
        if type_.kind == "int" and isinstance(value, int) and value not in _INT:
            return f"`{name}` is {value}; an int has 64 bits"
    return None


def structure(info: "CaseInfo") -> str:
    """Return what tells one declaration of a case from another: names, types and order of its fields."""
    fields = ", ".join(f"{name}: {_shape(type_)}" for name, type_ in info.fields.items())
    return f"{type_of(info)}({fields})"


def attributes(info: "CaseInfo") -> dict[str, str]:
    """Return, by field, the attribute of the event class that holds it; on the wire it has the field's own name."""
    names: dict[str, str] = {}
    for field in info.fields:
        name = (
            field
            if field.isidentifier() and not keyword.iskeyword(field) and field not in _RESERVED
            else f"{snake(field)}_"
        )
        while name in names.values() or (name != field and name in info.fields):
            name += "_"
        names[field] = name
    return names


def _shape(type_: Type) -> str:
    unit = f" in {type_.unit}" if type_.number and type_.unit is not None else ""
    values = f" of {type_.values!r}" if type_.values else ""
    item = f"[{_shape(type_.item)}]" if type_.item is not None else ""
    return f"{type_.kind}{item}{unit}{values}{'?' if type_.optional else ''}"


def _class_of(info: "CaseInfo", name: str, path: str) -> type[Event]:
    if problem := unrecordable(info.fields):
        raise KnowledgeError.plain(f"{path}: case `{info.name}` has {problem[1]}: rename it", path=path)
    names = attributes(info)
    annotations: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for field, type_ in info.fields.items():
        python = _python(type_)
        annotations[names[field]] = python | None if _nullable(type_) else python
        if _nullable(type_):
            defaults[names[field]] = None
    annotations["origin"] = str
    defaults["origin"] = "measured"
    if "source" not in info.fields:
        annotations["source"] = str
        defaults["source"] = ""
    # A module of the log is no module of Python; this place makes a newer class of the same case the heir of the older.
    namespace = {
        "__annotations__": annotations,
        "__module__": "knowledge",
        "__qualname__": info.name,
        "__doc__": f"Case `{info.name}` of {path}.",
        **defaults,
    }
    renamed = {attribute: field for field, attribute in names.items() if attribute != field}
    try:
        made: type[Event] = EventMeta(info.case.name, (Event,), namespace, type=name, version=1, rename=renamed or None)
    except (SchemaError, TypeError, ValueError) as error:
        raise KnowledgeError.plain(f"{path}: case `{info.name}` cannot be an event: {error}", path=path) from error
    return made


def _nullable(type_: Type) -> bool:
    return type_.optional or type_.kind in ("any", "null")


def _python(type_: Type) -> Any:
    if type_.kind == "list" and type_.item is not None and type_.item.kind in _PYTHON:
        item = _python(type_.item)
        return list[item | None]  # type: ignore[valid-type]
    return _PYTHON.get(type_.kind, Any)


def _exact(value: Value, type_: Type) -> Value:
    """Return a value as the event holds it: an int in a float field is a float."""
    if type_.kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1023 else float("inf") * (1 if value > 0 else -1)
    return value
