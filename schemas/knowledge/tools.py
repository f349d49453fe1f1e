"""What tools and conditions take and give: the table that the checker reads and the loop runner implements.

A signature says how an action may be written in a module. It does nothing by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Effect = Literal["pure", "read", "write", "external"]


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One argument of an action.

    `type` is a kind, or several with bars between: string, int, float, boolean, list, map, any. A number with a `unit`
    may be written in any unit of the same dimension and arrives in this one; a bare number is already in it.
    `choices` are the only strings that mean something.
    """

    type: str = "any"
    required: bool = False
    default: object = None
    unit: str | None = None
    choices: tuple[str, ...] = ()
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Signature:
    """An action: its name as a module writes it, its parameters, what it returns and what it does to the world.

    pure: nothing; read: looks; write: changes files of the workspace, and doing it twice is doing it once;
    external: anything else, so a step killed in mid-effect is resolved by its `on_interrupt` policy. `open` takes any other
    argument too. `one_of` are groups of parameters of which exactly one must be given.
    """

    name: str
    parameters: Mapping[str, ParameterSpec] = field(default_factory=dict)
    returns: str = "any"
    effect: Effect = "external"
    open: bool = False
    one_of: tuple[tuple[str, ...], ...] = ()
    doc: str = ""

    def accepts(self) -> tuple[str, ...]:
        """Return the names of every argument that this action understands, those of every step included."""
        return (*self.parameters, *EVERY_ACTION)


# Arguments that any action takes. The runner handles them; a tool never sees them. `output_var` and `-> emit` are
# syntax, not arguments.
EVERY_ACTION: dict[str, ParameterSpec] = {
    "on_interrupt": ParameterSpec(
        "string", choices=("retry", "check", "ask"), doc="What a resume does with a step that was killed in mid-effect."
    ),
    "check": ParameterSpec("string|list", doc="Command whose exit code 0 says that the effect has happened."),
    "on_failure": ParameterSpec(
        "string", default="fail", choices=("fail", "continue"), doc="What a failure does to the loop."
    ),
    "retries": ParameterSpec("int", default=0, doc="Further attempts after a failure."),
}

_TIMEOUT = ParameterSpec("float", unit="s", doc="Seconds after which the action is stopped and has failed.")

TOOLS: dict[str, Signature] = {
    signature.name: signature
    for signature in (
        Signature(
            "tool.run",
            {
                "cmd": ParameterSpec("string|list", required=True, doc="Command line or argument vector."),
                "shell": ParameterSpec("boolean", default=False, doc="Hand the command to a shell."),
                "cwd": ParameterSpec("string", doc="Folder inside the workspace."),
                "env": ParameterSpec("map", doc="Environment variables to add."),
                "stdin": ParameterSpec("string", doc="Text for standard input."),
                "timeout": _TIMEOUT,
                "max_output": ParameterSpec("int", unit="B", doc="Bytes of output that are kept."),
            },
            returns="string",
            effect="external",
            doc="Run a program in the workspace; the result is its standard output without the last newline.",
        ),
        Signature(
            "tool.read",
            {
                "path": ParameterSpec("string", required=True, doc="File inside the workspace."),
                "max_bytes": ParameterSpec("int", unit="B", doc="Largest file that is read."),
            },
            returns="string",
            effect="read",
            doc="Read a text file of the workspace.",
        ),
        Signature(
            "tool.write",
            {
                "path": ParameterSpec("string", required=True, doc="File inside the workspace."),
                "content": ParameterSpec("any", required=True, doc="Text, or a list or map that is written as JSON."),
                "mode": ParameterSpec("string", default="overwrite", choices=("overwrite", "append")),
            },
            returns="string",
            effect="write",
            doc="Write a file of the workspace atomically; the result is its path.",
        ),
        Signature(
            "tool.sql",
            {
                "query": ParameterSpec("string", required=True, doc="One SELECT over the projected tables."),
                "max_rows": ParameterSpec("int", default=1000),
                "timeout": _TIMEOUT,
            },
            returns="list",
            effect="read",
            doc="Ask the tables of the log; the result is a list of rows, each a map.",
        ),
        Signature(
            "tool.http",
            {
                "url": ParameterSpec("string", required=True),
                "method": ParameterSpec(
                    "string", default="GET", choices=("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
                ),
                "headers": ParameterSpec("map"),
                "body": ParameterSpec("string"),
                "json": ParameterSpec("any"),
                "timeout": _TIMEOUT,
                "max_output": ParameterSpec("int", unit="B"),
            },
            returns="map",
            effect="external",
            doc="Send one request; the result is a map of status, headers and text.",
        ),
        Signature(
            "tool.engineering_loop",
            {
                "name": ParameterSpec("string", required=True, doc="An engineering loop of this program."),
                "parameters": ParameterSpec("map", doc="Spaces that replace those of the loop."),
                "budget": ParameterSpec("int", doc="Most configurations to measure."),
            },
            returns="map",
            effect="external",
            doc="Run an engineering loop; the result is a map of best, metric, measured and failed.",
        ),
        Signature(
            "tool.dsl_integrate",
            {
                "source": ParameterSpec(
                    "string", required=True, doc="Text of a knowledge module, or what a model wrote."
                ),
                "into": ParameterSpec("string", required=True, doc="Module file inside the workspace."),
            },
            returns="map",
            effect="write",
            doc="Check knowledge and merge it into a module file; nothing is written unless the result checks.",
        ),
        Signature(
            "llm.query",
            {
                "prompt": ParameterSpec("string", doc="What is asked."),
                "prompt_template": ParameterSpec("string", doc="The same, as the first generation spelled it."),
                "role": ParameterSpec("string", doc="Who the model is; becomes the system text."),
                "system": ParameterSpec("string", doc="System text."),
                "context": ParameterSpec("list|string|map", doc="What the model shall see before the question."),
                "returns": ParameterSpec("string", doc="Declared type or case that the answer must have."),
                "schema": ParameterSpec("map|string", doc="JSON schema that the answer must have."),
                "model": ParameterSpec("string"),
                "temperature": ParameterSpec("float"),
                "top_p": ParameterSpec("float"),
                "max_tokens": ParameterSpec("int"),
                "seed": ParameterSpec("int"),
                "stop": ParameterSpec("string|list"),
                "repairs": ParameterSpec("int", default=2, doc="Times a wrong answer is sent back."),
                "timeout": _TIMEOUT,
                "advice": ParameterSpec("boolean", default=True, doc="Add the advice of the module's text-only rules."),
            },
            returns="any",
            effect="external",
            one_of=(("prompt", "prompt_template"),),
            doc="Ask a model; the result is its text, or the checked value where a type was asked for.",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class ConditionSpec:
    """A function that only `success` and `evaluation` know: the kinds of its arguments, and its result."""

    name: str
    arguments: tuple[str, ...]
    returns: str
    doc: str


CONDITIONS: dict[str, ConditionSpec] = {
    condition.name: condition
    for condition in (
        ConditionSpec("file_exists", ("string",), "boolean", "The workspace has this file."),
        ConditionSpec("file_contains", ("string", "string"), "boolean", "The file holds the text."),
        ConditionSpec("metric", ("string",), "any", "What the evaluation's check of that name gave."),
        ConditionSpec("passed", ("string",), "boolean", "The evaluation's check of that name ran and did not fail."),
    )
}
