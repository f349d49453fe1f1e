"""Writes a program as the text of a tool: Python 3.11 inside the grammar of the sandbox, formatted, the same each time.

The text checks its input, says what it does and from what it was made, lets the errors of tools pass, and turns every other fault
into a ValueError of one line.
"""

import builtins
import keyword
from collections.abc import Mapping, Sequence
from typing import Any

from .examples import Example
from .hoisting import with_names
from .operators import HELPERS
from .phrases import Phrases, quoted
from .program import (
    Call,
    CallEach,
    Each,
    Expr,
    ForEach,
    If,
    Let,
    Op,
    Program,
    Record,
    Require,
    Return,
    Stmt,
    walk,
)

WIDTH = 120
_RESULTS = {
    "read_text": "text", "read_bytes": "data", "list_folder": "names", "query": "rows", "sql": "rows", "exists": "present",
    "get": "reply", "http": "reply", "fetch": "reply", "read": "text",
}  # fmt: skip
_CHECKS = {"str": "str", "float": "float", "bool": "bool", "bytes": "bytes"}


def written(program: Program, *, goal: str = "", examples: Sequence[Example] = ()) -> str:
    """Return the text of a tool whose entry `run` takes the program's parameters by name."""
    writer = _Writer(program)
    return writer.module(goal, examples)


def unwritable(name: str) -> bool:
    """Say whether a parameter cannot have this name in a tool."""
    return keyword.iskeyword(name) or hasattr(builtins, name) or name in ("ToolError", "error", "answer", "one", "part")


class _Writer:
    def __init__(self, program: Program) -> None:
        roots = {tool.split(".")[0] for tool in program.tools}
        taken = {param.name for param in program.params} | roots | set(HELPERS) | set(dir(builtins))
        taken |= {"run", "answer", "error", "one", "part", "key", "value", "item", "left", "right", "number"} - {
            "key",
            "value",
            "item",
            "number",
        }
        taken |= {
            "math",
            "statistics",
            "json",
            "csv",
            "re",
            "Counter",
            "date",
            "datetime",
            "timedelta",
            "calendar",
            "ToolError",
        }
        taken |= set(keyword.kwlist)
        self.names: dict[str, str] = {}
        for part in walk(program.body):
            if isinstance(part, Call | CallEach) and part.into is not None:
                self.names[part.into] = _fresh(_result_name(part), taken)
                taken.add(self.names[part.into])
        self.taken = taken
        self.program = with_names(program, taken | {"item", "row", "line", "pair"}, self._too_long)
        lets = {part.name for part in walk(self.program.body) if isinstance(part, Let)}
        self.phrases = Phrases(dict(self.names), taken | lets)

    def _too_long(self, part: Stmt) -> bool:
        phrases = Phrases(dict(self.names), set(self.taken))
        lines = _Lines(phrases, self.program_tools(part)).statement(part, 1)
        return any(len(line) > WIDTH for line in lines)

    def program_tools(self, part: Stmt) -> Mapping[str, str]:
        """Return no tool that is asked again: lengths hardly differ."""
        return {}

    def module(self, goal: str, examples: Sequence[Example]) -> str:
        """Return the whole text."""
        program = self.program
        again = {tool: tool.replace(".", "_") for tool in program.retried}
        lines = _Lines(self.phrases, again)
        body = [line for part in program.body for line in lines.statement(part, 1)]
        checks = [line for param in program.params for line in _check(param.name, param.type)]
        taken = ", ".join(f"{param.name}: {param.type}" for param in program.params)
        passed = ", ".join(param.name for param in program.params)
        run = [
            *_signature("run", taken, program.returns),
            *_docstring(goal, examples),
            *checks,
            "    try:",
            f"        return answer({passed})",
            "    except (ToolError, ValueError):",
            "        raise",
            "    except Exception as error:",
            '        raise ValueError(f"the input is not like that of the examples: {error}") from error',
        ]
        answer = [
            *_signature("answer", taken, program.returns),
            '    """Do what the examples show."""',
            *(body or ["    return None"]),
        ]
        texts = [HELPERS[name][1].rstrip("\n") for name in sorted(self.phrases.helpers)]
        functions = [
            *texts,
            *(_again(tool, name, program) for tool, name in again.items()),
            "\n".join(answer),
            "\n".join(run),
        ]
        imports = set(self.phrases.imports)
        head = [f'"""{_sentence(goal)}"""']
        if imports:
            head.append("\n".join(_imported(imports)))
        if self.phrases.marks:
            head.append("\n".join(f"{name} = {quoted(value)}" for value, name in self.phrases.marks.items()))
        return "\n\n".join(head) + "\n\n\n" + "\n\n\n".join(functions) + "\n"


