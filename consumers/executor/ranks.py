"""How many processes train copies of one model together: growth is for one."""

import torch.distributed


def ranks() -> int:
    """Return the number of processes that torch.distributed has joined, 1 without it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1
    return torch.distributed.get_world_size()


def apart(number: int) -> str:
    """Say why nothing grows among `number` ranks."""
    return (
        f"this is one of {number} ranks, and what grows in one is trained by that one alone (DDP trains what it found when "
        "it wrapped the model): their copies would come apart"
    )
