"""From a file, or a text, to a checked program, with everything that it uses."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .check.examine import Examined, examine
from .diagnostics import Diagnostic, did_you_mean
from .errors import KnowledgeError
from .lookup import program_of
from .parse import parse
from .program import Program
from .tools import Signature
from .tree import Module, Use

LIBRARY = Path(__file__).parent / "library"
_LARGEST = 16 * 1024 * 1024  # bytes of a module; a text beyond is data, not knowledge
_STANDARD = "std."
_DEEPEST = 100  # modules that use each other in a line
_TOO_DEEP = f"modules use each other more than {_DEEPEST} deep"


@dataclass(frozen=True, slots=True)
class Read:
    """A text that a `use` line named: where it is and what it says."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a text finds what it names: tools by their signatures, and the texts of used modules by target.

    A `sealed` text comes from the log: it finds used modules in `given` and the library alone, never in a file, and what
    cannot change its meaning (conditions that never hold, rules that contradict each other, ...) is not looked for.
    """

    tools: Mapping[str, Signature]
    given: Mapping[str, str] = field(default_factory=dict)
    sealed: bool = False


@dataclass(slots=True)
class Uses:
    """Resolves `use` lines, each module once, circles and missing files as diagnostics."""

    sources: Sources
    chain: tuple[str, ...] = ()
    known: "dict[str, Program | KnowledgeError]" = field(default_factory=dict)  # by file: what was read once
    modules: dict[str, Module] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def resolve(self, uses: Iterable[Use], path: str) -> None:
        """Load every used module into `modules` and `texts`, those that they use first."""
        for use in uses:
            if any(one.target == use.target for one in uses if one is not use and one.span.start < use.span.start):
                self._say("K107", use, f"`{use.target}` is used twice")
                continue
            self._resolve(use, path)

    def _resolve(self, use: Use, path: str) -> None:
        try:
            read = find_used(use.target, path, self.sources)
        except KnowledgeError as error:
            self._say("K109", use, str(error), hint=_library_hint(use.target))
            return
        key = use.target if self.sources.sealed else _same(read.path)
        if key in self.chain:
            names = [Path(one).name for one in (*self.chain[self.chain.index(key) :], key)]
            self._say("K110", use, f"modules use each other in a circle: {' -> '.join(names)}")
            return
        if len(self.chain) >= _DEEPEST:
            self._say("K109", use, f"{_TOO_DEEP}: name some of them in one module")
            return
        program = self._read(read, key)
        if isinstance(program, KnowledgeError):
            whole = next((one for one in program.diagnostics if one.code == "K110" or _TOO_DEEP in one.message), None)
            self._say(
                whole.code if whole else "K109",
                use,
                whole.message if whole else f"`{use.target}` cannot be used: {program}",
            )
            return
        found = {target: (module, program.used[target]) for target, module in program.used_modules.items()}
        found[use.target] = (program.module, read.text)
        for target, (module, text) in found.items():
            if self.texts.setdefault(target, text) != text:
                self._say(
                    "K109", use, f"`{target}` names two modules here, in two folders: give one of them another name"
                )
                return
            self.modules.setdefault(target, module)

    def _read(self, read: Read, key: str) -> "Program | KnowledgeError":
        """Return a module's program, or what is wrong with it; one that many use is read once."""
        if key not in self.known:
            try:
                self.known[key] = source_of(read.text, read.path, self.sources, (*self.chain, key), self.known)
            except KnowledgeError as error:
                self.known[key] = error
        return self.known[key]

    def _say(self, code: str, use: Use, message: str, hint: str | None = None) -> None:
        self.diagnostics.append(Diagnostic(code, "error", use.span, message, hint=hint))


def load_file(path: Path, tools: Mapping[str, Signature]) -> Program:
    """Read, parse and check a file, or a module of the library by its name (`std.training`) where there is no such file."""
    sources = Sources(tools)
    if str(path) in library() and not path.exists():
        return load_source(find_used(str(path), str(path), sources).text, str(path), sources)
    return load_source(read_text(path), str(path), sources)


def load_source(text: str, path: str, sources: Sources) -> Program:
    """Parse and check a text."""
    return source_of(text, path, sources, _chain(path, sources))


def source_of(
    text: str,
    path: str,
    sources: Sources,
    chain: tuple[str, ...],
    known: "dict[str, Program | KnowledgeError] | None" = None,
) -> Program:
    """Parse and check a text that is used by the modules of a chain; raise KnowledgeError with all that is wrong."""
    examined, uses, diagnostics = examined_source(text, path, sources, chain, known)
    if any(one.severity == "error" for one in diagnostics):
        raise KnowledgeError(diagnostics, text, path)
    return program_of(examined, text, path, hash_of(text, uses.texts), diagnostics, uses.texts, uses.modules)


