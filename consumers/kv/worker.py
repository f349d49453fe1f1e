"""A model as a process that keeps sessions, and hands them over when a command says so.

    kv.<worker>                      commands: kv.export, kv.handoff, kv.drop
    morphogen.kv.<worker>.info       what it is and holds
    morphogen.kv.<worker>.say        append a message
    morphogen.kv.<worker>.generate   a reply, as a stream
    morphogen.kv.<worker>.offer      a session from another worker
    morphogen.kv.<worker>.stands     whether an offer of ours still stands, asked by the one that takes it up
    morphogen.kv.<worker>.has        whether a session that was offered came here
    morphogen.kv.<worker>.claim      whether the name is taken, asked by one that starts

One thread computes; the loop of the connection does all else, and waits for events; a reply without room looks for it.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from morphogen.bus.aside import in_thread
from morphogen.bus.claims import Claim
from morphogen.bus.commands import Worker
from morphogen.bus.requests import Responder, respond
from morphogen.kernels.kv import IsolatedImporter, RawContext, fingerprint_of
from morphogen.kernels.kv.transport import Disk, SharedMemory, Transport, here
from morphogen.schemas import token
from morphogen.schemas.kv import (
    DROP,
    EXPORT,
    HANDOFF,
    worker_subject,
    worker_target,
)

from . import client
from .blob_transport import BlobTransport
from .calibrate import calibrate
from .diary import Diary
from .errors import ContinuityError
from .house import House
from .inventory import Inventory
from .options import Options
from .orders import Orders
from .service import Service
from .store import Store
from .taking import Taking
from .wire import CLAIM, GENERATE, HAS, INFO, OFFER, SAY, STANDS

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.bus.settings import Settings

_T = TypeVar("_T")
_REAP_EVERY = 5.0  # seconds

_log = logging.getLogger("morphogen.kv")
_loading = threading.Lock()  # llama.cpp's own words are kept off the terminal while a model loads, process-wide


class KvWorker:
    """Serves one model under one name; `ready` is set once it can be reached. Made for one `run`."""

    def __init__(self, conn: "Connection", settings: "Settings", options: Options) -> None:
        self.name = options.name or f"{options.model.stem}-{os.getpid()}"
        self.ready = asyncio.Event()
        self._conn, self._settings, self._options = conn, settings, options
        self._lane_pool = ThreadPoolExecutor(1, "morphogen kv")
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
            if await client.whereabouts(self._conn, self.name, timeout=1.0) is not None:
                raise self._taken()
            claim = Claim(self._conn, worker_subject(self.name, CLAIM))
            await claim.open()
            diary = Diary(self._settings, f"kv-{self.name}")
            memory = disk = None
            context: RawContext | None = None
            responders: list[Responder] = []
            service: Service | None = None
            taking: Taking | None = None
            worker: Worker | None = None
            reaping: asyncio.Task[None] | None = None
            try:
                memory = SharedMemory(self._options.memory_folder)
                disk = Disk(self._home / "states")
                transports: dict[str, Transport] = {"memory": memory, "disk": disk}
                run = _blocking(loop)
                if self._options.blobs:
                    folder = self._home / "blobs"
                    transports["blobs"] = await in_thread(lambda: BlobTransport(self._conn, run, folder))
                context = await self._lane(self._load)
                # of two that began to load at once only one may touch what is of that name
                if not await claim.settle():
                    raise self._taken()
                await self._lane(lambda: self._settle(context, transports, diary))
                place = here(
                    memory=memory.folder.path,
                    disk=None,  # each worker's own
                    blobs=self._options.blobs,
                )
                service = Service(self._conn, self.house, self._lane, place, self._options.budgets)
                orders = Orders(service)
                taking = Taking(
                    self.house, self._lane, service.arrived, lambda *offer: bool(run(client.stands(self._conn, *offer)))
                )
                for request, handler in (
                    (INFO, service.info),
                    (SAY, service.say),
                    (GENERATE, service.generate),
                    (HAS, service.has),
                    (OFFER, taking.answer),
                    (STANDS, service.offers.stands),
                ):
                    responders.append(await respond(self._conn, worker_subject(self.name, request), handler))
                reaping = asyncio.create_task(self._reap(memory, disk))
                worker = Worker(
                    self._conn,
                    worker_target(self.name),
                    {EXPORT: orders.export, HANDOFF: orders.handoff, DROP: orders.drop},
                    name=self.name,
                    concurrency=8,
                    ack_wait=self._options.ack_wait,
                )
                self.ready.set()
                await worker.run()
            finally:
                if worker is not None:
                    worker.stop()
                if reaping is not None:
                    reaping.cancel()
                for responder in responders:
                    await responder.close()
                await claim.close()
                if taking is not None:
                    taking.close()
                if service is not None:
                    await service.close()
                if context is not None:
                    await self._lane(lambda: self._end(context))
                self._lane_pool.shutdown(wait=True)
                for transport in (memory, disk):
                    if transport is not None:
                        transport.close()
                await in_thread(diary.close)

    def _taken(self) -> ContinuityError:
        return ContinuityError(f"a worker {self.name!r} answers at this broker already: give this one another --name")

    def _lane(self, call: Callable[[], _T]) -> "asyncio.Future[_T]":
        """Run a call in the thread that computes."""
        return asyncio.get_running_loop().run_in_executor(self._lane_pool, call)

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
        self.house.states.costs = calibrate(context, transports, cache=self._cache)

    def _end(self, context: "RawContext | None") -> None:
        if hasattr(self, "house"):
            self.house.close()
        if self._importer is not None:
            self._importer.close()
        if context is not None:
            context.close()

    async def _reap(self, memory: SharedMemory, disk: Disk) -> None:
        """Remove what dead processes left; housekeeping, that nobody waits for."""
        while True:
            for transport in (memory, disk):
                with contextlib.suppress(Exception):
                    await in_thread(transport.reap)
            await asyncio.sleep(_REAP_EVERY)


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
