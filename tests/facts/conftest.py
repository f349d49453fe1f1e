"""Logs in memory and stores over them, as the projections' own tests have, and a module to load."""

from ..projections.conftest import Log, ask, catch_up, fresh, log, open_store

__all__ = ["Log", "ask", "catch_up", "fresh", "log", "open_store"]
