"""The keys of a project over a real control store: made, revoked, followed by a gateway, and never changed unseen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.conftest import Sql
from tidegate.core.artifact import Artifact, Message
from tidegate.core.errors import BadInput, NotFound, Unusable
from tidegate.core.keys import Wanted, fingerprint
from tidegate.fakes import FixedClock, FixedRandom
from tidegate.prompts.live import LivePrompts
from tidegate.prompts.registry import Registry
from tidegate.prompts.snapshot_file import SnapshotFile
from tidegate.stores.control import open_control

CI = Wanted("ci", "deployer", prompts=("support/*",), environments=("staging",), expires_at="2026-06-01T00:00:00Z")


@pytest.fixture
def registry(control: Path | str) -> Iterator[Registry]:
    with closing(Registry(open_control(control), FixedClock(), FixedRandom(), protects=[])) as made:
        yield made


def test_a_key_is_made_shown_once_and_found_again(registry: Registry) -> None:
    token, key = registry.keys.create(CI, who="ada")
    assert (key.sha256, key.created_by, key.created_at[:10]) == (fingerprint(token), "ada", "2026-03-01")
    assert registry.keys.all() == (key,)
    assert registry.keys.ring().owner(token) == key
    access = registry.keys.ring().access(key.prefix, registry.keys.now_ns())
    assert access is not None
    assert (access.name, access.prompts, access.environment) == ("ci", ("support/*",), "staging")
    assert token not in repr(registry.keys.create(CI, who="ada"))


def test_every_key_is_another_one(registry: Registry) -> None:
    tokens = {registry.keys.create(CI, who="ada").token for _ in range(20)}
    assert len(tokens) == len({token[3:11] for token in tokens}) == 20


def test_a_revoked_key_stays_in_the_list_and_opens_nothing(registry: Registry) -> None:
    token, key = registry.keys.create(CI, who="ada")
    revoked = registry.keys.revoke("ci", who="sam")
    assert (revoked.prefix, revoked.revoked_by) == (key.prefix, "sam")
    assert registry.keys.revoke(key.prefix, who="else") == revoked
    ring = registry.keys.ring()
    assert ring.owner(token) == revoked
    assert ring.access(key.prefix, 0) is None
    assert not ring.empty


def test_a_key_is_revoked_by_prefix_when_its_name_is_anothers_too(registry: Registry) -> None:
    (token, old), (_, new) = registry.keys.create(CI, who="ada"), registry.keys.create(CI, who="ada")
    with pytest.raises(BadInput, match=f"2 keys have the name 'ci': {old.prefix} .*{new.prefix}"):
        registry.keys.revoke("ci", who="ada")
    assert registry.keys.revoke(token, who="ada").prefix == old.prefix
    assert registry.keys.revoke("ci", who="ada").prefix == new.prefix


def test_an_unknown_name_gives_the_nearest_and_never_shows_a_key(registry: Registry) -> None:
    token, _ = registry.keys.create(CI, who="ada")
    with pytest.raises(NotFound, match=r"'cii'\. Did you mean 'ci'\?"):
        registry.keys.revoke("cii", who="ada")
    with pytest.raises(NotFound) as error:
        registry.keys.revoke(token.replace(token[3:11], "x" * 8), who="ada")
    assert token[12:] not in str(error.value)


def test_a_key_that_has_expired_already_is_not_made(registry: Registry) -> None:
    with pytest.raises(BadInput, match="would never be accepted"):
        registry.keys.create(Wanted("ci", "viewer", expires_at="2026-02-01T00:00:00.000000Z"), who="ada")


def test_a_project_does_not_know_anothers_keys(control: Path | str) -> None:
    mine, theirs = (
        Registry(open_control(control, project=name), FixedClock(), FixedRandom(count=count), protects=[])
        for name, count in (("mine", 0), ("theirs", 100))
    )
    with closing(mine), closing(theirs):
        token, _ = mine.keys.create(CI, who="ada")
        assert theirs.keys.ring().empty
        assert theirs.keys.ring().owner(token) is None


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE key_lines SET role = 'admin' WHERE role = 'deployer'",
        "UPDATE key_lines SET expires_at = NULL WHERE role = 'deployer'",
        "UPDATE key_lines SET who = 'ada' WHERE action = 'revoke'",
        "DELETE FROM key_lines WHERE action = 'create' AND role = 'viewer'",
    ],
)
def test_an_edit_of_a_line_about_keys_is_found(registry: Registry, raw: Sql, edit: str) -> None:
    registry.keys.create(Wanted("eve", "viewer"), who="ada")
    registry.keys.create(CI, who="ada")
    registry.keys.revoke("eve", who="sam")
    assert registry.verify() == []
    raw(edit)
    assert [fault.message for fault in registry.verify() if "key line" in fault.message]


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE key_lines SET role = 'root'",
        "UPDATE key_lines SET prompts = '{'",
        "UPDATE key_lines SET sha256 = 'xyz'",
    ],
)
def test_a_damaged_line_opens_nothing(registry: Registry, raw: Sql, edit: str) -> None:
    registry.keys.create(CI, who="ada")
    raw(edit)
    with pytest.raises(Unusable, match="line 1 about keys is damaged"):
        registry.keys.ring()


async def test_a_gateway_follows_the_keys_and_starts_with_them_without_its_store(
    registry: Registry, tmp_path: Path
) -> None:
    file = SnapshotFile(tmp_path / "snapshot.json", "default")
    prompts = LivePrompts(registry, FixedClock(), file)
    await prompts.refresh()
    assert prompts.keys().empty
    run = asyncio.create_task(prompts.run())

    def written() -> int:
        return len(json.loads(file.path.read_text())["keys"]) if file.path.exists() else 0

    async def until(count: int) -> None:
        async with asyncio.timeout(5):
            while prompts.keys().empty or written() != count:  # noqa: ASYNC110 - it waits for a thread
                await asyncio.sleep(0.01)

    try:
        token, key = await asyncio.to_thread(registry.keys.create, CI, who="ada")
        await until(1)
        version = registry.register("p", Artifact(messages=(Message("user", "x"),), model="a/b"))
        registry.deploy("p", version.name, who="ada")
        await asyncio.to_thread(registry.keys.create, CI, who="ada")
        await until(2)
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert token not in file.path.read_text()
    nowhere = open_control(tmp_path / "no" / "control.db", lazy=True, make=False)
    with closing(Registry(nowhere, FixedClock(), FixedRandom(), protects=[])) as gone:
        again = LivePrompts(gone, FixedClock(), file)
        await again.refresh()
        assert not again.keys().empty
        assert again.keys().owner(token) == key
