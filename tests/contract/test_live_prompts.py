"""LivePrompts, the gateway's PromptSource: it follows the control store, outlives it, and starts without it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.postgres import Postgres
from tidegate.core.artifact import Artifact, Message, canonical, digest
from tidegate.core.errors import Unusable
from tidegate.core.instant import iso_utc
from tidegate.core.ledger import Freshness, Head, Served, Snapshot
from tidegate.fakes import FixedClock, FixedRandom
from tidegate.prompts import live as live_module
from tidegate.prompts.live import LivePrompts
from tidegate.prompts.registry import Registry
from tidegate.prompts.snapshot_file import SnapshotFile
from tidegate.stores.control import open_control
from tidegate.system import SystemClock, SystemRandom

P = "support/answer"
ENVIRONMENT = "staging"


def artifact(text: str) -> Artifact:
    return Artifact(messages=(Message("user", text),), model="a/b")


def open_registry(control: Path | str, *, make: bool = True) -> Registry:
    store = open_control(control, busy_s=0.2, lazy=True, make=make)
    return Registry(store, SystemClock(), SystemRandom(), protects=[])


def deploy(control: Path | str, text: str) -> int:
    """As another process would."""
    with closing(open_registry(control)) as registry:
        return registry.deploy(P, registry.register(P, artifact(text)).name, ENVIRONMENT, who="me").to_version


@pytest.fixture
def file(tmp_path: Path) -> SnapshotFile:
    return SnapshotFile(tmp_path / "snapshot.json", "default")


@asynccontextmanager
async def following(
    control: Path | str, file: SnapshotFile | None = None, **options: bool
) -> AsyncIterator[LivePrompts]:
    registry = open_registry(control)
    prompts = LivePrompts(registry, SystemClock(), file)
    with closing(registry):
        await prompts.refresh()
        run = asyncio.create_task(prompts.run())
        try:
            yield prompts
        finally:
            began = time.monotonic()
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            assert time.monotonic() - began < 1


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> float:
    """The seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s
        await asyncio.sleep(0.005)
    return time.monotonic() - began


def live(prompts: LivePrompts) -> int | None:
    served = prompts.live(P, ENVIRONMENT)
    return served.version if served else None


async def test_a_deploy_and_a_rollback_are_taken_up_within_a_second(control: Path | str) -> None:
    deploy(control, "a")
    async with following(control) as prompts:
        assert live(prompts) == 1
        await asyncio.to_thread(deploy, control, "b")
        assert await until(lambda: live(prompts) == 2) < 0.5
        with closing(open_registry(control)) as registry:
            await asyncio.to_thread(registry.rollback, P, ENVIRONMENT, who="me")
            assert await until(lambda: live(prompts) == 1) < 0.5
        assert prompts.names() == [P]
        assert prompts.freshness().following


