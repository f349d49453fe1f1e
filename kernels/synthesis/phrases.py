"""Expressions as lines of Python: each operation by its own line of the table, parentheses where Python binds otherwise."""

import math
from typing import Any

from .operators import ANY, ATOM, HELPERS, OR, SIGN, TABLE
from .program import (
    Choice,
    Const,
    Each,
    Expr,
    Listed,
    Op,
    Pairs,
    Pick,
    Record,
    Ref,
    Shown,
    Sorted,
    Text,
    refs,
    walk,
)  # fmt: skip

_TERNARY = 1
_CONTROL = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


def quoted(text: str, quote: str = '"') -> str:
    """Return a text as Python writes it, in double quotes unless it holds some and no single ones."""
    if quote == '"' and '"' in text and "'" not in text:
        quote = "'"
    return quote + escaped(text, quote) + quote


def escaped(text: str, quote: str) -> str:
    """Return what stands between the quotes."""
    out = []
    for char in text:
        if char == quote:
            out.append("\\" + char)
        elif char in _CONTROL:
            out.append(_CONTROL[char])
        elif char.isprintable():
            out.append(char)
        else:
            code = ord(char)
            out.append(f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}")
    return "".join(out)


class Phrases:
    """Writes expressions; remembers what they need: imports, helpers, and constants that no f-string may hold."""

    def __init__(self, names: dict[str, str], taken: set[str]) -> None:
        self.names = names  # of the program -> of the text
        self.taken = taken
        self.imports: set[str] = set()
        self.helpers: list[str] = []
        self.marks: dict[str, str] = {}
        self.clauses: list[str] = []  # of the list that was written last, the outermost of those inside each other
        self._quote = '"'

    def write(self, node: Expr, binds: int = ANY) -> str:
        """Return an expression, in parentheses where it binds less than its place asks for."""
        text, own = self._phrase(node)
        return f"({text})" if own < binds else text

    def _phrase(self, node: Expr) -> tuple[str, int]:
        if isinstance(node, Const):
            return self.constant(node.value), SIGN if _negative(node.value) else ATOM
        if isinstance(node, Ref):
            return self.names.get(node.name, node.name), ATOM
        if isinstance(node, Op):
            return self._operation(node)
        if isinstance(node, Text):
            return self._text(node)
        if isinstance(node, Shown):
            return self._text(Text((node,)))
        if isinstance(node, Record):
            fields = ", ".join(f"{self.constant(key)}: {self.write(value, _TERNARY)}" for key, value in node.fields)
            return f"{{{fields}}}", ATOM
        if isinstance(node, Listed):
            return f"[{', '.join(self.write(item, _TERNARY) for item in node.items)}]", ATOM
        if isinstance(node, Choice):
            test, then, other = self.write(node.test, OR), self.write(node.then, OR), self.write(node.other, _TERNARY)
            return f"{then} if {test} else {other}", _TERNARY
        return self._through(node), ATOM

    def _operation(self, node: Op) -> tuple[str, int]:
        operation = TABLE[node.op]
        self.imports.update(operation.imports)
        if operation.helper is not None and operation.helper not in self.helpers:
            self.helpers.append(operation.helper)
            self.imports.update(HELPERS[operation.helper][0])
        text = ""
        written = [self.write(part, binds) for part, binds in zip(node.args, operation.operands, strict=True)]
        at = 0
        template = operation.template
        while (mark := template.find("$", at)) >= 0:  # operands are put in once: they may hold the sign themselves
            text += template[at:mark] + written[int(template[mark + 1])]
            at = mark + 2
        text += template[at:]
        if self._quote == "'":
            text = text.replace('"', "'") if "'" not in template else text
        return text, operation.binds

    def _through(self, node: Each | Pairs | Sorted | Pick) -> str:
        over = self.write(node.over, OR)
        before = self.names.get(node.var)
        name = self.names[node.var] = self.fresh(_item_name(node))
        self.taken.add(name)
        try:
            if isinstance(node, Sorted):
                back = ", reverse=True" if node.reverse else ""
                return f"sorted({self.write(node.over)}, key=lambda {name}: {self.write(node.key, _TERNARY)}{back})"
            if isinstance(node, Pick):
                return f"{node.which}({self.write(node.over)}, key=lambda {name}: {self.write(node.key, _TERNARY)})"
            clauses = [
                f"for {name} in {over}",
                *([f"if {self.write(node.where, OR)}"] if node.where is not None else []),
            ]
            value = self.write(node.value, _TERNARY)
            if isinstance(node, Pairs):
                value = f"{self.write(node.key, _TERNARY)}: {value}"
            self.clauses = [value, *clauses]
            whole = " ".join(self.clauses)
            return f"{{{whole}}}" if isinstance(node, Pairs) else f"[{whole}]"
        finally:
            self.taken.discard(name)
            if before is None:
                del self.names[node.var]
            else:
                self.names[node.var] = before

    def fresh(self, name: str) -> str:
        """Return a name that is not taken here: this one, or with a number behind it."""
        number = 1
        found = name
        while found in self.taken:
            number += 1
            found = f"{name}{number}"
        return found

    def constant(self, value: Any) -> str:
        """Return a constant as Python writes it."""
        if isinstance(value, str):
            text = quoted(value, self._quote)
            if self._quote == "'" and "\\" in text:
                return self.marks.setdefault(value, f"MARK{len(self.marks) + 1}")
            return text
        if isinstance(value, float) and not math.isfinite(value):
            return f"float({quoted(str(value), self._quote)})"
        if isinstance(value, list):
            return f"[{', '.join(self.constant(item) for item in value)}]"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{self.constant(key)}: {self.constant(item)}' for key, item in value.items())}}}"
        return repr(value)

    def _text(self, node: Text) -> tuple[str, int]:
        """Write an f-string; what no f-string can hold before Python 3.12 is put beside it."""
        if self._quote == "'":  # inside another one
            return " + ".join(self._beside(part) for part in node.parts), TABLE["add"].binds
        pieces: list[str] = []
        open_piece = ""
        for part in node.parts:
            inside = self._inside(part)
            if inside is None:
                if open_piece:
                    pieces.append(_closed(open_piece))
                    open_piece = ""
                pieces.append(self._beside(part))
            else:
                open_piece += inside
        if open_piece:
            pieces.append(_closed(open_piece))
        return " + ".join(pieces), TABLE["add"].binds if len(pieces) > 1 else ATOM

    def _inside(self, part: Expr) -> str | None:
        if isinstance(part, Const) and isinstance(part.value, str):
            return escaped(part.value, '"').replace("{", "{{").replace("}", "}}")
        value, spec = (part.value, part.spec) if isinstance(part, Shown) else (part, "")
        if any(isinstance(one, Text | Shown | Pairs | Record) for one in walk(value)):
            return None
        self._quote = "'"
        try:
            text = self.write(value, _TERNARY + 1)
        finally:
            self._quote = '"'
        if '"' in text or "\\" in text or "lambda" in text:
            return None
        return f"{{{text}:{spec}}}" if spec else f"{{{text}}}"

    def _beside(self, part: Expr) -> str:
        if isinstance(part, Const) and isinstance(part.value, str):
            return self.constant(part.value)
        if isinstance(part, Shown):
            value = self.write(part.value)
            return f'f"{{{value}:{part.spec}}}"' if '"' not in value and part.spec else f"str({value})"
        text = self.write(part, TABLE["add"].operands[1])
        return text if isinstance(part, Op) and part.op == "joined" else f"str({text})"


