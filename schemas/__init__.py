"""What an event is: typed families, the registry, the bytes of the log.

Pure: no clock, no socket, no file, and nothing else of Morphogen. Usable alone to read or write the log's bytes.
"""

from .artifacts import ArtifactSaved
from .commands import CommandAccepted, CommandFinished, CommandIssued, DeadLetter, DeadResolved
from .errors import EncodeError, FrameError, MorphogenError, SchemaError
from .event import Event, Unknown, decode_event, decoder_of, event_class, event_classes, upcaster
from .fingerprint import changed, fingerprint
from .frames import (
    Frame,
    Record,
    decode_frame,
    decode_records,
    encode_frame,
    encode_record,
    frame_head,
    verify_frame,
)
from .health import SIGNALS, LayerHealth
from .improve import ProgramImproved
from .jsonschema import json_schema
from .jsontext import json_text, jsonable
from .knowledge_events import (
    FactBecameFalse,
    FactBecameTrue,
    HintSuggested,
    KnowledgeDropped,
    KnowledgeLoaded,
    RuleAdvice,
    RuleFired,
)
from .lines import LogLine
from .llm import LlmBudgetExceeded, LlmQueried
from .loops import (
    Carried,
    LoopAnswered,
    LoopAssigned,
    LoopCheckpoint,
    LoopDecided,
    LoopFinished,
    LoopGrounded,
    LoopHandled,
    LoopRecorded,
    LoopResumed,
    LoopRuleFired,
    LoopStarted,
    LoopSuspended,
    LoopVerdict,
    LoopViolated,
    Signal,
    StepFinished,
    StepStarted,
)
from .metrics import Metrics
from .names import token, untoken
from .producers import ProducerClosed, ProducerDropped
from .run import RunFailed, RunFinished, RunStarted
from .sweeps import SweepBest, SweepFinished, SweepStarted, TrialFinished, TrialStarted
from .values import Names, Vector, decode, encode, plain, vector

__all__ = [
    "SIGNALS",
    "ArtifactSaved",
    "Carried",
    "CommandAccepted",
    "CommandFinished",
    "CommandIssued",
    "DeadLetter",
    "DeadResolved",
    "EncodeError",
    "Event",
    "FactBecameFalse",
    "FactBecameTrue",
    "Frame",
    "FrameError",
    "HintSuggested",
    "KnowledgeDropped",
    "KnowledgeLoaded",
    "LayerHealth",
    "LlmBudgetExceeded",
    "LlmQueried",
    "LogLine",
    "LoopAnswered",
    "LoopAssigned",
    "LoopCheckpoint",
    "LoopDecided",
    "LoopFinished",
    "LoopGrounded",
    "LoopHandled",
    "LoopRecorded",
    "LoopResumed",
    "LoopRuleFired",
    "LoopStarted",
    "LoopSuspended",
    "LoopVerdict",
    "LoopViolated",
    "Metrics",
    "MorphogenError",
    "Names",
    "ProducerClosed",
    "ProducerDropped",
    "ProgramImproved",
    "Record",
    "RuleAdvice",
    "RuleFired",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "SchemaError",
    "Signal",
    "StepFinished",
    "StepStarted",
    "SweepBest",
    "SweepFinished",
    "SweepStarted",
    "TrialFinished",
    "TrialStarted",
    "Unknown",
    "Vector",
    "changed",
    "decode",
    "decode_event",
    "decode_frame",
    "decode_records",
    "decoder_of",
    "encode",
    "encode_frame",
    "encode_record",
    "event_class",
    "event_classes",
    "fingerprint",
    "frame_head",
    "json_schema",
    "json_text",
    "jsonable",
    "plain",
    "token",
    "untoken",
    "upcaster",
    "vector",
    "verify_frame",
]
