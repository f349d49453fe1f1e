"""Programs that pursue goals: read and checked before anything is done, and which tools they name."""

from typing import TYPE_CHECKING

from morphogen.schemas.knowledge.check.walk import nodes
from morphogen.schemas.knowledge.tree import Action, AgentLoop, Task

from ..errors import LoopError
from ..tools.toolbox import Toolbox
from .acting import ACT, GIVE_UP, Act, GiveUp

if TYPE_CHECKING:
    from .learner import Program


def tools_named(program: "Program", toolbox: Toolbox) -> frozenset[str]:
    """Return the tools that a program's module names, those of its author's choice.

    Raises KnowledgeError for a module that does not check, LoopError where the loop is none that reaches an end by itself.
    """
    from morphogen.kernels.sandbox.capabilities import NONE
    from morphogen.schemas.knowledge.program import load

    signatures = {**toolbox.signatures, ACT: Act(NONE, toolbox).signature, GIVE_UP: GiveUp().signature}
    read = load(program.file, tools=signatures)
    loop = read.find_loop(program.name)
    if not isinstance(loop, Task | AgentLoop):
        raise LoopError(
            f"{program.file}: {loop.name} is no task or agent loop, so it cannot pursue a goal: name one that is"
        )
    modules = (read.module, *read.used_modules.values())
    return frozenset(node.name for module in modules for node in nodes(module) if isinstance(node, Action))
