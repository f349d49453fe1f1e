"""What a worker is ordered to do: export a session, hand it over, drop it. Each once, however often it is delivered."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from morphogen.bus.commands import Command
from morphogen.bus.errors import CommandError
from morphogen.schemas.kv import FILE, DropArgs, ExportArgs, HandoffArgs, KvExported

from .errors import ContinuityError, HandoffFailed, HandoffUnsure, SessionError
from .giving import fork, give
from .service import Service
from .wire import Info

_T = TypeVar("_T")
_REMEMBERED = 1000  # outcomes of commands


class Orders:
    """The commands of one worker."""

    def __init__(self, service: Service) -> None:
        self._service, self._house = service, service.house
        self._outcomes: dict[str, Any] = {}
        self._known: dict[str, Info] = {}

    async def export(self, command: Command) -> dict[str, Any]:
        """Write a session's KV state into a tier, or a file; return where it is."""
        service, house, args = self._service, self._house, _args(command, ExportArgs)

        def work() -> KvExported:
            house.seated(args.session, create=False).read()  # it may have been put aside, and its state be gone
            if args.path is None:
                return house.keep(args.session, args.tier, pin=args.pin)
            exported = house.export(args.session, Path(args.path), tier=FILE)
            if exported is None:
                raise ContinuityError(f"session {args.session!r} holds nothing yet: let it read or say something first")
            house.tell(exported, cause=command.cause)
            return exported

        async def do() -> dict[str, Any]:
            async with service.lock(args.session):
                await service.own(args.session)
                exported = await service.lane(work)
                return {
                    "state": exported.state,
                    "tokens": exported.tokens,
                    "size": exported.size,
                    "tier": exported.tier,
                    "place": exported.ref.place,
                }

        return await self._once(command, do)

    async def handoff(self, command: Command) -> dict[str, Any]:
        """Give a session, or a copy of it, to another worker, or to another name here; return what came of it."""
        service, house, args = self._service, self._house, _args(command, HandoffArgs)
        if not 0 < args.ttl <= 3600:
            raise CommandError(f"{command.name}: ttl is from 0 to 3600 seconds, not {args.ttl:g}")

        async def do() -> dict[str, Any]:
            async with service.lock(args.session):
                await service.own(args.session)
                if not house.known(args.session):
                    raise SessionError(f"worker {house.name} has no session {args.session!r}: see `morphogen kv list`")
                turn = service.turns.get(args.session)
                if turn is not None:
                    await turn.stop()
                house.busy.add(args.session)  # after that: a turn that ends takes it off
                moved = False
                try:
                    if args.to == house.name:
                        given = await fork(house, service.lane, args, command.id, command.cause)
                    else:
                        given = await give(
                            service.conn,
                            house,
                            service.lane,
                            service.place,
                            args,
                            command.id,
                            command.cause,
                            self._known,
                            service.offers,
                        )
                    moved = not args.keep
                except HandoffUnsure as error:
                    service.doubt(args.session, error)
                    raise
                finally:
                    house.busy.discard(args.session)
                    if turn is not None and not moved and not turn.over:
                        service.follow(args.session, turn)
                if moved:
                    service.gave(args.session, given.to, given.session)
                    service.turns.pop(args.session, None)
                    if turn is not None and not turn.over:
                        turn.move(given.to, given.session)
                return msgspec.to_builtins(given)  # type: ignore[no-any-return]

        return await self._once(command, do)

    async def drop(self, command: Command) -> dict[str, Any]:
        """Give up a session with all that is stored of it, or one stored state."""
        service, house, args = self._service, self._house, _args(command, DropArgs)
        if (args.session is None) == (args.state is None):
            raise CommandError(f"{command.name}: name a session, or a state")

        async def do() -> dict[str, Any]:
            if args.state is not None:
                state = args.state
                if not await service.lane(lambda: house.store.drop(state, "dropped")):
                    raise ContinuityError(f"worker {house.name} stores no state {state!r}")
                return {"state": state}
            name = str(args.session)
            async with service.lock(name):
                turn = service.turns.pop(name, None)
                if turn is not None:
                    await turn.stop()
                house.busy.discard(name)
                went = service.dropped(name)
                if house.known(name) or not went:
                    await service.lane(lambda: house.forget(name, "dropped"))
                if turn is not None:
                    turn.fail(SessionError(f"session {name!r} was dropped"))
                return {"session": name}

        return await self._once(command, do)

    async def _once(self, command: Command, do: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Do a command's work once, however often it is delivered; errors of ours that no retry mends are final."""
        if command.id in self._outcomes:
            return self._outcomes[command.id]  # type: ignore[no-any-return]
        try:
            result = await do()
        except HandoffFailed:
            raise
        except ContinuityError as error:
            raise CommandError(str(error)) from error
        self._outcomes[command.id] = result
        if len(self._outcomes) > _REMEMBERED:
            del self._outcomes[next(iter(self._outcomes))]
        return result


def _args(command: Command, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(command.args, kind)
    except msgspec.ValidationError as error:
        raise CommandError(f"{command.name}: {error}") from error
