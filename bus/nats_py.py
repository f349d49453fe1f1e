"""nats-py's client and errors, imported without aiohttp, which nats-py wants for addresses with ws:// only.

Where aiohttp is installed, to import it takes longer than nats-py itself, in each process that opens the log.
Here it waits until something of it is used.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class _WhenUsed(ModuleType):
    """Stands for a module in nats-py's eyes, and lets it be imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        self.leave()
        return getattr(importlib.import_module(self.__name__), name)

    def leave(self) -> None:
        """Give the name back, so that who imports the module from now on has the real one."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


_aiohttp = _WhenUsed("aiohttp")
if "aiohttp" not in sys.modules and importlib.util.find_spec("aiohttp") is not None:
    sys.modules["aiohttp"] = _aiohttp
try:
    from nats import errors
    from nats.aio.client import Client
finally:
    _aiohttp.leave()

__all__ = ["Client", "errors"]
