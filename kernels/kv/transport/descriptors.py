"""How many files may stay open only because they may be of use again: each takes two descriptors, one with its mapping."""

import resource

_MOST = 256


def at_hand() -> int:
    """Return for how many files of one kind that is: for a 32nd of the descriptors that this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(1, min(_MOST, soft // 32))