def examined_source(
    text: str,
    path: str,
    sources: Sources,
    chain: tuple[str, ...] | None = None,
    known: "dict[str, Program | KnowledgeError] | None" = None,
) -> tuple[Examined, Uses, tuple[Diagnostic, ...]]:
    """Parse and check a text whatever is wrong with it, and return all findings in the order of the source.

    What a half-read module lacks is not held against it: with syntax errors, names are not looked for.
    """
    parsed = parse(text, path)
    uses = Uses(sources, chain or _chain(path, sources), {} if known is None else known)
    uses.resolve(parsed.module.uses, path)
    examined = examine(parsed.module, sources.tools, uses.modules.values(), thorough=not sources.sealed)
    broken = any(one.severity == "error" for one in (*parsed.diagnostics, *uses.diagnostics))
    unread = [one.span for one in parsed.diagnostics]
    found = [
        one
        for one in examined.diagnostics
        if not (broken and one.code in _NEEDS_ALL)
        and not any(span.start <= one.span.start <= span.end for span in unread)
    ]
    first = {*parsed.diagnostics, *uses.diagnostics}
    every = sorted({*first, *found}, key=lambda one: (one.span.start, one not in first, one.code, one.message))
    return examined, uses, tuple(every)


# Findings that a missing part of the module, or a module that could not be read, would bring about by itself.
_NEEDS_ALL = frozenset(
    {"K101", "K103", "K104", "K105", "K106", "K112", "K113", "K115", "K311", "K315", "K401", "K403", "K406", "K409", "K411",
     "K501", "K503", "K504", "K506", "K510", "K511", "K102"}
)  # fmt: skip


def read_text(path: Path) -> str:
    """Return the text of a module file; KnowledgeError in one line where there is none to be had."""
    try:
        if path.is_dir():
            raise KnowledgeError.plain(f"{path} is a folder; name a module file in it", path=str(path))
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise KnowledgeError.plain(f"there is no file {path}", path=str(path)) from None
    except OSError as error:
        raise KnowledgeError.plain(f"cannot read {path}: {error.strerror or error}", path=str(path)) from None
    except ValueError as error:
        raise KnowledgeError.plain(f"{str(path)!r} is no file name: {error}", path=str(path)) from None
    return text_of_bytes(data, str(path))


def text_of_bytes(data: bytes, path: str) -> str:
    """Return bytes as the text of a module; KnowledgeError where they are none."""
    if len(data) > _LARGEST:
        raise KnowledgeError.plain(f"{path} is larger than {_LARGEST >> 20} MiB; that is no module", path=path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise KnowledgeError.plain(
            f"{path} is not UTF-8 text (byte {error.start}); is it a module?", path=path
        ) from None
    if "\0" in text:
        raise KnowledgeError.plain(f"{path} holds null bytes; is it a module?", path=path)
    return text.replace("\r\n", "\n")


def find_used(target: str, path: str, sources: Sources) -> Read:
    """Return what a `use` names: a given text, a module of the library, or a file beside the one that uses it."""
    if target in sources.given:
        return Read(target, sources.given[target])
    if target.startswith(_STANDARD):
        name = target.removeprefix(_STANDARD)
        file = LIBRARY / f"{name}.mk"
        if not name.isidentifier() or not file.is_file():
            raise KnowledgeError.plain(f"there is no standard module `{target}`", path=path)
        return Read(str(file), read_text(file))
    if sources.sealed:
        raise KnowledgeError.plain(
            f"the log does not hold the text of `{target}`: load the module again where that file is", path=path
        )
    beside = Path(path).parent if not path.startswith("<") else Path()
    file = beside / target
    if file.exists() and not file.is_file() and not file.is_dir():  # a pipe would be waited for, for ever
        raise KnowledgeError.plain(f"{file} is no file", path=path)
    return Read(str(file), read_text(file))


def library() -> list[str]:
    """Return the names of the modules that ship with Morphogen, as `use` wants them."""
    return sorted(f"{_STANDARD}{file.stem}" for file in LIBRARY.glob("*.mk"))


def _library_hint(target: str) -> str | None:
    if not target.startswith(_STANDARD):
        return None
    known = library()
    return did_you_mean(target, known) or (f"there are {', '.join(known)}" if known else None)


def _chain(path: str, sources: Sources) -> tuple[str, ...]:
    """Return the beginning of a chain of modules; a text of the log is no file, whatever name it says it had."""
    return (f"<{path}>" if sources.sealed else _same(path),)


def _same(path: str) -> str:
    """Return one spelling for one file, so that circles close."""
    if path.startswith("<"):
        return path
    try:
        return str(Path(path).resolve())
    except (OSError, RuntimeError, ValueError):
        return path


def hash_of(text: str, used: Mapping[str, str]) -> str:
    """Return the SHA-256 of a module and all that it uses; the order of `use` lines does not count."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for target in sorted(used):
        for part in (target, used[target]):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(b"\0%d\0" % len(data) + data)
    return digest.hexdigest()
