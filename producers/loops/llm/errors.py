"""What goes wrong between a loop and a model.

MorphogenError
└── LlmError
    ├── BackendError       a backend is unknown, misconfigured, unreachable, or refuses
    │   └── NoReply        a script or a recorded run holds no reply for a prompt
    ├── PromptError        an `llm.query` asks for what cannot be asked
    ├── AnswerError        an answer does not fit the declared type, all repairs used up
    └── BudgetExceeded     a call would, or did, go over a budget
"""

from morphogen.schemas import MorphogenError


class LlmError(MorphogenError):
    """Root of what goes wrong between a loop and a model."""


class BackendError(LlmError):
    """A backend is unknown, misconfigured, unreachable, or refuses.

    `called` says that a call was made, which belongs into the log; `may_cost` that it may have been paid for all the
    same, as when the connection broke while the reply was on its way.
    """

    def __init__(self, message: str, *, called: bool = True, may_cost: bool = False) -> None:
        super().__init__(message)
        self.called = called
        self.may_cost = may_cost


class NoReply(BackendError):
    """A script or a recorded run holds no reply for a prompt."""

    def __init__(self, message: str, sha256: str) -> None:
        super().__init__(message, called=False)
        self.sha256 = sha256


class PromptError(LlmError):
    """An `llm.query` asks for what cannot be asked."""


class AnswerError(LlmError):
    """An answer does not fit the declared type, and every repair is used up."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


class BudgetExceeded(LlmError):
    """A call would go over a budget, or went over it; nothing more is spent."""

    def __init__(self, message: str, resource: str) -> None:
        super().__init__(message)
        self.resource = resource