async def test_a_listener_that_hears_nothing_costs_half_a_second(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler that forgets LISTEN, or while the listener's connection is down."""
    control = postgres.database()
    monkeypatch.setattr("tidegate.stores.postgres.Listener._connected", lambda listener: None)
    deploy(control, "a")
    async with following(control) as prompts:
        await asyncio.to_thread(deploy, control, "b")
        assert await until(lambda: live(prompts) == 2) < 1


async def test_the_snapshot_is_kept_in_a_file_that_only_its_owner_reads(
    control: Path | str, file: SnapshotFile
) -> None:
    began = iso_utc(time.time_ns())
    deploy(control, "a")
    async with following(control, file) as prompts:
        await until(file.path.exists)
        first = file.path.read_bytes()
        await asyncio.to_thread(deploy, control, "b")
        await until(lambda: live(prompts) == 2 and file.path.read_bytes() != first)
        read = file.read()
        assert read is not None
        snapshot, read_at = read
        with closing(open_registry(control)) as registry:
            assert snapshot.live == registry.snapshot().live
            assert snapshot.head == registry.snapshot().head
        assert snapshot.texts.keys() == {digest(artifact("b"))}
        assert began <= read_at <= prompts.freshness().read_at  # it may have looked again since
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [entry.name for entry in file.path.parent.glob("snapshot*")] == ["snapshot.json"]
    json.loads(file.path.read_text())


async def test_without_the_store_the_last_snapshot_is_served_and_said_so_once(
    tmp_path: Path, file: SnapshotFile, caplog: pytest.LogCaptureFixture
) -> None:
    control, away = tmp_path / "control.db", tmp_path / "away.db"
    deploy(control, "a")
    async with following(control, file) as prompts:
        control.rename(away)
        await until(lambda: not prompts.freshness().following)
        await asyncio.sleep(0.6)
        assert live(prompts) == 1
        assert (await prompts.find(P, "v1")).version == 1  # it is live, so it is in memory
        with pytest.raises(Unusable, match="the control store is gone"):
            await prompts.find(P, "v2")
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "serving the last snapshot" in caplog.text
        assert "control.db: the control store is gone" in caplog.text
        deploy(away, "b")
        away.rename(control)
        assert await until(lambda: live(prompts) == 2) < 2
        assert prompts.freshness().following
    assert len(caplog.records) == 1


class Hanging(Registry):
    """Of a store that takes a question and does not answer."""

    def __init__(self, control: Path) -> None:
        super().__init__(open_control(control), SystemClock(), SystemRandom(), protects=[])
        self.asked = 0
        self.answers = threading.Event()

    def served(self, prompt: str, selector: str) -> Served:
        self.asked += 1
        self.answers.wait(30)
        return super().served(prompt, selector)


async def test_a_store_that_hangs_holds_up_only_who_asks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait for it are not those that large requests and fsync go through, and nobody waits for long."""
    monkeypatch.setattr(live_module, "FIND_S", 0.3)
    control = tmp_path / "control.db"
    deploy(control, "one")
    with closing(Hanging(control)) as registry:
        prompts = LivePrompts(registry, SystemClock())
        await prompts.refresh()
        began = time.monotonic()
        asking = [asyncio.create_task(prompts.find(P, f"v{number}")) for number in range(2, 42)]
        await until(lambda: registry.asked > 0)
        await asyncio.wait_for(asyncio.to_thread(int), 0.2)
        said = await asyncio.gather(*asking, return_exceptions=True)
        assert {str(error) for error in said} == {"the control store has not answered for 0.3 s. Call again later."}
        assert (await prompts.find(P, "v1")).version == 1  # it is live, so it is in memory
        assert time.monotonic() - began < 2
        assert registry.asked <= live_module.FINDERS
        registry.answers.set()
        deploy(control, "two")
        assert (await prompts.find(P, "v2")).version == 2
        prompts.close()


async def test_a_locked_file_is_outlived_too(
    tmp_path: Path, file: SnapshotFile, caplog: pytest.LogCaptureFixture
) -> None:
    control = tmp_path / "control.db"
    deploy(control, "a")
    async with following(control, file) as prompts:
        with closing(sqlite3.connect(control, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await until(lambda: not prompts.freshness().following)
            assert live(prompts) == 1
            other.execute("ROLLBACK")
        await until(lambda: prompts.freshness().following)
        deploy(control, "b")
        await until(lambda: live(prompts) == 2)
    assert len(caplog.records) == 1


@pytest.fixture
def own_postgres(postgres: Postgres) -> Iterator[Postgres]:
    """The server of this process, started again in the end."""
    yield postgres
    if postgres.stopped:
        postgres.start()


async def test_a_postgres_that_stops_is_outlived_and_followed_again(
    own_postgres: Postgres, file: SnapshotFile, caplog: pytest.LogCaptureFixture
) -> None:
    control = own_postgres.database()
    deploy(control, "a")
    async with following(control, file) as prompts:
        await asyncio.to_thread(own_postgres.stop)
        await until(lambda: not prompts.freshness().following)
        await asyncio.sleep(0.5)
        assert live(prompts) == 1
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "s3cret" not in caplog.text
        other = SnapshotFile(file.path.with_name("other.json"), "default")
        shutil.copy(file.path, other.path)
        async with following(control, other) as second:  # a gateway that starts meanwhile
            assert live(second) == 1
            assert second.freshness().source == "file"
            assert re.search(r"serving the snapshot of \S+Z \(0:00:0\d old\): postgresql://127.0.0.1:\d+/", caplog.text)
            assert "Connection refused" in caplog.text
            await asyncio.to_thread(own_postgres.start)
            await asyncio.to_thread(deploy, control, "b")
            assert await until(lambda: live(prompts) == live(second) == 2) < 2
            assert second.freshness().source == "store"
            await asyncio.to_thread(deploy, control, "c")  # and the listener is back
            assert await until(lambda: live(prompts) == live(second) == 3) < 1
    assert len(caplog.records) == 2


async def test_a_start_without_the_store_and_without_a_file_is_its_error(tmp_path: Path, file: SnapshotFile) -> None:
    prompts = LivePrompts(open_registry(tmp_path / "control.db", make=False), SystemClock(), file)
    with pytest.raises(Unusable, match="the control store is gone"):
        await prompts.refresh()


def write(file: SnapshotFile, edit: Callable[[bytes], bytes]) -> None:
    made = artifact("a")
    snapshot = Snapshot(
        7, {(P, ENVIRONMENT): Served(P, 1, digest(made), made)}, Head(3, "ab"), {digest(made): canonical(made).decode()}
    )
    file.write(snapshot, "2026-03-01T12:00:00.000000Z")
    file.path.write_bytes(edit(file.path.read_bytes()))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda raw: raw[:-10], "is damaged"),
        (lambda raw: b"", "is damaged"),
        (lambda raw: b"\xff" + raw, "is damaged"),
        (lambda raw: raw.replace(b'"content":"a"', b'"content":"b"'), "is not what its digest says"),
        (lambda raw: raw.replace(b'"format":3', b'"format":2'), "has format 2, this tidegate knows 3"),
        (lambda raw: raw.replace(b'"project":"default"', b'"project":"other"'), "is of the project 'other'"),
        (lambda raw: re.sub(rb'"artifacts": \{.*\}\}', b'"artifacts": {}}', raw, flags=re.S), "is missing"),
        (lambda raw: b"null", "is damaged"),
        (lambda raw: raw.replace(b"2026-03-01T", b"yesterday"), "is damaged"),
    ],
)
async def test_a_snapshot_file_that_can_not_be_trusted_is_ignored_with_a_warning(
    tmp_path: Path,
    file: SnapshotFile,
    caplog: pytest.LogCaptureFixture,
    edit: Callable[[bytes], bytes],
    words: str,
) -> None:
    write(file, edit)
    prompts = LivePrompts(open_registry(tmp_path / "control.db", make=False), SystemClock(), file)
    with pytest.raises(Unusable):
        await prompts.refresh()
    assert caplog.text.startswith("WARNING")
    assert f"the last snapshot can not be used: {file.path}" in caplog.text
    assert words in caplog.text


async def test_a_whole_snapshot_file_says_its_age(
    tmp_path: Path, file: SnapshotFile, caplog: pytest.LogCaptureFixture
) -> None:
    write(file, lambda raw: raw)
    clock = FixedClock()
    clock.move(3_600 + 125)
    prompts = LivePrompts(open_registry(tmp_path / "control.db", make=False), clock, file)
    await prompts.refresh()
    assert prompts.live(P, ENVIRONMENT) == Served(P, 1, digest(artifact("a")), artifact("a"))
    assert prompts.freshness() == Freshness(False, "file", "2026-03-01T12:00:00.000000Z")
    assert "serving the snapshot of 2026-03-01T12:00:00.000000Z (1:02:05 old)" in caplog.text


async def test_a_file_that_can_not_be_written_does_not_stop_the_following(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    control = tmp_path / "control.db"
    deploy(control, "a")
    async with following(control, SnapshotFile(tmp_path / "nowhere" / "snapshot.json", "default")) as prompts:
        await asyncio.to_thread(deploy, control, "b")
        await until(lambda: live(prompts) == 2)
    assert "could not start from the last snapshot" in caplog.text


async def test_another_store_in_the_place_of_the_first_is_followed_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    control, backup = tmp_path / "control.db", tmp_path / "backup.db"
    deploy(control, "a")
    for text in ("x", "y", "z"):
        deploy(backup, text)
    async with following(control) as prompts:
        backup.replace(control)
        await until(lambda: live(prompts) == 3)
    assert "another store, or one put back from a backup" in caplog.text


async def test_a_look_never_blocks_the_loop(control: Path | str, file: SnapshotFile) -> None:
    """The registry and the file are touched by the follower's thread only."""
    touched: set[str] = set()

    class Watched(Registry):
        def snapshot(self, before: Snapshot | None = None) -> Snapshot:
            touched.add(threading.current_thread().name)
            return super().snapshot(before)

    deploy(control, "a")
    with closing(Watched(open_control(control), FixedClock(), FixedRandom(), protects=[])) as registry:
        prompts = LivePrompts(registry, SystemClock(), file)
        await prompts.refresh()
        touched.clear()
        run = asyncio.create_task(prompts.run())
        await asyncio.to_thread(deploy, control, "b")
        await until(lambda: live(prompts) == 2)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert touched == {"tidegate-prompts"}
