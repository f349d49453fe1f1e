"""The broker: which one to use, and, where none is configured, one of our own.

A `nats-server` child on the loopback interface, shared by every process of the machine and outliving the one that
started it. Knows nothing of streams or events.
"""

from .lifecycle import Endpoint, down, ensure, restart
from .standing import BrokerStatus, status

__all__ = ["BrokerStatus", "Endpoint", "down", "ensure", "restart", "status"]
