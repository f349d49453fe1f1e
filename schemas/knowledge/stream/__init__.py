"""Facts as streaming predicates: batches of items in, what is true and what changed out, by arrays and not by items.

It knows nothing of logs, tables or files; whoever has columns of items in log order can feed them. The meaning of every
operator is that of `schemas.knowledge.evaluate`, which tests hold it to.
"""

from .columns import Flag, Integer, Lists, Number, Text, Values, flags, integers, joined, lists, numbers, texts
from .engine import Change, Engine, Items, RunState, State, Verdicts
from .lower import NotExecutable, combined, condition, lower, lower_expression
from .plan import Column, Condition, Const, Frame, Kind, Node, Op, Over, readings, text, walk

__all__ = [
    "Change",
    "Column",
    "Condition",
    "Const",
    "Engine",
    "Flag",
    "Frame",
    "Integer",
    "Items",
    "Kind",
    "Lists",
    "Node",
    "NotExecutable",
    "Number",
    "Op",
    "Over",
    "RunState",
    "State",
    "Text",
    "Values",
    "Verdicts",
    "combined",
    "condition",
    "flags",
    "integers",
    "joined",
    "lists",
    "lower",
    "lower_expression",
    "numbers",
    "readings",
    "text",
    "texts",
    "walk",
]
