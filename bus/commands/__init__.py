"""Commands: issue them, do them, and keep those that nobody could do."""

from .issue import command_event_id, command_message_id, send
from .worker import BACKOFF, Command, Handler, Worker, command_label, outcome_label, serve

__all__ = [
    "BACKOFF",
    "Command",
    "Handler",
    "Worker",
    "command_event_id",
    "command_label",
    "command_message_id",
    "outcome_label",
    "send",
    "serve",
]
