"""Asking a model: the backends, the conversation with one, structured answers, and budgets.

Knows nothing of steps and programs. A loop does three things:

    made = request(arguments, step=path, guidance=Guidance(axioms=...), declared=declared_types(module), ledger=ledger)
    outcome = converse(made, backend, record=write_event, budget=budget, past=queried_before, answers=answered_texts)
    match outcome:
        case Answered(value=value): ...   # the step's output
        case Waiting(reason=reason, query=query): ...   # suspend, with query.prompt, query.system and query.sha256

and folds `Ledger.after(event)` over the run's `llm.queried` events. An LlmError is a failed step.
"""

from .backend import Backend, Query, Reply, Suspend, prompt_sha256
from .budget import Budget, Ledger, budget_of, ledger_of, read_budget, tighter
from .converse import Answered, Waiting, converse
from .errors import AnswerError, BackendError, BudgetExceeded, LlmError, NoReply, PromptError
from .prompt import Guidance, Request, request
from .registry import backend, backend_names
from .structured import AnswerType, answer_type, declared_types, schema_of

__all__ = [
    "AnswerError",
    "AnswerType",
    "Answered",
    "Backend",
    "BackendError",
    "Budget",
    "BudgetExceeded",
    "Guidance",
    "Ledger",
    "LlmError",
    "NoReply",
    "PromptError",
    "Query",
    "Reply",
    "Request",
    "Suspend",
    "Waiting",
    "answer_type",
    "backend",
    "backend_names",
    "budget_of",
    "converse",
    "declared_types",
    "ledger_of",
    "prompt_sha256",
    "read_budget",
    "request",
    "schema_of",
    "tighter",
]
