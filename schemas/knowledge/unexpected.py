"""An unexpected token in plain words: what it is, where it stands, what could stand there, what was likely meant."""

from .diagnostics import Diagnostic, did_you_mean, nearest
from .keywords import ITEMS, KEYWORDS, SECTIONS, STATEMENTS
from .lalr import Unexpected
from .tokens import END, SOFT, Tokens, unit_hint

_WORDS = {
    "NAME": "a name",
    "STRING": "a string",
    "INT": "a whole number",
    "QUANTITY": "a duration such as `5m`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "COMMA": "`,`",
    "SEMI": "`;`",
    "COLON": "`:`",
    "DOT": "`.`",
    "EQUALS": "`=`",
    "ARROW": "`->`",
    "BAR": "`|`",
    "QUESTION": "`?`",
    "EMIT_TO": "`-> emit`",
    "EMIT_ANY": "`-> emit`",
    "SUCCESS": "`success:`",
    "RETURN_NOTHING": "`return`",
    "PER_COMMA": "`,`",
    END: "the end of the file",
}

_EXPRESSION = frozenset({"NAME", "STRING", "INT", "FLOAT", "TRUE", "FALSE", "NULL", "LPAR", "LSQB", "LBRACE"})
_EXPRESSION_STARTS = _EXPRESSION | {"QUANTITY", "RANGE", "MINUS", "NOT"}
_OPERATORS = frozenset({"AND", "OR", "COMPARE", "IN", "NOT_IN", "PLUS", "MINUS", "MULTIPLY"})
_AFTER_OPERAND = frozenset({"LPAR", "LSQB", "DOT", "OVER", "PER", "LOG"})
_SEPARATORS = frozenset({"COMMA", "SEMI"})
_TYPE_STARTS = frozenset({"NAME", "STRING", "LSQB", "INT", "FLOAT", "QUANTITY", "TRUE", "FALSE", "NULL", "MINUS"})

# What the innermost list of items consists of.
_ITEMS = {
    "declarations": "a declaration",
    "sections": "a section",
    "fields": "a field name",
    "statements": "a statement",
}

# Blocks by the keyword that opens them, to say where something stands.
_BLOCKS = {
    word.upper(): word for word in (*SECTIONS, *ITEMS, "system", "task", "system_model", "domain", "if", "else", "for")
}

_LIKELY = {
    "import": "use",
    "link": "use",
    "include": "use",
    "def": "function",
    "fn": "function",
    "func": "function",
    "agent": "agent_loop",
    "service": "service_loop",
    "engineering": "engineering_loop",
    "schema": "trace_schema",
    "facts": "knowledge",
    "rules": "knowledge",
    "loop": "for",
    "while": "for",
    "elif": "else if",
    "elseif": "else if",
    "param": "parameter",
    "struct": "type",
    "enum": "variant",
    "let": "const",
    "var": "state",
    "handler": "on",
    "test": "check",
}


def explain(error: Unexpected, tokens: Tokens, *, in_string: bool = False) -> Diagnostic:
    """Say what was unexpected so that it can be mended."""
    text = tokens.text
    spelled = text[error.start : error.end]
    if error.lacks_colon:
        shown = _short(spelled)
        return Diagnostic(
            "missing-colon",
            "error",
            tokens.lines.span(error.start, error.end),
            f"`{shown}` has no `:` after it",
            (),
            f"write `{shown}: ...`",
        )
    if error.kind == END:
        what = "the expression ends too early" if in_string else "the file ends too early"
    elif error.kind == "STRING":
        what = "unexpected string"
    elif error.kind in {"INT", "FLOAT", "QUANTITY"}:
        what = f"unexpected number `{_short(spelled)}`"
    elif error.kind == "KEY":
        what = f"unexpected key `{_short(spelled)}`"
    elif error.start == error.end:
        what = "something is missing here"
    else:
        what = f"unexpected `{_short(spelled)}`"
    where = _where(error.inside)
    message = f"{what} in {where}" if where and error.kind != END else what
    code = "unknown-keyword" if error.meant else "unexpected-token"
    hint = f"did you mean `{error.meant}`?" if error.meant else _hint(error, spelled, in_string=in_string)
    return Diagnostic(
        code, "error", tokens.lines.span(error.start, error.end), message, _expected(error, in_string=in_string), hint
    )


def _short(spelled: str) -> str:
    line = spelled.split("\n", 1)[0]
    return line if len(line) <= 40 and line == spelled else f"{line[:40]}…"


