"""What `_reading.c` offers. Places, plans and records are addresses of what `library.py` describes."""

from torch import Tensor

VERSION: int
SOURCE: str
EXCHANGE: int  # 1 where torch tells of its tensors by DLPack's C functions, 0 where by its methods

def output(place: int, tensor: object, /) -> bool:
    """Read an output of a layer; False where it cannot be read where it stands."""

def before(plan: int, parameters: list[Tensor], gradients: bool | list[Tensor | None], /) -> int:
    """Read gradients (True: the parameters' own) and weights, keep a copy of these. 0, ODD or MOVED."""

def after(
    plan: int, parameters: list[Tensor], gradients: bool | list[Tensor | None], scale: float, record: int, /
) -> int:
    """Read the change, and gradients as in `before`; write the signals. Whether all are there, ODD or MOVED."""

def forget(plan: int, /) -> None:
    """Begin the next step without having asked for this one."""

def same(dicts: list[dict[str, object]], ids: list[int], /) -> bool:
    """Say whether these dictionaries still hold the objects with these ids, in this order."""
