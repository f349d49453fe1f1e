"""The words of the language, once: the lexer, the editors' grammar and the messages all read this table.

Each is a keyword only where one can stand; anywhere else it is a name like any other.
"""

DECLARATIONS = ("use", "system_model", "task", "system", "domain")

SECTIONS = (
    "const",
    "design_space",
    "tuning_space",
    "model",
    "trace_schema",
    "knowledge",
    "view",
    "function",
    "procedure",
    "agent_loop",
    "service_loop",
    "engineering_loop",
    "build",
)

ITEMS = (
    "type",
    "matches",
    "state",
    "variant",
    "case",
    "from",
    "fact",
    "rule",
    "invariant",
    "hint",
    "parameter",
    "measure",
    "on",
    "artifact",
    "step",
    "evaluation",
    "check",
)

STATEMENTS = ("emit", "if", "else", "for", "return")

OPERATORS = ("and", "or", "not", "in", "over", "last", "per", "range", "log")

CONSTANTS = ("true", "false", "null")

KEYWORDS = (*DECLARATIONS, *SECTIONS, *ITEMS, *STATEMENTS, *OPERATORS, *CONSTANTS)

BASIC_TYPES = ("int", "float", "string", "boolean")

# Keys that have a meaning somewhere; a key that none of these is may still be given where a block takes free keys.
KNOWN_KEYS = (
    "axiom",
    "heuristic",
    "prediction",
    "success",
    "description",
    "confidence",
    "source",
    "when",
    "apply",
    "recommend",
    "reason",
    "effect",
    "optimize",
    "trigger",
    "suggestion",
    "assert",
    "constraint",
    "verification",
    "cmd",
    "metric",
    "objective",
    "prompt",
    "output_var",
    "generator",
    "input",
    "content",
    "sql",
)
