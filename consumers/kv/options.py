"""What a worker is started with."""

from dataclasses import dataclass, field
from pathlib import Path

from .cost import Choice


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a worker is started with. Budgets are bytes by tier; a tier without one stores nothing by itself."""

    model: Path
    name: str | None = None  # default: the model's name and the process id
    context: int = 4096  # tokens of all sequences together
    parallel: int = 4
    batch: int = 512
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: bool = False
    threads: int | None = None
    gpu_layers: int = 0
    unified: bool = True
    loras: tuple[tuple[Path, float], ...] = ()
    budgets: dict[str, int] = field(default_factory=lambda: {"memory": 1 << 30, "disk": 8 << 30})
    memory_folder: Path | None = None  # must be the same for workers that hand states to each other in memory
    every: int | None = 512  # tokens between two savings of a KV state beside its journal
    template: bool = True
    force: Choice | None = None  # restore or recompute, whatever the costs say
    isolate: bool = False  # try a state in a process of its own first: a crash in llama.cpp costs that one
    blobs: bool = True  # reach workers elsewhere through the broker
    ack_wait: float = 30.0  # seconds after which a command of a dead worker is given to the next
