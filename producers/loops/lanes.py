"""Where a run of a loop lies in the log: its subjects, its writer, the keys of its steps. Pure."""

import hashlib

from morphogen.schemas import encode, plain, token

FAMILY = "loop"
STEPS, ANSWERS, CHECKPOINTS = (
    "steps",
    "answers",
    "checkpoints",
)  # the last token of the subjects in the run's own family


def lane_subject(run: str, family: str = FAMILY, label: str = STEPS) -> str:
    """Return the subject of a lane of this run."""
    return f"morphogen.log.{token(run)}.{token(family)}.{label}"


def writer_of(run: str) -> str:
    """Return the writer (16 hex digits) of a run's lanes: the same for whichever process leads it."""
    return hashlib.sha256(f"loop {run}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def step_key(run: str, path: str) -> str:
    """Return the idempotency key of a step: the same for every process that runs it, another for every other step."""
    return hashlib.sha256(f"{run}\0{path}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def arguments_sha256(arguments: object) -> str:
    """Return the hash of plain arguments."""
    return hashlib.sha256(encode(plain(arguments))).hexdigest()
