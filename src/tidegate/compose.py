"""
Configuration → running parts. The only file that knows which adapter stands behind which port.

Heavy parts (DuckDB, Delta, FastAPI, the price catalogue) are imported where they are made, so that a command or a
process pays only for what it uses.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import secrets
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from tidegate import config as configuration
from tidegate.config import Config, Project, Provider
from tidegate.core.address import from_environment, is_loopback
from tidegate.core.errors import BadInput, nearest
from tidegate.core.ids import uuid7
from tidegate.lifeline import until_told_to_stop
from tidegate.ports import BatchCaller, Caller, Clock
from tidegate.prompts.registry import Registry
from tidegate.system import SystemClock, SystemRandom

if TYPE_CHECKING:
    from tidegate.core.budgets import BudgetState
    from tidegate.core.keys import KeyRing
    from tidegate.gateway.caller import HttpCaller
    from tidegate.gateway.pipeline import Services
    from tidegate.prompts.remote import RemoteRegistry
    from tidegate.prompts.snapshot_file import SnapshotFile
    from tidegate.stores.meter import Meter
    from tidegate.telemetry.queries import CallLog
    from tidegate.telemetry.remote import RemoteCallLog
    from tidegate.telemetry.running import RunningCalls
    from tidegate.telemetry.spool import SpoolWriter
    from tidegate.upstream.dial import Network
    from tidegate.upstream.lint import Serving

log = logging.getLogger("tidegate")
DRAIN_S = 30.0
GATEWAY_BUSY_S = 1.0
"""A gateway only reads the control store, and has its last snapshot: it need not wait long."""
MAX_OPEN_FILES = 65_536
ADDRESS_IN_USE = "{section}: port {port} on {host} is in use. Stop what listens there, or set {section}.port in {file}."


def project(config: Path | None = None) -> Project:
    """
    The project of `--config`, else of the folder the command is run in; on the server of TIDEGATE_URL when it is set.

    Raises: BadInput, InvalidFile.
    """
    server = from_environment(os.environ)
    if server is None:
        return own_project(config)
    return configuration.find_for(server, Path.cwd(), config)


def own_project(config: Path | None = None) -> Project:
    """As `project`, whatever the environment says: what is served is a folder of this machine."""
    return configuration.find(Path.cwd(), config)


def registry(project: Project) -> Registry | RemoteRegistry:
    """The registry that commands use: the server's, or else that of this folder. Raises BadInput, Unusable."""
    if project.server is None:
        return own_registry(project)
    from tidegate.prompts.remote import RemoteRegistry
    from tidegate.upstream.server import Server

    return RemoteRegistry(Server(project.server))


def own_registry(project: Project, *, lazy: bool = False, busy_s: float | None = None) -> Registry:
    """
    The registry of a project, its store made and migrated; a `lazy` one at its first use, so that a process can start
    without it. `busy_s`: how long a transaction waits for its turn. Raises BadInput, Unusable.
    """
    from tidegate.stores.control import BUSY_S, open_control
    from tidegate.upstream.credentials import resolve

    url = project.config.control.url
    store = open_control(
        project.control if url is None else resolve(url.get_secret_value(), "control.url"),
        project=project.config.project,
        busy_s=BUSY_S if busy_s is None else busy_s,
        lazy=lazy,
        # Where a gateway has served before, a file that is missing was moved away: an empty one must not replace it.
        make=not (lazy and project.snapshot.exists()),
    )
    gate = project.config.gate
    return Registry(store, SystemClock(), SystemRandom(), protects=gate.protects, second_approver=gate.second_approver)


def serving(project: Project, registry: Registry | RemoteRegistry) -> Serving:
    """Which routes and providers calls through `caller` find. Raises as RemoteRegistry does."""
    return project.config if project.server is None or isinstance(registry, Registry) else registry.serving


def call_log(project: Project) -> CallLog | RemoteCallLog:
    """The records that commands read: the server's, or else those of this folder. Raises BadInput."""
    if project.server is None:
        return own_call_log(project)
    from tidegate.telemetry.remote import RemoteCallLog
    from tidegate.upstream.server import Server

    return RemoteCallLog(Server(project.server))


def own_call_log(project: Project) -> CallLog:
    """The records of a project's calls, to be read. Raises BadInput."""
    from tidegate.telemetry.queries import CallLog

    if project.state.is_file():
        raise BadInput(f"{project.state} is a file; tidegate keeps its state in a folder of that name.")
    return CallLog(spool=project.spool, lake=project.lake)


