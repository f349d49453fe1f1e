"""Text to the typed tree. Never raises for a text, never hangs: what is wrong comes back as diagnostics, what is right as a tree.

The stages: front matter (`front_matter.py`), tokens (`tokens.py`), brackets made to match (`brackets.py`), the grammar
(`grammar.lark`, run by `lalr.py`), the tree (`build.py`), what was unexpected in plain words (`unexpected.py`).
"""

import dataclasses
from dataclasses import dataclass
from functools import cache

from . import lalr
from .brackets import balance
from .build import TreeBuilder
from .diagnostics import Diagnostic
from .errors import KnowledgeError
from .front_matter import front_matter
from .lines import Lines
from .strings import Hole
from .tokens import Tokens, tokenize
from .tree import Expr, Module, Span
from .unexpected import explain


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment as written, marks included."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a text says: the tree of all that could be read, what was wrong, and the comments."""

    module: Module
    diagnostics: tuple[Diagnostic, ...] = ()
    comments: tuple[Comment, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the whole text could be read."""
        return not any(one.severity == "error" for one in self.diagnostics)


def parse(text: str, path: str = "<text>") -> Parsed:
    """Read a knowledge module of either generation; `path` is for messages.

    Raises KnowledgeError where Lark is not installed, and nothing else.
    """
    try:
        tables = _tables()
    except ImportError:
        told = "reading knowledge needs Lark: pip install 'morphogen[knowledge]'"
        raise KnowledgeError.plain(told, path=path) from None
    lines = Lines(text)
    front = front_matter(text, lines)
    tokens = tokenize(text, lines, front.end)
    problems = [*front.diagnostics, *tokens.diagnostics]
    cut = tokens.echoes
    if not tokens.balanced:
        found, cut = balance(tokens)
        problems += found
    builder = _Builder(tokens)
    module, errors = lalr.run(tokens, tables, builder)
    problems += builder.diagnostics
    problems += [explain(error, tokens) for error in errors if error.start < cut]
    return Parsed(
        dataclasses.replace(module, metadata=front.metadata),
        tuple(sorted(problems, key=lambda one: (one.span.start, one.severity != "error"))),
        tuple(Comment(text[start:end], lines.span(start, end)) for start, end in tokens.comments),
    )


class _Builder(TreeBuilder):
    """Reads expressions in strings with the same grammar."""

    def hole_expression(self, hole: Hole) -> Expr | None:
        tokens: Tokens = self.hole_tokens(hole)
        found = list(tokens.diagnostics)
        cut = tokens.echoes
        if not tokens.balanced:
            problems, cut = balance(tokens)
            found += problems
        inner = _Builder(tokens)
        made: Expr | None
        made, errors = lalr.run(tokens, _tables(), inner, "expression", recover=False)
        found += inner.diagnostics
        found += [explain(error, tokens, in_string=True) for error in errors if error.start < cut]
        self.diagnostics += found
        return made


@cache
def _tables() -> lalr.Tables:
    return lalr.tables(_builder_of)


def _builder_of(alternative: lalr.Alternative) -> lalr.Builder | None:
    if alternative.transparent:
        return None
    name = alternative.builder
    if name.startswith("_"):
        name = "none"  # marks that mean nothing
    made: lalr.Builder = getattr(TreeBuilder, f"{name}_" if name in _PYTHONS else name)
    return made


_PYTHONS = frozenset({"if", "for", "list", "map", "range"})  # names that a builder cannot have as they are