def _closed(piece: str) -> str:
    if "{" not in piece and "}" not in piece:
        return f'"{piece}"'
    return f'f"{piece}"'


def _negative(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value < 0


def _item_name(node: Each | Pairs | Sorted | Pick) -> str:
    """Return a telling name for the item of a list."""
    over: Expr = node.over
    while isinstance(over, Each | Sorted) or (
        isinstance(over, Op) and over.op in ("take", "take_last", "drop", "backwards")
    ):
        inner = over.over if isinstance(over, Each | Sorted) else over.args[0]
        if isinstance(over, Each) and not isinstance(over.value, Ref):
            break
        over = inner
    if isinstance(over, Op):
        known = {
            "csv": "row", "csv_by": "row", "lines": "line", "keys": "key", "range": "number", "range_one": "number",
            "words": "word", "keyed_rows": "row", "sorted_set": "name", "unique": "name", "numbered": "pair", "zipped": "pair",
            "pairs": "pair",
        }.get(over.op)  # fmt: skip
        if known is not None:
            return known
    parts = [part for name in ("value", "key", "where") for part in walk(getattr(node, name, None))]
    for part in parts:
        if isinstance(part, Op) and part.op == "item" and part.args[0] == Ref(node.var):
            return "row" if isinstance(part.args[1], Const) and isinstance(part.args[1].value, str) else "item"
    return "item"


def closed(node: Expr, names: set[str]) -> bool:
    """Say whether an expression reads nothing but these names."""
    bound = {part.var for part in walk(node) if isinstance(part, Each | Pairs | Sorted | Pick)}
    return refs(node) - bound <= names
