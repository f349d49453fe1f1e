"""A circuit breaker whose clock is the epoch: a pure value, so that a replay of its events gives its state again."""

from dataclasses import dataclass, replace

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"


@dataclass(frozen=True)
class Breaker:
    """Opens after `limit` failures in a row, lets one try through after `rest` epochs, closes after `needed` successes."""

    name: str
    limit: int = 3
    rest: int = 5
    needed: int = 1
    state: str = CLOSED
    failures: int = 0  # in a row
    successes: int = 0  # while half open
    opened: int = 0  # the epoch
    trying: bool = False  # the one try is under way

    def at(self, epoch: int) -> "Breaker":
        """Return it as it is at `epoch`: an open one that has rested is half open."""
        if self.state == OPEN and epoch - self.opened >= self.rest:
            return replace(self, state=HALF_OPEN, successes=0, trying=False)
        return self

    @property
    def lets_through(self) -> bool:
        """Whether a try may be made now."""
        return self.state == CLOSED or (self.state == HALF_OPEN and not self.trying)

    def tried(self) -> "Breaker":
        """Return it after a try has begun."""
        return replace(self, trying=True) if self.state == HALF_OPEN else self

    def failed(self, epoch: int) -> "Breaker":
        """Return it after a failure; one while half open opens it again at once."""
        failures = self.failures + 1
        if self.state == HALF_OPEN or (self.state == CLOSED and failures >= self.limit):
            return replace(self, state=OPEN, failures=failures, opened=epoch, successes=0, trying=False)
        return replace(self, failures=failures)

    def succeeded(self) -> "Breaker":
        """Return it after a try that was seen to work."""
        if self.state == CLOSED:
            return replace(self, failures=0)
        if self.state == OPEN:
            return self  # of a try that began before it opened
        successes = self.successes + 1
        if successes >= self.needed:
            return replace(self, state=CLOSED, failures=0, successes=0, trying=False)
        return replace(self, successes=successes, trying=False)
