"""What can go wrong on the bus.

MorphogenError
└── BusError
    ├── SettingsError            an environment variable or option has a bad value
    ├── BrokerError              the embedded broker cannot run
    │   ├── BrokerMissing        no nats-server binary is installed
    │   ├── BrokerStopped        it was stopped by `morphogen down`
    │   └── BrokerFailed         it would not start, answer, or stop
    ├── NoBroker                 nothing answers at the given address
    ├── Disconnected             the connection was lost, or closed, while waiting
    ├── RequestTimeout           nobody replied before the deadline
    │   └── PublishTimeout       the log did not acknowledge before the deadline
    ├── NoResponders             nobody listens on the subject of a request
    ├── NotAllowed               the broker does not let this user publish or subscribe there
    ├── StreamMissing            the broker has no such stream
    ├── StreamReplaced           the stream is not the one that was being read
    ├── MessageTooLarge          a message exceeds what the broker takes
    ├── ArchiveError             the Parquet archive of the log cannot be written or read
    │   ├── ArchiveDamaged       a file of it is missing, cut, changed, or foreign
    │   ├── ArchiveUnreadable    the machine does not let us read it: permissions, too many open files
    │   └── ArchiveBusy          another process is archiving
    ├── LogGap                   neither the archive nor the log has some sequences
    ├── BlobMissing              no whole blob of that hash is stored
    ├── BlobDamaged              the bytes of a blob do not have its hash
    ├── ServiceError             what serves a request failed, and says why
    ├── CommandError             a command or dead letter cannot be what was asked for
    ├── ForkedBus                a bus was used in a child of the process that opened it
    └── JetStreamApiError        the broker refused, with its code and reason
"""

from morphogen.schemas.errors import MorphogenError


class BusError(MorphogenError):
    """Raised by the bus; catch it to catch all of them."""


def lasting(seconds: float) -> str:
    """Return a time as it is told in a message: `5 s`, `4.9 s`, `0.05 s`."""
    return f"{round(seconds, 1 if seconds >= 1 else 3):g} s"


class SettingsError(BusError, ValueError):
    """Raised when a setting has a value that cannot be used."""


class BrokerError(BusError):
    """Raised when the embedded broker cannot run."""


class BrokerMissing(BrokerError):
    """Raised when no nats-server binary can be found."""


class BrokerStopped(BrokerError):
    """Raised when the broker was stopped on purpose and only the user may start it again."""


class BrokerFailed(BrokerError):
    """Raised when the embedded broker does not start, answer, or stop."""


class NoBroker(BusError):
    """Raised when nothing answers at the broker's address, or it turns us away."""


class Disconnected(BusError):
    """Raised in every caller that waits on a connection when it is lost or closed."""


class RequestTimeout(BusError, TimeoutError):
    """Raised when a request has no reply before its deadline."""


class PublishTimeout(RequestTimeout):
    """Raised when a published message is not acknowledged in time: it may or may not be stored."""


class NoResponders(BusError):
    """Raised when nobody listens on the subject of a request."""


class NotAllowed(BusError):
    """Raised when the broker does not let this user publish to a subject, or hear what is sent to one."""


class StreamMissing(BusError):
    """Raised when the broker has no such stream."""


class MessageTooLarge(BusError):
    """Raised when a message has more bytes than the broker takes."""


class ArchiveError(BusError):
    """Raised when the archive of the log cannot be written or read."""


class ArchiveDamaged(ArchiveError):
    """Raised when a file of the archive is missing, cut, changed, or not ours; its text names the file."""


class ArchiveUnreadable(ArchiveError):
    """Raised when the machine does not let us read a file of the archive, which may well be whole; its text says why."""


class ArchiveBusy(ArchiveError):
    """Raised when another process is archiving the same log."""


class LogGap(BusError):
    """Raised when sequences `first` to `last` are in neither the archive nor the log."""

    def __init__(self, first: int, last: int, advice: str) -> None:
        self.first = first
        self.last = last
        super().__init__(f"messages {first}-{last} are in neither the archive nor the log: {advice}")


class JetStreamApiError(BusError):
    """Raised when JetStream refuses; carries its HTTP-like `code`, its `err_code` and its `description`."""

    def __init__(self, code: int, err_code: int, description: str, *, where: str = "") -> None:
        self.code = code
        self.err_code = err_code
        self.description = description
        self.where = where
        place = f" {where}" if where else ""
        super().__init__(f"the broker refused{place}: {description} (code {code}, error {err_code})")


class StreamReplaced(BusError):
    """Raised when a stream was deleted and made again while it was being read: its sequences mean something else."""


class BlobMissing(BusError):
    """Raised when no whole blob of that hash is stored."""


class BlobDamaged(BusError):
    """Raised when the bytes of a blob do not have its hash."""


class ServiceError(BusError):
    """Raised where a request was answered with an error; `kind` is the name of the error at the other end."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class CommandError(BusError):
    """Raised when a command or a dead letter cannot be what was asked for."""


class ForkedBus(BusError):
    """Raised when a bus is used in a forked child of the process that opened it."""