@asynccontextmanager
async def services(
    project: Project,
    registry: Registry,
    *,
    internal_key: str,
    snapshot: SnapshotFile | None = None,
    limited: bool = True,
) -> AsyncIterator[Services]:
    """
    All that the pipeline needs, with its owner tasks running until the block ends.

    `limited`: limits and budgets apply; only one process of a folder may keep budgets.
    """
    from tidegate.core.retries import RetryBudget
    from tidegate.gateway.attempt import Attempts
    from tidegate.gateway.auth import Keys
    from tidegate.gateway.lookup import Lookup
    from tidegate.gateway.outages import Outages
    from tidegate.gateway.pipeline import Services
    from tidegate.prompts.live import LivePrompts
    from tidegate.stores.memory import MemoryAnswers
    from tidegate.telemetry.running import RUNNING, RunningCalls
    from tidegate.telemetry.spool import SpoolWriter
    from tidegate.upstream.http1 import Pool
    from tidegate.upstream.prices import PriceList
    from tidegate.upstream.proxy import Proxies
    from tidegate.upstream.targets import Targets

    config = project.config
    clock, random = SystemClock(), SystemRandom()
    inventors = {name: provider.dialect for name, provider in config.providers.items() if provider.native}
    prices = PriceList(config.prices, inventors)
    targets = Targets(config, prices)
    if snapshot is not None:
        for provider in config.providers:
            prices.rates(provider, "")  # the catalogue takes 0.4 s to load, for which a gateway's calls should not wait
    prompts = LivePrompts(registry, clock, snapshot)
    await prompts.refresh()
    telemetry = config.telemetry
    writer_id = uuid7(clock.now_ns() // 1_000_000, random.bits(80))
    spool = SpoolWriter(
        project.spool, clock=clock, writer_id=writer_id, fsync_s=telemetry.fsync_s, segment_s=telemetry.segment_s
    )
    running = RunningCalls(project.spool / RUNNING, fsync_s=telemetry.fsync_s)
    kept = ExitStack()
    try:
        admission = await asyncio.to_thread(_admission, project, clock, spool, running, kept) if limited else None
    except BaseException:
        kept.close()
        raise
    for path, message in nobodys(config, prompts.keys()):
        log.warning("%s: %s", ".".join(path), message)
    pool = Pool(networks=_networks(project), proxies=Proxies.read(os.environ))
    attempts = Attempts(pool, RetryBudget(), clock, random, Outages(clock) if snapshot is not None else None)
    answers = MemoryAnswers(max_bytes=config.caches.max_bytes, clock=clock)
    owners = [asyncio.create_task(each.run()) for each in (prompts, spool, running)]
    try:
        yield Services(
            clock=clock,
            random=random,
            spool=spool,
            attempts=attempts,
            lookup=Lookup(answers, attempts, clock, secret=secrets.token_bytes(32)),
            targets=targets,
            prompts=prompts,
            keys=Keys(internal_key, prompts.keys, loopback=is_loopback(config.gateway.host)),
            project=config.project,
            content_sample=telemetry.content_sample,
            admission=admission,
            unbounded_output_tokens=config.budgets.unbounded_output_tokens,
        )
    finally:
        for owner in owners:
            owner.cancel()
        await asyncio.gather(*owners, return_exceptions=True)
        await pool.close()
        spool.close()
        running.close()
        kept.close()


def _admission(
    project: Project, clock: Clock, spool: SpoolWriter, running: RunningCalls, kept: ExitStack
) -> Meter | None:
    """Limits, and budgets as the last process left them; None where there are none. Raises BadInput, Unusable."""
    from tidegate.stores.meter import Meter
    from tidegate.telemetry import spent

    limits, budgets, zone = project.config.limits, project.config.budgets, ZoneInfo(project.config.timezone)
    if not budgets.given:
        return Meter(limits, budgets, zone=zone, clock=clock) if limits.given else None
    kept.enter_context(spent.only_one(project.spool))
    restored = spent.restore(project.spool, zone)
    spent.close_lost(restored, spool, zone)
    running.over += restored.over
    meter = Meter(limits, budgets, zone=zone, clock=clock, spent=restored.spent, running=running)

    def note() -> Callable[[], bool]:
        checkpoint = spent.Checkpoint(spool.place, meter.spent(), list(running.over), restored.read)
        return lambda: spent.write_checkpoint(project.spool, checkpoint, running)

    if note()():
        running.restart()
        spent.forget_orphans(project.spool, restored.read)
    spool.before_seal = note
    return meter


def nobodys(config: Config, ring: KeyRing) -> Iterator[tuple[tuple[str, ...], str]]:
    """
    Limits and budgets of keys that nobody has, by their path, and what to say: they cap nothing.

    The keys may be made later, so it is no error; where there are none at all, they are kept elsewhere.
    """
    for section, scopes in (("limits", config.limits), ("budgets", config.budgets)):
        for name in [] if ring.empty else sorted(scopes.keys.keys() - ring.names):
            yield (section, "keys", name), f"no key has this name.{nearest(name, ring.names)}"


def _networks(project: Project) -> dict[str, Network]:
    from tidegate.upstream.dial import Network

    def network(provider: Provider) -> Network:
        ca_file, cert, key = (None if name is None else project.root / name for name in provider.network[:3])
        return Network(ca_file, cert, key, provider.max_connections)

    providers = project.config.providers.values()
    return {provider.origin: network(provider) for provider in providers if any(provider.network)}


@asynccontextmanager
async def caller(project: Project, registry: Registry | RemoteRegistry) -> AsyncIterator[Caller]:
    """
    Makes calls: through the server's gateway, or the one that serves this folder, or in this process.

    Raises: Unusable, Unauthenticated when the server's gateway can not be used.
    """
    from tidegate.gateway.caller import InProcessCaller
    from tidegate.gateway.claim import Claim, running_gateway

    if not isinstance(registry, Registry):
        async with _through(registry.gateway, registry.key) as remote:
            await remote.check()
            yield remote
    elif (address := running_gateway(project.lock)) is not None:
        async with _through(address.url, address.internal_key) as nearby:
            yield nearby
    else:
        async with services(project, registry, internal_key=Claim(project.lock).internal_key) as parts:
            yield InProcessCaller(parts)


@asynccontextmanager
async def batches(project: Project, registry: Registry | RemoteRegistry) -> AsyncIterator[BatchCaller]:
    """
    Makes calls through the batch APIs of this folder's own providers, whether a gateway runs or not.

    Raises: BadInput where the providers are a server's: it keeps their keys.
    """
    from tidegate.gateway.batch import PipelineBatches
    from tidegate.gateway.claim import Claim
    from tidegate.upstream.http1 import Pool
    from tidegate.upstream.proxy import Proxies

    if not isinstance(registry, Registry):
        raise BadInput(
            "--batch talks to the provider itself, and the server keeps the provider's key. Leave out --batch, or run "
            "the command where tidegate.yaml names the provider, without TIDEGATE_URL."
        )
    pool = Pool(networks=_networks(project), proxies=Proxies.read(os.environ))
    try:
        key = Claim(project.lock).internal_key
        async with services(project, registry, internal_key=key, limited=False) as parts:
            yield PipelineBatches(parts, pool)
    finally:
        await pool.close()


async def purge_cache(project: Project, prompt: str | None, version: str | None) -> int:
    """
    Has the running gateway forget the answers that it gives again; returns how many.

    Raises: BadInput when none runs, or the prompt or version is not known there; Unusable.
    """
    from tidegate.gateway.claim import running_gateway

    with closing(registry(project)) as found:
        if not isinstance(found, Registry):
            url, key = found.gateway, found.key
        elif (address := running_gateway(project.lock)) is not None:
            url, key = address.url, address.internal_key
        else:
            raise BadInput("no gateway runs here: what it keeps to give again is in its memory, and went with it.")
    async with _through(url, key) as gateway:
        return await gateway.purge(prompt, version)


async def budgets(project: Project) -> list[BudgetState]:
    """
    Every budget as the running gateway has it; where none runs, as the last one left them.

    Raises: BadInput, Unusable.
    """
    from tidegate.gateway.claim import running_gateway
    from tidegate.stores.meter import Meter
    from tidegate.telemetry.spent import restore

    if project.server is not None:
        with closing(registry(project)) as found:
            if not isinstance(found, Registry):
                async with _through(found.gateway, found.key) as gateway:
                    return await gateway.budgets()
    if (address := running_gateway(project.lock)) is not None:
        async with _through(address.url, address.internal_key) as gateway:
            return await gateway.budgets()
    config = project.config
    zone = ZoneInfo(config.timezone)
    spent = restore(project.spool, zone).spent
    return Meter(config.limits, config.budgets, zone=zone, clock=SystemClock(), spent=spent).budgets()


@asynccontextmanager
async def _through(url: str, key: str | None) -> AsyncIterator[HttpCaller]:
    from tidegate.gateway.caller import HttpCaller
    from tidegate.upstream.http1 import Pool

    pool = Pool()
    try:
        yield HttpCaller(pool, SystemClock(), url=url, key=key)
    finally:
        await pool.close()


async def run_gateway(project: Project) -> None:
    """The gateway process, until it is told to stop; then it drains. Raises BadInput when the port is taken."""
    from tidegate.gateway.auth import check_bind
    from tidegate.gateway.claim import Claim
    from tidegate.gateway.edge import Edge
    from tidegate.gateway.refusal import refusal_body
    from tidegate.gateway.routes import Routes
    from tidegate.prompts.snapshot_file import SnapshotFile

    listen = project.config.gateway
    claim = Claim(project.lock)
    claim.take()
    try:
        store = own_registry(project, lazy=True, busy_s=GATEWAY_BUSY_S)
        snapshot = SnapshotFile(project.snapshot, project.config.project)
        async with services(project, store, internal_key=claim.internal_key, snapshot=snapshot) as parts:
            check_bind(listen.host, "gateway", parts.keys.ring())
            gc.freeze()  # what is loaded now stays: going through it in every full collection stops calls for 50 ms
            edge = Edge(Routes(parts), max_body_bytes=listen.max_body_bytes, error_body=refusal_body)
            port = await _bind(edge.start, project, "gateway", listen.host, listen.port)
            claim.publish(f"http://{_near(listen.host)}:{port}")
            await until_told_to_stop()
            await edge.close(DRAIN_S)
    finally:
        claim.release()


async def run_console(project: Project) -> None:
    """The console process, until it is told to stop."""
    from granian.constants import Interfaces
    from granian.server.embed import Server

    from tidegate.console.app import create_app

    listen = project.config.console
    await _bind(_probe, project, "console", listen.host, listen.port)
    app = create_app(registry=own_registry(project, lazy=True), call_log=own_call_log(project), project=project)
    server = Server(
        app, address=listen.host, port=listen.port, interface=Interfaces.ASGI, log_enabled=False, websockets=False
    )
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(until_told_to_stop())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    server.stop()
    stopping.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(serving, stopping)


async def run_recorder(project: Project) -> None:
    """The recorder process, until it is told to stop; it finishes the batch it is in."""
    from tidegate.telemetry.recorder import Recorder

    stop = threading.Event()
    recorder = Recorder(project.spool, project.lake)
    working = asyncio.create_task(asyncio.to_thread(recorder.run, stop))
    stopping = asyncio.create_task(until_told_to_stop())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    stopping.cancel()
    await working


PROCESSES: dict[str, Callable[[Project], Awaitable[None]]] = {
    "gateway": run_gateway,
    "recorder": run_recorder,
    "console": run_console,
}


def run_process(name: str, project: Project) -> None:
    """Runs one of the three processes in this one, on uvloop."""
    import resource

    import uvloop

    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr
    )
    # One file descriptor per connection: the soft limit of many systems is 1,024, the hard one far above.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    uvloop.run(_run(PROCESSES[name], project))


async def _run(process: Callable[[Project], Awaitable[None]], project: Project) -> None:
    await process(project)


async def _bind(
    start: Callable[[str, int], Awaitable[int]], project: Project, section: str, host: str, port: int
) -> int:
    try:
        return await start(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BadInput(ADDRESS_IN_USE.format(section=section, port=port, host=host, file=project.file)) from error
        raise BadInput(f"{section}: can not listen on {host}:{port}: {error.strerror or error}.") from error


def _near(host: str) -> str:
    """What commands on this machine call an address that is listened on, in a URL."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - not bound here
    return f"[{near}]" if ":" in near else near


async def _probe(host: str, port: int) -> int:
    """Granian reports a taken port in its log only, so it is tried first."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port)
    server.close()
    await server.wait_closed()
    return port
