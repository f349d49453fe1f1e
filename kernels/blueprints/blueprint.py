"""A blueprint: a small graph of known operations, as data. Its bytes, its address, and its shapes.

Every blueprint that is decoded or validated keeps within `MAX_*`, so that no bytes from outside can ask for terabytes.
"""

import hashlib
import re

import msgspec

from .errors import InvalidBlueprint
from .ops import Node, Shape

MAX_BYTES = 64 * 1024
MAX_NODES = 64
MAX_EXTENT = 1 << 20  # of any one axis, and any one number in an operation
MAX_PARAMS = 1 << 30
MAX_ELEMENTS = 1 << 28  # values of one sample in one node's result

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_FORMAT = b"morphogen-blueprint-1\n"


class Blueprint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A graph: `nodes` in an order in which each reads only earlier ones; `output` counts as `of` in the operations does.

    `name` is what people and the bandit call it; two blueprints that differ in name only have one address.
    """

    name: str
    inputs: Shape
    nodes: tuple[Node, ...]
    output: int


def encode(blueprint: Blueprint) -> bytes:
    """Return the canonical bytes of a blueprint: msgpack, fields in the order of their declaration, none left out."""
    return msgspec.msgpack.encode(blueprint)


_decoder = msgspec.msgpack.Decoder(Blueprint)


def decode(data: bytes) -> Blueprint:
    """Return the blueprint that `encode` wrote, checked as `validate` checks it.

    Raises:
        InvalidBlueprint: the bytes are too many, are not a blueprint, or are one that cannot be built.
    """
    if len(data) > MAX_BYTES:
        raise InvalidBlueprint(f"{len(data)} bytes are no blueprint: the limit is {MAX_BYTES}")
    try:
        blueprint = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).replace("\n", " ")[:200]
        raise InvalidBlueprint(f"these bytes are no blueprint: {reason}") from None
    from .validation import validate

    validate(blueprint)
    return blueprint


def address(blueprint: Blueprint) -> str:
    """Return the content address: sha256 in hexadecimal of the canonical bytes, the name left out."""
    nameless = msgspec.structs.replace(blueprint, name="")
    return hashlib.sha256(_FORMAT + msgspec.msgpack.encode(nameless)).hexdigest()


def kind_of(shape: Shape) -> str:
    """Return what a shape without the batch is: features, sequence or image.

    Raises:
        InvalidBlueprint: it has no axes, or more than three.
    """
    kinds = {1: "features", 2: "sequence", 3: "image"}
    if len(shape) not in kinds:
        raise InvalidBlueprint(f"shape {shape_text(shape)}: one to three axes without the batch are known")
    return kinds[len(shape)]


def check_name(name: str) -> None:
    """Refuse a name that would not do as a column value, a file name and a key.

    Raises:
        InvalidBlueprint: it is not 1 to 64 of a-z, 0-9, `_`, `.`, `-`, beginning with a letter.
    """
    if not _NAME.fullmatch(name):
        raise InvalidBlueprint(f"blueprint name {name[:80]!r}: use 1 to 64 of a-z 0-9 _ . -, a letter first")


def check_shape(shape: Shape, what: str) -> None:
    """Refuse a shape with an axis that is not from 1 to `MAX_EXTENT`; only a sequence's length may be None.

    Raises:
        InvalidBlueprint: such an axis, or too many values in all.
    """
    kind = kind_of(shape)
    values = 1
    for place, extent in enumerate(shape):
        if extent is None:
            if kind == "sequence" and place == 0:
                continue
            raise InvalidBlueprint(f"{what} {shape_text(shape)}: only the length of a sequence may be open")
        if not 1 <= extent <= MAX_EXTENT:
            raise InvalidBlueprint(f"{what} {shape_text(shape)}: an axis has from 1 to {MAX_EXTENT} values")
        values *= extent
    if values > MAX_ELEMENTS:
        raise InvalidBlueprint(f"{what} {shape_text(shape)}: more than {MAX_ELEMENTS} values a sample")


def shape_text(shape: Shape) -> str:
    """Write a shape for people, such as (?, 64)."""
    return "(" + ", ".join("?" if extent is None else str(extent)[:24] for extent in shape[:8]) + ")"
