"""What a backend is: something that takes one query and gives one reply, or says that a reply has to be waited for.

    class Shouting:
        name = "shouting"

        def ask(self, query: Query) -> Reply | Suspend:
            return Reply(query.prompt.upper(), model="shouting")

A backend knows nothing of the log, of budgets or of types: the conversation around it (`converse`) records, counts,
checks and repairs. A backend raises LlmError where it cannot answer, and nothing else that is meant for a user.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

JsonSchema = dict[str, Any]


def prompt_sha256(prompt: str, system: str | None = None, schema: Mapping[str, Any] | None = None) -> str:
    """Return the hash by which a prompt is known: of what is said to the model and the form asked of it.

    Model, temperature and the like are no part of it: another model answers the same prompt.
    """
    said = json.dumps([system, prompt, schema], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Query:
    """One question to a model.

    `options` are those of the call: model, temperature, max_tokens, seed, stop, top_p, timeout. `step` is the path of
    the step that asks, and `attempt` counts the repairs of one answer from 0. `occurrence` says how often this very
    prompt was answered before in this run, and `call` how many answers of any kind the run had: with them a backend
    that keeps replies in order finds the right one in any process.
    """

    prompt: str
    system: str | None = None
    schema: JsonSchema | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    step: str = ""
    attempt: int = 0
    occurrence: int = 0
    call: int = 0
    sha256: str = ""

    def __post_init__(self) -> None:
        """Fill in the hash where the caller gave none."""
        if not self.sha256:
            object.__setattr__(self, "sha256", prompt_sha256(self.prompt, self.system, self.schema))


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. None is unknown, never nothing: an endpoint may not tell its tokens or its price."""

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd_micros: int | None = None
    model: str = ""
    latency_ns: int = 0
    retries: int = 0  # calls that failed before this one came through
    finish: str | None = None  # why the model stopped, in the endpoint's word: "stop", "length"


@dataclass(frozen=True, slots=True)
class Suspend:
    """No reply yet: the loop stops here until somebody answers."""

    reason: str


@runtime_checkable
class Backend(Protocol):
    """Answers queries. `name` stands in the log."""

    name: str

    def ask(self, query: Query) -> Reply | Suspend:
        """Return a reply, or Suspend where one has to be waited for. Raises LlmError."""
        ...
