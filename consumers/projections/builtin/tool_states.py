"""Which events of tools count: a fold that knows of each tool its family, its versions, their states, and which is active.

Said here and in the registry of `consumers.crystallizer`, which a test holds equal: a version that nobody registered, a
number that is told twice, a move that is not legal change nothing, so that a damaged log makes no tool active.
"""

from typing import Any

from morphogen.schemas.crystals import CrystalInvoked, CrystalMoved, CrystalRegistered, CrystalShadowed

BIRTH = "shadow"
MOVES = {
    "shadow": {"active", "demoted", "retired"},
    "active": {"superseded", "demoted", "retired"},
    "superseded": {"active", "demoted", "retired"},
    "demoted": {"shadow", "retired"},
    "retired": set(),
}


def tool_of(signature: str) -> str:
    """Return the name of a family's tool."""
    return f"tool_{signature.split('-', 1)[-1]}"


class ToolStates:
    """The fold. `states` is plain data: by tool, its family, the state of each version, the number that is active."""

    def __init__(self, states: dict[str, dict[str, Any]] | None = None) -> None:
        self.states = {
            name: {**tool, "versions": dict(tool["versions"])} for name, tool in (states or {}).items()
        }  # a fold changes no state that it was given

    def counts(self, event: CrystalRegistered | CrystalMoved | CrystalInvoked | CrystalShadowed) -> bool:
        """Take an event, and tell whether it counts."""
        match event:
            case CrystalRegistered():
                return self._registered(event)
            case CrystalMoved():
                return self._moved(event)
            case _:
                return self._state(event.tool, event.number) is not None

    def _state(self, tool: str, number: int) -> str | None:
        known = self.states.get(tool)
        return None if known is None else known["versions"].get(str(number))

    def _registered(self, event: CrystalRegistered) -> bool:
        if event.number < 1 or event.tool != tool_of(event.signature):
            return False
        tool = self.states.setdefault(event.tool, {"signature": event.signature, "versions": {}, "active": None})
        if tool["signature"] != event.signature or str(event.number) in tool["versions"]:
            return False
        tool["versions"][str(event.number)] = BIRTH
        return True

    def _moved(self, event: CrystalMoved) -> bool:
        state = self._state(event.tool, event.number)
        if state is None or event.was != state or event.now not in MOVES[state]:
            return False
        tool = self.states[event.tool]
        if event.now == "active" and tool["active"] is not None:
            return False
        tool["versions"][str(event.number)] = event.now
        if event.now == "active":
            tool["active"] = event.number
        elif tool["active"] == event.number:
            tool["active"] = None
        return True
