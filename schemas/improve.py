"""A program that was changed because of what its runs showed."""

from typing import Any

import msgspec

from .event import Event


class ProgramImproved(Event, type="loop.improved", version=1):
    """A change of a program was accepted, by a person (`human`) or by a policy (`policy: CONDITION`).

    `proposal` has one entry for each change (kind, title, why, evidence), `evidence` the figures of the back-test over
    the runs named. `text` is the program as it is now, None where it is larger than 128 KiB.
    """

    program: str
    before_sha256: str
    after_sha256: str
    proposal: list[dict[str, Any]]
    evidence: dict[str, Any]
    accepted_by: str
    loop: str | None = None
    runs: list[str] = msgspec.field(default_factory=list)
    drafted_by: str | None = None  # the backend, where a model drafted it
    diff: str = ""  # its head where it is longer than 128 KiB
    text: str | None = None
