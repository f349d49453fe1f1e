"""Replies from a file, for tests and for programs that are to run the same way every time.

A TOML file (or JSON of the same shape) holds a list of `reply` entries:

    [[reply]]
    pattern = "Which tile"        # a regular expression that is found in the prompt
    text = "64 by 64"

    [[reply]]
    sha256 = "9f2c..."            # the prompt's hash, or enough of its beginning to be the only one
    json = { score = 0.5, verdict = "good" }

An entry answers a prompt when all it names fits: `sha256`, `prompt` (the exact text), `pattern`, `step`, `attempt` (0 is the first
answer, 1 its first repair), `call` (the number of the query in its run, from 1). Of the entries that fit, a prompt takes
the first when it is asked first, the next when it is asked again, and so on; `times = N` or `always = true` makes an
entry serve longer. Which entry answers depends on the query alone, so a resumed run gets the same replies.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from .backend import Query, Reply
from .budget import Price
from .errors import BackendError, NoReply

_MIN_HASH = 8  # hex digits of a hash that may stand for the whole


class ScriptOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `script`."""

    file: str
    model: str = "script"


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """One reply and what it answers. Tokens are those it claims to have taken, for tests of budgets."""

    text: str | None = None
    json: dict[str, Any] | None = None
    sha256: str | None = None
    prompt: str | None = None
    pattern: str | None = None
    step: str | None = None
    attempt: int | None = None
    call: int | None = None
    times: int = 1
    always: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd_micros: int = 0

    @cached_property
    def found(self) -> "re.Pattern[str] | None":
        """The pattern, compiled."""
        return None if self.pattern is None else re.compile(self.pattern)

    def fits(self, query: Query) -> bool:
        """Tell whether this entry answers the query."""
        return (
            (self.sha256 is None or query.sha256.startswith(self.sha256.lower()))
            and (self.prompt is None or self.prompt.strip() == query.prompt.strip())
            and (self.found is None or self.found.search(query.prompt) is not None)
            and (self.step is None or self.step == query.step)
            and (self.attempt is None or self.attempt == query.attempt)
            and (self.call is None or self.call == query.call + 1)
        )

    def reply(self, model: str) -> Reply:
        """Return what it says."""
        text = self.text if self.text is not None else json.dumps(self.json, ensure_ascii=False)
        return Reply(text, self.tokens_in, self.tokens_out, self.cost_usd_micros, model, finish="stop")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reply: list[Entry] = msgspec.field(default_factory=list)


class ScriptBackend:
    """Answers from a file."""

    name = "script"

    def __init__(self, options: ScriptOptions) -> None:
        self._path = Path(options.file)
        self._model = options.model
        self._entries = read_script(self._path)

    def price(self, query: Query) -> Price:
        """Return that a script costs nothing."""
        return Price(0, 0)

    def ask(self, query: Query) -> Reply:
        """Return the entry's reply. Raises NoReply with the hash to add."""
        fitting = [entry for entry in self._entries if entry.fits(query)]
        chosen = next(_served(fitting, query.occurrence), None)
        if chosen is not None:
            return chosen.reply(self._model)
        used = f"its {len(fitting)} fitting replies are used up" if fitting else "no reply fits"
        raise NoReply(
            f"{self._path}: {used} for step {query.step or '?'} (asked {query.occurrence} times before, repair {query.attempt}); "
            f'add [[reply]] with sha256 = "{query.sha256}" for the prompt {_head(query.prompt)}',
            query.sha256,
        )


def read_script(path: Path) -> list[Entry]:
    """Return the entries of a TOML or JSON file in order. Raises BackendError that names file and entry."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BackendError(f"cannot read the replies in {path}: {_line(error)}", called=False) from error
    try:
        content = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
        entries = msgspec.convert(content, _File).reply
    except (ValueError, msgspec.ValidationError, RecursionError) as error:
        raise BackendError(f"{path} is no script of replies: {_line(error)}", called=False) from error
    for number, entry in enumerate(entries, start=1):
        trouble = _trouble(entry)
        if trouble is not None:
            raise BackendError(f"{path}: reply {number}: {trouble}", called=False)
    return entries


def _trouble(entry: Entry) -> str | None:
    if (entry.text is None) == (entry.json is None):
        return "give one of text and json"
    for name in ("tokens_in", "tokens_out", "cost_usd_micros"):
        if not 0 <= getattr(entry, name) < 2**53:
            return f"{name} is a whole number from 0"
    if entry.times < 1:
        return "times is a number from 1"
    if entry.sha256 is not None and not re.fullmatch(rf"[0-9a-fA-F]{{{_MIN_HASH},64}}", entry.sha256):
        return f"sha256 is {_MIN_HASH} to 64 hex digits"
    try:
        _ = entry.found
    except re.error as error:
        return f"pattern is no regular expression: {error}"
    return None


def _served(entries: list[Entry], skip: int) -> Iterator[Entry]:
    """Yield the entry that serves the query asked `skip` times before, if there is one."""
    for entry in entries:
        if entry.always or skip < entry.times:
            yield entry
            return
        skip -= entry.times


def _head(prompt: str) -> str:
    line = " ".join(prompt.split())
    return json.dumps(line if len(line) <= 80 else f"{line[:77]}...", ensure_ascii=False)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
