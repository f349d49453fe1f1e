"""The grammar of tools: what the text of one may say. A lint that keeps honest tools honest, not the boundary.

Allowed is what is listed: kinds of syntax, built-in names, names of modules (`vocabulary.TABLE`). A module can be reached
only as `module.name` of the table, never held, passed or given another name, so no attribute of it leads further.
`check` raises UnsafeTool with line, column, what, and what to do; it raises nothing else, whatever it is given.
"""

import ast
import warnings
from collections.abc import Iterable

import msgspec

from .errors import UnsafeTool
from .vocabulary import BUILTINS, TABLE

MAX_CHARS = 64_000
MAX_LINE = 20_000
MAX_BRACKETS = 60
MAX_NODES = 8_000
MAX_DEPTH = 60
MAX_TEXT = 16_000
MAX_INT_BITS = 256
MAX_POWER = 1_000

_STATEMENTS: tuple[type[ast.AST], ...] = (
    ast.FunctionDef, ast.Return, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For, ast.While, ast.If, ast.Raise, ast.Try,
    ast.Assert, ast.Import, ast.ImportFrom, ast.Expr, ast.Pass, ast.Break, ast.Continue, ast.Delete,
)  # fmt: skip
_EXPRESSIONS: tuple[type[ast.AST], ...] = (
    ast.BoolOp, ast.NamedExpr, ast.BinOp, ast.UnaryOp, ast.Lambda, ast.IfExp, ast.Dict, ast.Set, ast.ListComp,
    ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Compare, ast.Call, ast.FormattedValue, ast.JoinedStr, ast.Constant,
    ast.Attribute, ast.Subscript, ast.Starred, ast.Name, ast.List, ast.Tuple, ast.Slice,
)  # fmt: skip
_PARTS: tuple[type[ast.AST], ...] = (
    ast.Module, ast.arguments, ast.arg, ast.keyword, ast.alias, ast.comprehension, ast.ExceptHandler, ast.expr_context,
    ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
_ALLOWED = _STATEMENTS + _EXPRESSIONS + _PARTS

_INSTEAD: dict[type[ast.AST], str] = {
    ast.ClassDef: "use functions, dicts and tuples",
    ast.AsyncFunctionDef: "write a plain function",
    ast.Await: "write a plain function",
    ast.Yield: "return a list, or use a generator expression",
    ast.YieldFrom: "return a list, or use a generator expression",
    ast.Global: "pass the value in and return it",
    ast.Nonlocal: "pass the value in and return it",
    ast.With: "use the capabilities given, such as files.read_text",
    ast.Match: "use if and elif",
}

# Attributes that lead from a value to the interpreter, or read a field by a name made at run time.
_BAD_ATTRIBUTES = frozenset(
    [
        "format",
        "format_map",
        "mro",
        "with_traceback",
        "func_globals",
        "func_code",
        "throw",
        "send",
        "gi_frame",
        "gi_code",
        "cr_frame",
    ]
)
_BAD_PREFIXES = ("_", "gi_", "cr_", "ag_", "f_", "tb_", "co_", "func_")
# The clock and the process's own randomness: a tool is a function of what it is given.
_TIME_ATTRIBUTES = frozenset({"now", "utcnow", "today"})

_CAPABILITIES = "use the capabilities given, such as files.read_text"
_NO_CODE = "write out what is meant: code is not made at run time"
_BY_NAME = "name the attribute or key itself"
_ADVICE_NAMES = {
    "open": _CAPABILITIES, "input": _CAPABILITIES,
    "eval": _NO_CODE, "exec": _NO_CODE, "compile": _NO_CODE, "__import__": _NO_CODE,
    "getattr": _BY_NAME, "setattr": _BY_NAME, "delattr": _BY_NAME, "hasattr": _BY_NAME, "vars": _BY_NAME,
    "globals": _BY_NAME, "locals": _BY_NAME, "dir": _BY_NAME,
    "type": "use isinstance", "super": "use functions", "id": "compare values", "hash": "compare values",
}  # fmt: skip


class CheckedTool(msgspec.Struct, frozen=True):
    """A text inside the grammar: the modules that it imports, and the functions that it defines with their parameters."""

    source: str
    modules: tuple[str, ...]
    functions: dict[str, tuple[str, ...]]


def check(source: str, *, entry: str | None = None, tools: Iterable[str] = ()) -> CheckedTool:
    """Return what a text holds if it is inside the grammar; UnsafeTool tells the first place where it is not.

    `tools` are the full names of the capabilities that it may use (`files.read_text`); `entry`, where given, must be
    a function of it.
    """
    tree = _parse(source)
    checker = _Checker(frozenset(tools), source)
    checker.measure(tree)
    checker.collect(tree)
    for node in tree.body:
        checker.top(node)
    checker.walk(tree)
    if entry is not None and entry not in checker.functions:
        raise UnsafeTool(1, 1, f"there is no function {entry[:80]!r}", f"define one: def {entry[:80]}(...)")
    return CheckedTool(source, tuple(sorted(checker.imported)), checker.functions)


def _parse(source: str) -> ast.Module:
    if not isinstance(source, str):
        raise UnsafeTool(1, 1, "the tool is no text", "give its Python as a str")
    _prescan(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a text is no matter of ours
            return ast.parse(source, filename="<tool>")
    except SyntaxError as error:
        line, column = max(1, error.lineno or 1), max(1, error.offset or 1)
        raise UnsafeTool(line, column, f"this is no Python: {error.msg}", "mend the syntax") from None
    except (ValueError, RecursionError, MemoryError, OverflowError, UnicodeError) as error:
        what = f"the parser gives up: {type(error).__name__}"
        raise UnsafeTool(1, 1, what, "write shorter and flatter expressions") from None


def _prescan(source: str) -> None:
    """Refuse, without a parser, what could exhaust one."""
    if len(source) > MAX_CHARS:
        raise UnsafeTool(1, 1, f"the text has {len(source)} characters", f"keep to {MAX_CHARS}")
    for number, line in enumerate(source.splitlines(), 1):
        if len(line) > MAX_LINE:
            raise UnsafeTool(number, MAX_LINE, f"the line has {len(line)} characters", f"keep to {MAX_LINE}")
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent > 4 * MAX_DEPTH:
            raise UnsafeTool(number, 1, "the line is indented very far", f"nest less than {MAX_DEPTH} deep")
        for column, char in enumerate(line, 1):
            if char == "\0" or 0xD800 <= ord(char) <= 0xDFFF:
                raise UnsafeTool(number, column, "a character that no source may hold", "remove it")
    depth = 0
    row, column = 1, 0
    runs = 0
    for char in source:
        column += 1
        if char == "\n":
            row, column = row + 1, 0
        depth += (char in "([{") - (char in ")]}")
        depth = max(0, depth)
        runs = runs + 1 if char in "-+~" else 0 if not char.isspace() else runs
        if depth > MAX_BRACKETS or runs > MAX_BRACKETS:
            raise UnsafeTool(
                row, column, "brackets or signs are nested very deep", f"nest less than {MAX_BRACKETS} deep"
            )


class _Checker:
    def __init__(self, tools: frozenset[str], source: str) -> None:
        self.lines = source.splitlines()
        self.tools = tools
        self.roots = {name.split(".")[0] for name in tools}
        self.imported: set[str] = set()
        self.modules: dict[str, str] = {}  # the name that a module goes by here -> the module
        self.bound: set[str] = set()
        self.functions: dict[str, tuple[str, ...]] = {}

    def measure(self, tree: ast.AST) -> None:
        """Refuse a tree that is too large or too deep for the walk that follows."""
        count = 0
        waiting: list[tuple[ast.AST, int, ast.AST]] = [(tree, 0, tree)]
        while waiting:
            node, depth, near = waiting.pop()
            near = node if hasattr(node, "lineno") else near
            count += 1
            if count > MAX_NODES:
                self.refuse(near, f"the tool has more than {MAX_NODES} parts", "write a shorter one")
            if depth > MAX_DEPTH:
                self.refuse(near, f"the tool is nested deeper than {MAX_DEPTH}", "name what stands inside")
            waiting += [(child, depth + 1, near) for child in ast.iter_child_nodes(node)]

    def collect(self, tree: ast.Module) -> None:
        """Gather every name that the text binds, so that each name read is one of them, a built-in or a tool."""
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.take_import(node)
        for part in ast.walk(tree):
            for name in _binds(part):
                self.plain(part, name)
                if name in self.modules or name in self.roots:
                    self.refuse(part, f"{name!r} is the name of a module or a tool", "choose another name")
                if name in _ADVICE_NAMES or (name in BUILTINS and isinstance(part, ast.FunctionDef)):
                    self.refuse(part, f"{name!r} is a built-in name", "choose another name")
                self.bound.add(name)

    def take_import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Allow a module of the table, and names of it that the table lists."""
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == 0 and module == "__future__" and [alias.name for alias in node.names] == ["annotations"]:
                return
            if node.level or module not in TABLE:
                self.refuse(
                    node, f"{'.' * node.level}{module[:80]} cannot be imported", f"use one of: {_listed(TABLE)}"
                )
            for alias in node.names:
                if alias.name not in TABLE[module]:
                    self.refuse(
                        node, f"{module}.{alias.name[:80]} is not listed", f"use one of: {_listed(TABLE[module])}"
                    )
                self.fresh(node, alias.asname or alias.name)
                self.bound.add(alias.asname or alias.name)
            self.imported.add(module)
            return
        for alias in node.names:
            if alias.name not in TABLE:
                self.refuse(node, f"{alias.name[:80]} cannot be imported", f"use one of: {_listed(TABLE)}")
            if "." in alias.name:
                self.refuse(node, f"{alias.name} is imported whole", f"write: from {alias.name} import ...")
            self.fresh(node, alias.asname or alias.name)
            self.modules[alias.asname or alias.name] = alias.name
            self.imported.add(alias.name)

    def top(self, node: ast.stmt) -> None:
        """Allow at the top: a docstring, imports, constants, functions."""
        if isinstance(node, ast.FunctionDef):
            args = node.args
            self.functions[node.name] = tuple(arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs))
        elif isinstance(node, ast.Expr):
            if not (isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)):
                self.refuse(node, "code runs when the tool is loaded", "put it into a function")
        elif not isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign):
            self.refuse(node, f"a {_kind(node)} stands at the top", "put it into a function")

    def walk(self, tree: ast.Module) -> None:
        """Look at every node, and at what stands above it."""
        top = set(map(id, tree.body))
        for parent in ast.walk(tree):
            for node in ast.iter_child_nodes(parent):
                if not isinstance(node, _ALLOWED):
                    self.refuse(
                        node,
                        f"a {_kind(node)} is not part of the grammar",
                        _INSTEAD.get(type(node), "write it plainly"),
                    )
                self.node(node, parent, id(node) in top)

    def node(self, node: ast.AST, parent: ast.AST, top: bool) -> None:
        """Judge one node."""
        if isinstance(node, ast.Name):
            self.name(node, parent)
        elif isinstance(node, ast.Attribute):
            self.attribute(node)
        elif isinstance(node, ast.Constant):
            self.constant(node)
        elif isinstance(node, ast.Import | ast.ImportFrom) and not top:
            self.refuse(node, "an import inside a function", "import at the top")
        elif isinstance(node, ast.FunctionDef) and node.decorator_list:
            self.refuse(node, "a decorator", "call the function where it is needed")
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            self.refuse(node, "an except that takes everything", "name the exceptions, or write: except Exception")
        elif isinstance(node, ast.keyword) and node.arg is not None:
            self.plain(node.value, node.arg)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift | ast.Mult):
            self.growth(node)

    def name(self, node: ast.Name, parent: ast.AST) -> None:
        """Allow a name that is bound, built in or a tool; a module only where its attribute is taken."""
        name = node.id
        self.plain(node, name)
        dotted = isinstance(parent, ast.Attribute)
        if name in self.modules:
            if not dotted:
                self.refuse(node, f"the module {name} is used as a value", f"use a name of it: {name}.something")
        elif name in self.roots:
            if name not in self.tools and not dotted:
                self.refuse(node, f"{name} is a group of tools, not a value", f"call one: {self.of_group(name)}")
        elif name not in self.bound and name not in BUILTINS:
            fix = _ADVICE_NAMES.get(name, "define it, pass it in, or declare it as a tool")
            self.refuse(node, f"the name {name[:80]!r} is not available", fix)

    def attribute(self, node: ast.Attribute) -> None:
        """Allow the table's names of a module, a tool's name of its group, and plain attributes of values, to be read."""
        name = node.attr
        if not isinstance(node.ctx, ast.Load):
            self.refuse(node, f"the attribute {name[:80]!r} is changed", "build a new value instead")
        if isinstance(node.value, ast.Name) and node.value.id in self.modules:
            module = self.modules[node.value.id]
            if name not in TABLE[module]:
                self.refuse(node, f"{module}.{name[:80]} is not listed", f"use one of: {_listed(TABLE[module])}")
            return
        path = _dotted(node)
        if path is not None and path.split(".")[0] in self.roots:
            if path not in self.tools and not any(tool.startswith(f"{path}.") for tool in self.tools):
                self.refuse(node, f"there is no tool {path[:80]!r}", f"use one of: {_listed(self.tools)}")
            return
        self.plain(node, name)
        if name in _BAD_ATTRIBUTES or name.startswith(_BAD_PREFIXES):
            fix = "use an f-string" if name.startswith("format") else "work with values only"
            self.refuse(node, f"the attribute {name[:80]!r} leads out of the grammar", fix)
        if name in _TIME_ATTRIBUTES:
            self.refuse(node, f"{name!r} reads the clock", "take the time as a parameter")

    def constant(self, node: ast.Constant) -> None:
        """Keep constants small."""
        value = node.value
        if isinstance(value, str | bytes) and len(value) > MAX_TEXT:
            self.refuse(node, f"a text of {len(value)} characters", f"keep to {MAX_TEXT}, or pass it in")
        if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
            self.refuse(node, f"an integer of {value.bit_length()} bits", f"keep to {MAX_INT_BITS}")

    def growth(self, node: ast.BinOp) -> None:
        """Refuse arithmetic of constants that is made to be huge: the parser's own folding would do it."""
        right = node.right.value if isinstance(node.right, ast.Constant) else None
        left = node.left.value if isinstance(node.left, ast.Constant) else None
        if isinstance(node.op, ast.Mult):
            sizes = [value for value in (left, right) if isinstance(value, int)]
            huge = any(size > 10_000_000 for size in sizes) and any(
                isinstance(value, str | bytes) for value in (left, right)
            )
            huge = huge or (isinstance(node.left, ast.List | ast.Tuple) and any(size > 10_000_000 for size in sizes))
        else:
            huge = (isinstance(right, int) and right > MAX_POWER) or (
                isinstance(node.right, ast.BinOp) and isinstance(node.right.op, ast.Pow)
            )
        if huge:
            self.refuse(node, "an expression that grows without need", "use smaller numbers")

    def plain(self, node: ast.AST, name: str) -> None:
        """Refuse names that are private, not ASCII or very long."""
        if name.startswith("_") and name != "_":
            self.refuse(node, f"the name {name[:80]!r} begins with an underscore", "choose a plain name")
        if len(name) > 100 or not name.isascii():
            self.refuse(node, f"the name {name[:40]!r} is long or not ASCII", "choose a plain name")

    def fresh(self, node: ast.AST, name: str) -> None:
        """Refuse an import under a name that is taken: what the name means must not depend on when it is read."""
        self.plain(node, name)
        if name in self.modules or name in self.bound or name in self.roots or name in _ADVICE_NAMES:
            self.refuse(node, f"the name {name[:80]!r} is taken", "import each thing once, under its own name")

    def of_group(self, group: str) -> str:
        """Return one tool of a group."""
        return next(name for name in sorted(self.tools) if name.startswith(f"{group}."))

    def refuse(self, node: ast.AST, what: str, fix: str) -> None:
        """Raise UnsafeTool at a node."""
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)  # the offset counts bytes
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        raise UnsafeTool(line, len(text.encode()[:offset].decode(errors="ignore")) + 1, what, fix)


def _binds(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return [node.id]
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.ExceptHandler) and node.name:
        return [node.name]
    return []


def _dotted(node: ast.Attribute) -> str | None:
    parts = [node.attr]
    value = node.value
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    if not isinstance(value, ast.Name):
        return None
    return ".".join([value.id, *reversed(parts)])


def _kind(node: ast.AST) -> str:
    return type(node).__name__


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:40]) + (", ..." if len(found) > 40 else "")
