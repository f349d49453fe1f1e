"""A model as a process that keeps sessions, and hands them over when a command says so.

    kv.<worker>                      commands: kv.export, kv.handoff, kv.drop
    morphogen.kv.<worker>.info       what it is and holds
    morphogen.kv.<worker>.say        append a message
    morphogen.kv.<worker>.generate   a reply, as a stream
    morphogen.kv.<worker>.offer      a session from another worker
    morphogen.kv.<worker>.has        whether that one is still here

One thread computes; the loop of the connection does all else, and waits for events alone.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from morphogen.bus.aside import in_thread
from morphogen.bus.commands import Command, Worker
from morphogen.bus.errors import CommandError
from morphogen.bus.requests import Responder, respond
from morphogen.kernels.kv import IsolatedImporter, RawContext, fingerprint_of
from morphogen.kernels.kv.transport import Disk, SharedMemory, Transport, here
from morphogen.schemas import token
from morphogen.schemas.kv import (
    DROP,
    EXPORT,
    HANDOFF,
    DropArgs,
    ExportArgs,
    HandoffArgs,
    KvExported,
    worker_subject,
    worker_target,
)

from .blob_transport import BlobTransport
from .calibrate import calibrate
from .client import has, whereabouts
from .diary import Diary
from .errors import ContinuityError, HandoffFailed, SessionBusy, SessionError
from .giving import fork, give
from .house import House
from .inventory import Inventory
from .options import Options
from .store import Store
from .taking import Taking
from .turns import Turn
from .wire import GENERATE, HAS, INFO, OFFER, SAY, Ask, Had, Has, Info, Said, Say, pack, unpack

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.bus.settings import Settings

_T = TypeVar("_T")
_REAP_EVERY = 5.0  # seconds
_HANDED = 1000  # outcomes of commands remembered

_log = logging.getLogger("morphogen.kv")
_loading = threading.Lock()  # llama.cpp's own words are kept off the terminal while a model loads, process-wide


class KvWorker:
    """Serves one model under one name; `ready` is set once it can be reached. Made for one `run`."""

    def __init__(self, conn: "Connection", settings: "Settings", options: Options) -> None:
        self.name = options.name or f"{options.model.stem}-{os.getpid()}"
        self.ready = asyncio.Event()
        self._conn, self._settings, self._options = conn, settings, options
        self._lane_pool = ThreadPoolExecutor(1, "morphogen kv")
        self._turns: dict[str, Turn] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._moves: dict[str, asyncio.Lock] = {}
        self._outcomes: dict[str, Any] = {}
        self._known: dict[str, Info] = {}
        self._importer: IsolatedImporter | None = None
        self._home = settings.home / "kv" / token(self.name)
        self._cache = settings.home / "kv"

    async def run(self) -> None:
        """Load the model, serve until cancelled, and end in order: sessions stay in their journals.

        Raises what says that the model cannot be loaded, or that a worker of this name runs already.
        """
        loop = asyncio.get_running_loop()
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _Only(self._home / "worker.lock", self.name):
            if await whereabouts(self._conn, self.name, timeout=1.0) is not None:
                raise ContinuityError(
                    f"a worker {self.name!r} answers at this broker already: give this one another --name"
                )
            diary = Diary(self._settings, f"kv-{self.name}")
            memory = disk = None
            context: RawContext | None = None
            responders: list[Responder] = []
            worker = Worker(
                self._conn,
                worker_target(self.name),
                {EXPORT: self._export, HANDOFF: self._handoff, DROP: self._drop},
                name=self.name,
                concurrency=8,
                ack_wait=self._options.ack_wait,
            )
            reaping: asyncio.Task[None] | None = None
            try:
                memory = SharedMemory(self._options.memory_folder)
                disk = Disk(self._home / "states")
                transports: dict[str, Transport] = {"memory": memory, "disk": disk}
                if self._options.blobs:
                    run = _blocking(loop)
                    folder = self._home / "blobs"
                    transports["blobs"] = await in_thread(lambda: BlobTransport(self._conn, run, folder))
                context = await self._lane(self._load)
                await self._lane(lambda: self._settle(context, transports, diary))
                self._place = here(
                    memory=memory.folder.path,
                    disk=None,  # each worker's own
                    blobs=self._options.blobs,
                )
                self._taking = Taking(self.house, self._lane, self._arrived)
                for request, handler in (
                    (INFO, self._info),
                    (SAY, self._say),
                    (GENERATE, self._generate),
                    (HAS, self._has),
                    (OFFER, self._taking.answer),
                ):
                    responders.append(await respond(self._conn, worker_subject(self.name, request), handler))
                reaping = asyncio.create_task(self._reap(memory, disk))
                self.ready.set()
                await worker.run()
            finally:
                worker.stop()
                if reaping is not None:
                    reaping.cancel()
                for responder in responders:
                    await responder.close()
                for task in list(self._tasks):
                    task.cancel()
                for turn in list(self._turns.values()):
                    await turn.stop()
                if context is not None:
                    await self._lane(lambda: self._end(context))
                self._lane_pool.shutdown(wait=True)
                for transport in (memory, disk):
                    if transport is not None:
                        transport.close()
                await in_thread(diary.close)

    # ------------------------------------------------------------------ requests

    async def _info(self, payload: bytes) -> bytes:
        del payload
        house, options = self.house, self._options
        return pack(
            Info(
                worker=self.name,
                pid=os.getpid(),
                model=house.model,
                fingerprint=house.fingerprint,
                place=self._place,
                sequences=house.context.sequences,
                context=house.context.room,
                sessions=house.infos(),
                used={tier: house.store.shelf.used(tier) for tier in house.store.transports},
                budgets=dict(options.budgets),
                costs=self._costs(),
            )
        )

    async def _say(self, payload: bytes) -> bytes:
        say = unpack(payload, Say)
        await self._own(say.session)

        def work() -> Said:
            with self.house.speaking(say.session) as session:
                session.say(say.text, say.role)
                if say.compute:
                    session.read()
            return Said(session=say.session, tokens=len(session.conversation.tokens), turns=session.conversation.turns)

        async with self._lock(say.session):
            return pack(await self._lane(work))

    async def _generate(self, payload: bytes) -> AsyncIterator[bytes]:
        ask = unpack(payload, Ask)
        async with self._lock(ask.session):
            await self._own(ask.session)
            turn = self._turns.get(ask.session)
            said = turn is not None and turn.finish is not None and ask.resume
            if turn is None or (turn.over and not said):
                turn = await self._begin(ask)
            elif not ask.resume:
                raise SessionBusy(f"session {ask.session!r} is in the middle of a reply: follow it (resume)")
        async for bit in turn.follow(ask.since):
            yield pack(bit)

    async def _has(self, payload: bytes) -> bytes:
        """Answer whoever gave a session away and died: one in a journal that nobody has opened since counts, too."""
        asked = unpack(payload, Has)

        def work() -> bool:
            known = self.house.known(asked.session)
            return known and asked.handoff in self.house.session(asked.session, create=False).conversation.handoffs

        return pack(Had(here=await self._lane(work)))

    async def _begin(self, ask: Ask) -> Turn:
        """Begin a reply, or carry on one that was broken off."""
        if ask.max_tokens < 1:  # before anything is said
            raise SessionError(
                f"session {ask.session!r}: a reply of at most {ask.max_tokens} tokens is none: ask for at least 1"
            )

        def work() -> tuple[Any, str]:
            house = self.house
            if ask.resume or ask.say is None:
                house.session(ask.session, create=False)
            with house.speaking(ask.session) as session:
                if ask.resume:
                    if not session.pending:
                        raise SessionError(f"session {ask.session!r} has no reply to carry on")
                    partial = session.partial
                    session.carry_on()
                    return session, partial
                if ask.say is not None:
                    session.say(ask.say, ask.role)
                session.begin(ask.max_tokens, ask.sampling, ask.stop)
                return session, ""

        session, partial = await self._lane(work)
        return self._turn(ask.session, Turn(session, self._lane, text=partial))

    def _turn(self, name: str, turn: Turn) -> Turn:
        """Let a turn run on; the last one of a session is kept, for whoever comes late to read it."""
        self._turns[name] = turn
        self.house.busy.add(name)

        async def run() -> None:
            await turn.run()
            if self._turns.get(name) is turn and turn.over:
                self.house.busy.discard(name)

        task = asyncio.create_task(run(), name=f"morphogen turn {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return turn

    def _arrived(self, name: str) -> None:
        """Go on with a session that came from another worker in the middle of a reply."""
        session = self.house.session(name)
        text = session.partial if session.pending else session.conversation.messages[-1].text
        turn = Turn(session, self._lane, text=text)
        if session.pending:
            self._turn(name, turn)
        else:  # its last token was made on arrival
            turn.finish, turn.tokens = session.finish or "stop", len(session.conversation.tokens)
            self._turns[name] = turn

    # ------------------------------------------------------------------ commands

    async def _export(self, command: Command) -> dict[str, Any]:
        args = _args(command, ExportArgs)

        def work() -> KvExported:
            house = self.house
            house.seated(args.session, create=False).read()  # it may have been put aside, and its state be gone
            if args.path is None:
                return house.keep(args.session, args.tier, pin=args.pin)
            exported = house.export(args.session, Path(args.path), tier="disk")
            if exported is None:
                raise ContinuityError(f"session {args.session!r} holds nothing yet: let it read or say something first")
            house.tell(exported, cause=command.cause)
            return exported

        async def do() -> dict[str, Any]:
            async with self._lock(args.session):
                await self._own(args.session)
                exported = await self._lane(work)
                return {
                    "state": exported.state,
                    "tokens": exported.tokens,
                    "size": exported.size,
                    "tier": exported.tier,
                    "place": exported.ref.place,
                }

        return await self._once(command, do)

    async def _handoff(self, command: Command) -> dict[str, Any]:
        args = _args(command, HandoffArgs)
        if not 0 < args.ttl <= 3600:
            raise CommandError(f"{command.name}: ttl is from 0 to 3600 seconds, not {args.ttl:g}")

        async def do() -> dict[str, Any]:
            async with self._lock(args.session):
                await self._own(args.session)
                house = self.house
                if not house.known(args.session):
                    raise SessionError(f"worker {self.name} has no session {args.session!r}: see `morphogen kv list`")
                turn = self._turns.get(args.session)
                house.busy.add(args.session)
                if turn is not None:
                    await turn.stop()
                moved = False
                try:
                    if args.to == self.name:
                        given = await fork(house, self._lane, args, command.id, command.cause)
                    else:
                        given = await give(
                            self._conn, house, self._lane, self._place, args, command.id, command.cause, self._known
                        )
                    moved = not args.keep
                finally:
                    house.busy.discard(args.session)
                    if turn is not None and not moved and not turn.over:
                        self._turn(args.session, turn)
                if moved:
                    self._turns.pop(args.session, None)
                    if turn is not None and not turn.over:
                        turn.move(given.to, given.session)
                return msgspec.to_builtins(given)  # type: ignore[no-any-return]

        return await self._once(command, do)

    async def _drop(self, command: Command) -> dict[str, Any]:
        args = _args(command, DropArgs)
        if (args.session is None) == (args.state is None):
            raise CommandError(f"{command.name}: name a session, or a state")

        async def do() -> dict[str, Any]:
            if args.state is not None:
                state = args.state
                if not await self._lane(lambda: self.house.store.drop(state, "dropped")):
                    raise ContinuityError(f"worker {self.name} stores no state {state!r}")
                return {"state": state}
            name = str(args.session)
            async with self._lock(name):
                turn = self._turns.pop(name, None)
                if turn is not None:
                    await turn.stop()
                self.house.busy.discard(name)
                await self._lane(lambda: self.house.forget(name, "dropped"))
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
        if len(self._outcomes) > _HANDED:
            del self._outcomes[next(iter(self._outcomes))]
        return result

    # ------------------------------------------------------------------ inside

    def _lane(self, call: Callable[[], _T]) -> "asyncio.Future[_T]":
        """Run a call in the thread that computes."""
        return asyncio.get_running_loop().run_in_executor(self._lane_pool, call)

    def _lock(self, session: str) -> asyncio.Lock:
        return self._moves.setdefault(session, asyncio.Lock())

    def _load(self) -> RawContext:
        options = self._options
        with _loading:
            _hush()
            return RawContext.open(
                options.model,
                n_ctx=options.context,
                sequences=options.parallel,
                type_k=options.type_k,
                type_v=options.type_v,
                flash_attn=options.flash_attn,
                unified=options.unified,
                n_batch=options.batch,
                n_threads=options.threads,
                gpu_layers=options.gpu_layers,
                loras=options.loras,
            )

    def _settle(self, context: "RawContext | None", transports: dict[str, Transport], diary: Diary) -> None:
        assert context is not None
        options = self._options
        fingerprint = fingerprint_of(context, cache=self._cache)
        if options.isolate:
            self._importer = IsolatedImporter.like(context, gpu_layers=options.gpu_layers)
        inventory = Inventory(self._home / "states.msgpack")
        store = Store(self.name, transports, dict(options.budgets), diary.tell, inventory)
        self.house = House(
            context,
            fingerprint,
            name=self.name,
            model=options.model.name,
            folder=self._home / "sessions",
            store=store,
            tell=diary.tell,
            cache=self._cache,
            every=options.every,
            template=options.template,
            force=options.force,
            importer=self._importer,
        )
        self.house.costs = calibrate(context, transports, cache=self._cache)

    def _end(self, context: "RawContext | None") -> None:
        if hasattr(self, "house"):
            self.house.close()
        if self._importer is not None:
            self._importer.close()
        if context is not None:
            context.close()

    async def _own(self, session: str) -> None:
        """See whether a session that was being handed over when this worker died is now elsewhere; then it is not here."""
        if session in self.house.sessions or not self.house.known(session):
            return
        found = await self._lane(lambda: self.house.session(session))
        moved = found.conversation.moved
        if moved is None or moved.to == self.name:
            return
        if await has(self._conn, moved.to, moved.name, moved.handoff):
            await self._lane(lambda: self.house.forget(session, "handed_off"))
            raise SessionError(f"session {session!r} went to worker {moved.to}: ask there")

    async def _reap(self, memory: SharedMemory, disk: Disk) -> None:
        """Remove what dead processes left; housekeeping, that nobody waits for."""
        while True:
            for transport in (memory, disk):
                with contextlib.suppress(Exception):
                    await in_thread(transport.reap)
            await asyncio.sleep(_REAP_EVERY)

    def _costs(self) -> dict[str, Any]:
        costs = self.house.costs
        found: dict[str, Any] = {"prefill_tokens_per_second": 1 / costs.prefill.fit[1]}
        for tier, line in costs.tiers.items():
            if line.measured:
                overhead, slope = line.fit
                found[tier] = {"overhead_seconds": overhead, "bytes_per_second": 1 / slope}
        return found


def _hush() -> None:
    """Keep llama.cpp's account of its graphs off the terminal, where the user has not asked for it."""
    with contextlib.suppress(ImportError):
        from llama_cpp import _logger

        if not _log.isEnabledFor(logging.DEBUG):
            _logger.set_verbose(False)


class _Only:
    """Holds the lock of a worker's folder: of two workers of one name on one machine the second is told."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name, self._fd = path, name, -1

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise ContinuityError(f"a worker {self._name!r} runs already: give this one another --name") from None

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _blocking(loop: asyncio.AbstractEventLoop) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Return what runs a coroutine on the loop from another thread, and waits for it."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    return run


def _args(command: Command, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(command.args, kind)
    except msgspec.ValidationError as error:
        raise CommandError(f"{command.name}: {error}") from error
