"""How the types that Arrow cannot carry exactly leave DuckDB: as text.

VARIANT and UNION become JSON (with bare NaN and Infinity, as Python reads them), UHUGEINT, BIGNUM, BIT and TIMETZ
their decimal, binary or ISO text, inside lists, structs and maps too. Without that, DuckDB 2.0 exports VARIANT as
undeclared binary, UHUGEINT above 2^127 as a negative number, BIT padded, and TIMETZ without its zone.
All else arrives exactly: HUGEINT as decimal128(38, 0), TIMESTAMP_NS as timestamp[ns], ENUM as a dictionary.
"""

from typing import Any

_AS_TEXT = {"uhugeint", "bignum", "bit", "time with time zone"}
_AS_JSON = {"variant", "union"}


def exported_type(kind: Any) -> str | None:
    """Return the type to cast to before the export, or None where Arrow carries `kind` as it is."""
    name = kind.id
    if name in _AS_JSON:
        return "JSON"
    if name in _AS_TEXT:
        return "VARCHAR"
    if name not in {"list", "array", "struct", "map"}:
        return None
    children = dict(kind.children)
    inner = {child: exported_type(part) for child, part in children.items() if hasattr(part, "id")}
    if not any(inner.values()):
        return None
    told = {child: cast or str(children[child]) for child, cast in inner.items()}
    if name == "list":
        return f"{told['child']}[]"
    if name == "array":
        return f"{told['child']}[{children['size']}]"
    if name == "map":
        return f"MAP({told['key']}, {told['value']})"
    return "STRUCT(" + ", ".join(f"{quoted(child)} {cast}" for child, cast in told.items()) + ")"


def projection_of(relation: Any) -> str:
    """Return the select list that casts those columns of a relation and leaves the others alone."""
    parts = []
    for number, (name, kind) in enumerate(zip(relation.columns, relation.types, strict=True), 1):
        cast = exported_type(kind)
        parts.append(f"CAST(#{number} AS {cast}) AS {quoted(name)}" if cast else f"#{number} AS {quoted(name)}")
    return ", ".join(parts)


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
