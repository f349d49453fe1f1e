"""What leases refuse.

KvError
└── LeaseError         the folder of leases cannot be used: what, where, what to do
    └── LeaseEnded     what was leased is no longer held: released, out of time, or its holder is gone
"""

from ..errors import KvError


class LeaseError(KvError):
    """A folder of leases cannot be used."""


class LeaseEnded(LeaseError):
    """A lease has ended: it was released, its time ran out, or its holder is gone."""
