"""The sandbox: runs generated Python where it can compute, ask for what it was given, and do nothing else.

Linux only. Knows text, values, limits and capabilities; knows nothing of logs, tools' origins or policies. The boundary is
the kernel's (namespaces, Landlock, seccomp, limits); the grammar is a lint before it.
"""

from .capabilities import Capabilities, Declared
from .errors import (
    BadCapability,
    BadJob,
    LayerMissing,
    Refused,
    SandboxBroken,
    SandboxError,
    UnsafeTool,
    Unsupported,
)
from .grammar import CheckedTool, check
from .layers import ALL, REQUIRED, WITHOUT_NAMESPACES
from .limits import Limits
from .outcome import Effect, Outcome, ToolFailure, Value
from .sandbox import Sandbox
from .signatures import signature_of
from .values import canonical, value_sha256
from .workspace import Workspace

__all__ = [
    "ALL",
    "REQUIRED",
    "WITHOUT_NAMESPACES",
    "BadCapability",
    "BadJob",
    "Capabilities",
    "CheckedTool",
    "Declared",
    "Effect",
    "LayerMissing",
    "Limits",
    "Outcome",
    "Refused",
    "Sandbox",
    "SandboxBroken",
    "SandboxError",
    "ToolFailure",
    "UnsafeTool",
    "Unsupported",
    "Value",
    "Workspace",
    "canonical",
    "check",
    "signature_of",
    "value_sha256",
]