class _Lines:
    """Writes statements, one or more lines each."""

    def __init__(self, phrases: Phrases, again: Mapping[str, str]) -> None:
        self.phrases = phrases
        self.again = again

    def statement(self, part: Stmt, depth: int) -> list[str]:
        """Return the lines of a statement, indented."""
        pad = "    " * depth
        if isinstance(part, Let):
            return self._assigned(pad, f"{part.name} = ", part.value)
        if isinstance(part, Return):
            return self._assigned(pad, "return ", part.value)
        if isinstance(part, Call):
            into = f"{self.phrases.names[part.into]} = " if part.into is not None else ""
            return self._call(pad, into, part.tool, part.args)
        if isinstance(part, CallEach):
            return self._call_each(pad, part)
        if isinstance(part, ForEach):
            return self._for(pad, part, depth)
        if isinstance(part, Require):
            return [f"{pad}if {self._negated(part.test)}:", f"{pad}    raise ValueError({quoted(part.message)})"]
        assert isinstance(part, If)
        lines = [f"{pad}if {self.phrases.write(part.test)}:"]
        lines += [line for one in part.then for line in self.statement(one, depth + 1)] or [f"{pad}    pass"]
        if part.other:
            ends = bool(part.then) and isinstance(part.then[-1], Return)
            if not ends:
                lines.append(f"{pad}else:")
            lines += [line for one in part.other for line in self.statement(one, depth + (not ends))]
        return lines

    def _negated(self, test: Expr) -> str:
        opposite = {
            "eq": "ne",
            "contains": "lacks",
            "is_some": "is_none",
            "lt": "ge",
            "ge": "lt",
            "le": "gt",
            "gt": "le",
        }
        if isinstance(test, Op) and test.op in opposite:
            return self.phrases.write(Op(opposite[test.op], test.args))
        return f"not {self.phrases.write(test, 5)}"

    def _assigned(self, pad: str, head: str, value: Expr) -> list[str]:
        line = f"{pad}{head}{self.phrases.write(value)}"
        if len(line) <= WIDTH:
            return [line]
        if isinstance(value, Record):
            fields = [
                f"{pad}    {self.phrases.constant(key)}: {self.phrases.write(item, 1)}," for key, item in value.fields
            ]
            return [f"{pad}{head}{{", *fields, f"{pad}}}"]
        if isinstance(value, Each):
            return self._opened(pad, head, line, list(self.phrases.clauses))
        return [line]

    def _opened(self, pad: str, head: str, line: str, clauses: Sequence[str]) -> list[str]:
        inside = line[len(pad) + len(head) + 1 : -1]
        if len(pad) + 4 + len(inside) <= WIDTH:
            return [f"{pad}{head}[", f"{pad}    {inside}", f"{pad}]"]
        return [f"{pad}{head}[", *(f"{pad}    {clause}" for clause in clauses), f"{pad}]"]

    def _call(self, pad: str, into: str, tool: str, args: Sequence[tuple[str, Expr]]) -> list[str]:
        name = self.again.get(tool, tool)
        given = [f"{key}={self.phrases.write(value, 1)}" for key, value in args]
        line = f"{pad}{into}{name}({', '.join(given)})"
        if len(line) <= WIDTH:
            return [line]
        return [f"{pad}{into}{name}(", *(f"{pad}    {one}," for one in given), f"{pad})"]

    def _call_each(self, pad: str, part: CallEach) -> list[str]:
        over = self.phrases.write(part.over, 2)
        name = self.phrases.fresh(_loop_name(part.over))
        self.phrases.names[part.var] = name
        self.phrases.taken.add(name)
        given = ", ".join(f"{key}={self.phrases.write(value, 1)}" for key, value in part.args)
        self.phrases.taken.discard(name)
        del self.phrases.names[part.var]
        head = f"{self.phrases.names[part.into]} = "
        clauses = [f"{self.again.get(part.tool, part.tool)}({given})", f"for {name} in {over}"]
        line = f"{pad}{head}[{' '.join(clauses)}]"
        return [line] if len(line) <= WIDTH else self._opened(pad, head, line, clauses)

    def _for(self, pad: str, part: ForEach, depth: int) -> list[str]:
        sides = [(part.var, part.over), *part.beside]
        lists = [self.phrases.write(over) for _, over in sides]
        names = []
        for var, over in sides:
            names.append(self.phrases.fresh(_loop_name(over)))
            self.phrases.names[var] = names[-1]
            self.phrases.taken.add(names[-1])
        through = f"zip({', '.join(lists)})" if part.beside else lists[0]
        lines = [f"{pad}for {', '.join(names)} in {through}:"]
        lines += [line for one in part.body for line in self.statement(one, depth + 1)]
        for (var, _), name in zip(sides, names, strict=True):
            self.phrases.taken.discard(name)
            del self.phrases.names[var]
        return lines


