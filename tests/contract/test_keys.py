"""The keys of a project over a real control store: made, revoked, followed by a gateway, and never changed unseen."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import Sql
from tidegate import compose
from tidegate.cli.keys import keys_
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


def test_who_made_a_key_is_kept_as_one_line(registry: Registry) -> None:
    """A name from the environment may hold anything: half a character, line ends, escapes."""
    created = registry.keys.create(CI, who="eve\x1b[31m\nada\udcff").key
    assert created.created_by == "eve [31m ada?"
    assert registry.keys.revoke("ci", who="a\nb").revoked_by == "a b"


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


# the command


class Shop:
    """A project folder, and `tidegate keys` run in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = folder / "tidegate.yaml"
        self.config.write_text("")
        self._capsys = capsys

    def keys(self, *arguments: str, **options: Any) -> tuple[str, str]:
        keys_(*arguments, config=self.config, **options)  # type: ignore[arg-type]
        return self._capsys.readouterr()

    def json(self, *arguments: str, **options: Any) -> Any:
        return json.loads(self.keys(*arguments, json=True, **options)[0])


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(tmp_path, capsys)


def test_a_key_is_the_only_thing_on_stdout_so_that_it_can_be_piped(shop: Shop) -> None:
    key, said = shop.keys("create", "ci", role="deployer", expires="90d")
    assert re.fullmatch(r"tg_[0-9a-z]{8}_[0-9A-Za-z]{43}\n", key)
    assert re.search(r"ci: deployer, until 20\d\d-\d\d-\d\d \d\d:\d\d\. This is the only time the key is shown\.", said)
    assert "It is the first one: calls and the console need a key from now on." in said
    assert "first one" not in shop.keys("create", "two", role="viewer")[1]
    listed = shop.json("list")
    assert [(one["name"], one["role"], one["state"]) for one in listed] == [
        ("ci", "deployer", "valid"),
        ("two", "viewer", "valid"),
    ]
    assert key.strip()[12:] not in json.dumps(listed)
    assert "sha256" not in listed[0]


def test_lists_are_written_in_either_way(shop: Shop) -> None:
    for number, prompts in enumerate((["a", "b"], ["a,b"])):
        made = shop.json("create", f"k{number}", role="caller", prompts=prompts, environments=["staging"])
        assert (made["prompts"], made["models"], made["environments"]) == (["a", "b"], None, ["staging"])
    assert shop.keys("list")[0].count("prompts a, b; in") == 2


def test_a_revoked_key_is_listed_as_such(shop: Shop) -> None:
    made = shop.json("create", "ci", role="caller")
    assert "ci (" in shop.keys("revoke", made["prefix"])[0]
    assert shop.json("list")[0]["state"] == "revoked"
    assert re.search(r"revoked \d{4}-\d\d-\d\d \d\d:\d\d by \S+", shop.keys("list")[0])


def test_without_keys_the_list_says_what_that_means(shop: Shop) -> None:
    assert "No keys: everybody on this machine may do everything." in shop.keys("list")[0]
    assert shop.json("list") == []


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("create",), {"role": "viewer"}, "`tidegate keys create` needs a name"),
        (("create", "x"), {}, "needs --role: viewer, caller, editor, deployer or admin"),
        (("create", "x"), {"role": "viewer", "expires": "soon"}, "--expires 'soon': write a number and m, h, d or w"),
        (("revoke",), {}, "`tidegate keys revoke` needs a name"),
        (("revoke", "x"), {"role": "viewer"}, "--role belongs to `tidegate keys create`"),
        (("list", "x"), {}, "takes no name"),
        (("list",), {"expires": "1d"}, "--expires belongs to `tidegate keys create`"),
    ],
)
def test_a_command_that_makes_no_sense_says_so(
    shop: Shop, arguments: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        shop.keys(*arguments, **options)
    assert shop.json("list") == []


def test_what_is_served_is_this_folder_whatever_the_environment_names(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_URL", "https://tidegate.example.com")
    assert compose.project(shop.config).server is not None
    assert compose.own_project(shop.config).server is None
    with closing(compose.own_registry(compose.own_project(shop.config))) as own:
        assert isinstance(own, Registry)