def _where(inside: tuple[str, ...]) -> str | None:
    """Name the innermost block that is open."""
    closed = 0
    for symbol in reversed(inside):
        closed += (symbol == "RBRACE") - (symbol == "LBRACE")
        if symbol in _BLOCKS and closed < 0:
            word = _BLOCKS[symbol]
            return f"{'an' if word[0] in 'aeiou' else 'a'} `{word}`"
    return None


def _items(inside: tuple[str, ...]) -> str | None:
    return next((symbol for symbol in reversed(inside) if symbol.endswith("s") and symbol.islower()), None)


def _expected(error: Unexpected, *, in_string: bool) -> tuple[str, ...]:
    """Name what could stand at the place, alike things by one name, what closes the place last."""
    kinds = set(error.expected)
    words: list[str] = []
    innermost = _items(error.inside)
    inside = error.inside
    if kinds >= _EXPRESSION:
        words.append("an expression")
        kinds -= _EXPRESSION_STARTS
    elif kinds >= _TYPE_STARTS:
        words.append('a type such as `float`, `[int]` or `"a" | "b"`')
        kinds -= _TYPE_STARTS
    if kinds >= {"AND", "PLUS"} or kinds >= {"OR", "RPAR"} or "COMPARE" in kinds:
        words.append("an operator")
        kinds -= _OPERATORS | _AFTER_OPERAND
    elif "OR" in kinds or "AND" in kinds:
        words.append("an operator")
        kinds -= _OPERATORS
    if "KEY" in kinds:
        kinds.discard("KEY")
        named = _ITEMS.get(innermost or "") == "a field name" or (inside and inside[-1] in {"LPAR", "parameters"})
        words.append(
            "a field name" if named else f"`{inside[-1].lower()} name: ...`" if _wants_key(inside) else "a key and `:`"
        )
    if innermost == "statements" and {"IF", "FOR"} <= kinds:
        words.append("a statement")
        kinds -= {"NAME", "EMIT", "IF", "FOR", "RETURN", "RETURN_NOTHING"}
    keywords = sorted(kind.lower() for kind in kinds if kind in SOFT and kind not in {"SUCCESS", "NAME"})
    if len(keywords) > 9:
        words.append("a section such as `model`, `knowledge` or `agent_loop`")
    else:
        words += [f"`{word}`" for word in keywords]
    kinds -= {word.upper() for word in keywords}
    if "SUCCESS" in kinds:
        words.append("`success:`")
    closing = [kind for kind in ("RBRACE", "RPAR", "RSQB") if kind in kinds]
    rest = sorted(
        kinds - {"SUCCESS", *closing, *(_SEPARATORS if words and "RSQB" not in kinds and "RPAR" not in kinds else ())}
    )
    for kind in (*rest, *closing):
        word = "`}}`" if kind == END and in_string else _WORDS.get(kind, f"`{kind.lower()}`")
        if word not in words:
            words.append(word)
    return tuple(words)


def _wants_key(inside: tuple[str, ...]) -> bool:
    return bool(inside) and inside[-1] in {"STEP", "CHECK", "PARAMETER", "STATE"}


def _hint(error: Unexpected, spelled: str, *, in_string: bool) -> str | None:
    """Guess what was meant."""
    if spelled == "=" and error.expected & {"AND", "COMPARE"}:
        return "to compare, write `==`"
    if error.kind == "COMPARE" and "AND" in error.expected:
        return "comparisons do not chain: join two with `and`"
    if error.kind in {"NAME", "KEY"} and spelled in _LIKELY:
        return f"did you mean `{_LIKELY[spelled]}`?"
    if error.inside[-2:-1] == ("STEP",) and error.kind == "NAME":
        return "a step of one action is written `step NAME: tool.run { ... }`"
    if error.kind == "NAME":
        words = [kind.lower() for kind in error.expected if kind in SOFT and kind != "SUCCESS"]
        if found := did_you_mean(spelled, words):
            return found
        if error.before[:1].isdigit():
            return unit_hint(spelled) or f"`{spelled}` is no known unit"
        if error.before.isidentifier() and error.before not in KEYWORDS and (near := nearest(error.before, STATEMENTS)):
            return f"did you mean `{near}` where `{error.before}` stands?"
    if in_string:
        return r"text that only looks like `{{ }}` is written `\{\{ }}`"
    return None