def _loop_name(over: Expr) -> str:
    if isinstance(over, Op) and over.op in ("zipped", "numbered", "pairs"):
        return "pair"
    if isinstance(over, Op) and over.op == "lines":
        return "line"
    return "item"


def _result_name(part: Call | CallEach) -> str:
    name = _RESULTS.get(part.tool.rpartition(".")[2], "result")
    if isinstance(part, CallEach):
        return {"text": "texts", "reply": "replies", "rows": "tables", "names": "folders", "data": "contents"}.get(
            name, "results"
        )
    return name


def _fresh(name: str, taken: set[str]) -> str:
    number = 1
    found = name
    while found in taken:
        number += 1
        found = f"{name}{number}"
    return found


def _signature(name: str, taken: str, returns: str) -> list[str]:
    line = f"def {name}({taken}) -> {returns}:"
    if len(line) <= WIDTH:
        return [line]
    return [f"def {name}(", *(f"    {one}," for one in _split_commas(taken)), f") -> {returns}:"]


def _split_commas(text: str) -> list[str]:
    parts, depth, piece = [], 0, ""
    for char in text:
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            parts.append(piece.strip())
            piece = ""
        else:
            piece += char
    return [*parts, piece.strip()] if piece.strip() else parts


def _sentence(goal: str) -> str:
    text = " ".join(goal.replace("\\", "/").replace('"', "'").split())[:100].strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else "Do one task, as its recorded executions show."


def _docstring(goal: str, examples: Sequence[Example]) -> list[str]:
    lines = [f'    """{_sentence(goal)}']
    if examples:
        lines += ["", f"    Made from {len(examples)} recorded executions, such as:"]
        for one in examples[:2]:
            given = ", ".join(f"{name}={_short(value)}" for name, value in one.params.items())
            lines.append(f"        run({given}) -> {_short(one.output)}"[:WIDTH].rstrip())
        return [*lines, '    """']
    return [f'{lines[0]}"""']


def _short(value: Any) -> str:
    text = "".join(char if char.isprintable() else " " for char in repr(value)).replace("\\", "/").replace('"""', "'''")
    text = text.replace('"', "'")
    return text if len(text) <= 60 else text[:57] + "..."


def _check(name: str, kind: str) -> list[str]:
    if kind == "int":
        test = f"not isinstance({name}, int) or isinstance({name}, bool)"
    elif kind == "int | float":
        test = f"not isinstance({name}, int | float) or isinstance({name}, bool)"
    elif kind in _CHECKS:
        test = f"not isinstance({name}, {_CHECKS[kind]})"
    elif kind in ("list[str]", "list[int]", "list[float]"):
        test = f"not isinstance({name}, list) or not all(isinstance(item, {kind[5:-1]}) for item in {name})"
    elif kind.startswith(("list[", "dict[")) and "|" not in kind.split("[", 1)[0] and not kind.endswith("None"):
        test = f"not isinstance({name}, {kind[:4]})"
    else:
        return []
    return [f"    if {test}:", f'        raise ValueError("{name} must be of type {kind}")']


def _again(tool: str, name: str, program: Program) -> str:
    call = next(part for part in walk(program.body) if isinstance(part, Call | CallEach) and part.tool == tool)
    given = ", ".join(key for key, _ in call.args)
    passed = ", ".join(f"{key}={key}" for key, _ in call.args)
    typed = ", ".join(f"{key}: object" for key, _ in call.args) if given else ""
    return "\n".join(
        [
            f"def {name}({typed}) -> object:",
            f'    """Use {tool}, again where it fails: in some examples it did once."""',
            "    for _ in range(2):",
            "        try:",
            f"            return {tool}({passed})",
            "        except ToolError:",
            "            continue",
            f"    return {tool}({passed})",
        ]
    )


def _imported(lines: set[str]) -> list[str]:
    """Return import lines in order, names of one module together."""
    whole = sorted(line for line in lines if line.startswith("import "))
    named: dict[str, set[str]] = {}
    for line in lines:
        if line.startswith("from "):
            module, _, names = line[5:].partition(" import ")
            named.setdefault(module, set()).update(name.strip() for name in names.split(","))
    return whole + [
        f"from {module} import {', '.join(sorted(names, key=_isorted))}" for module, names in sorted(named.items())
    ]


def _isorted(name: str) -> tuple[bool, str]:
    return (name[:1].islower(), name)


__all__ = ["unwritable", "written"]
