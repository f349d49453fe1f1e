"""Every error that Morphogen raises at its users.

    MorphogenError
    ├── SchemaError            an event class, a type name or an upcaster is declared wrongly
    ├── EncodeError            a value cannot be written into an event
    ├── FrameError             bytes of the log that are no frame of ours
    └── (bus, producers, consumers and replay add theirs below the same root)

Each text is one line: what was wrong, where, and what to do. A command line prints it and exits non-zero.
"""


class MorphogenError(Exception):
    """Root of all errors that are meant for the user's eyes."""


class SchemaError(MorphogenError):
    """An event class, its version or its upcaster is declared wrongly."""


class EncodeError(MorphogenError):
    """A value cannot be written into an event."""


class FrameError(MorphogenError):
    """Bytes of the log that are not a frame, or a frame of a format that this version cannot read."""
