"""How a reservation and a mapping end with their `with` block."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class EndsByAbort(ABC):
    """What is aborted at the end of its block; harmless where it was committed in it."""

    @abstractmethod
    def abort(self) -> None:
        """Give the room back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class EndsByClose(ABC):
    """What is closed at the end of its block."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the bytes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
