"""What goes wrong with knowledge.

    MorphogenError
    ├── KnowledgeError     a module does not parse, or says something that cannot be meant
    └── EvaluateError      an expression or a template meets what a checked module cannot hold

Both say what, where and what to do, in one line; a KnowledgeError also renders every finding with its source line.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.errors import MorphogenError

if TYPE_CHECKING:
    from .diagnostics import Diagnostic


class KnowledgeError(MorphogenError):
    """A module that cannot be used, with every diagnostic that says why.

    The text is the first error on one line, `file:line:col: error[code]: message`; `render()` shows all of them with
    their source lines.
    """

    def __init__(self, diagnostics: "tuple[Diagnostic, ...]", text: str = "", path: str = "<text>") -> None:
        self.diagnostics = diagnostics
        self.text = text
        self.path = path
        errors = [one for one in diagnostics if one.severity == "error"] or list(diagnostics)
        super().__init__(_line(errors, path))

    def render(self) -> str:
        """Return every diagnostic with its source line and a caret under it."""
        from .diagnostics import render

        return "\n".join(render(one, self.text, self.path) for one in self.diagnostics)

    @classmethod
    def plain(cls, message: str, *, path: str = "<text>") -> "KnowledgeError":
        """Make an error of one message that stands at no place of the source."""
        made = cls((), path=path)
        made.args = (message,)
        return made


class EvaluateError(MorphogenError):
    """A name that nobody gave, a template that names nothing, or a function that never ends."""


def _line(errors: "list[Diagnostic]", path: str) -> str:
    if not errors:
        return f"{path}: not a module that can be used"
    first = errors[0]
    more = f" (and {len(errors) - 1} more; `morphogen know check` shows all)" if len(errors) > 1 else ""
    return f"{path}:{first.span.line}:{first.span.column}: {first.severity}[{first.code}]: {first.message}{more}"
