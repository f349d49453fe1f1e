"""The knowledge language: facts, rules and loops, written once and checked like code.

Text becomes a typed tree (`parse`), the tree a checked program (`program`). Pure but for reading the named files:
nothing here runs a loop, touches the log or asks a model. Reading a text needs Lark (`morphogen[knowledge]`).
"""

from .aggregates import Item
from .errors import EvaluateError, KnowledgeError
from .evaluate import Scope, evaluate, evaluate_fact, expand, holds
from .program import CaseInfo, FactInfo, HintInfo, Program, RuleInfo, load, load_text
from .tools import TOOLS, ParameterSpec, Signature

__all__ = [
    "TOOLS",
    "CaseInfo",
    "EvaluateError",
    "FactInfo",
    "HintInfo",
    "Item",
    "KnowledgeError",
    "ParameterSpec",
    "Program",
    "RuleInfo",
    "Scope",
    "Signature",
    "evaluate",
    "evaluate_fact",
    "expand",
    "holds",
    "load",
    "load_text",
]
