"""A query as the chat messages that models take."""

from typing import Any

from .backend import Query


def messages_of(query: Query) -> list[dict[str, Any]]:
    """Return the system text, where there is one, and the prompt as the user's."""
    system = [] if query.system is None else [{"role": "system", "content": query.system}]
    return [*system, {"role": "user", "content": query.prompt}]
