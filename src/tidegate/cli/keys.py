"""`tidegate keys`: who may call, read, deploy: make keys, list them, take them back."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter
from rich.text import Text

from tidegate import compose
from tidegate.cli import table
from tidegate.cli.output import err, moment, out, print_json, visible, who
from tidegate.core.errors import BadInput
from tidegate.core.instant import iso_utc
from tidegate.core.keys import Key, Role, Wanted

_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([mhdw])\Z")
Names = Annotated[list[str] | None, Parameter(consume_multiple=True)]


def keys_(
    action: Literal["create", "list", "revoke"],
    name: str | None = None,
    /,
    *,
    role: Role | None = None,
    expires: str | None = None,
    prompts: Names = None,
    models: Names = None,
    environments: Names = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    Make a key, list all keys, or revoke one. Running gateways follow within a second.

    With the first key everything closes: calls and the console need one from then on, and may listen on other
    addresses than loopback. A key is shown once, when it is made; only its hash is kept.

    Roles: a viewer reads all of the project; a caller makes calls; an editor does both, and runs evals; a deployer
    also deploys, rolls back and approves; an admin also overrules the policy, and makes keys.

    For example:
      tidegate keys create shop --role caller --prompts 'support/*'
      tidegate keys create ci --role deployer --expires 90d
      tidegate keys list
      tidegate keys revoke ci

    Parameters
    ----------
    action
        What to do.
    name
        Who holds the key; the ledger and the records say so. To revoke: its name or its prefix.
    role
        What it may do.
    expires
        When it ends by itself, such as `90d` or `12h`; by default never.
    prompts
        The prompts it may call, register and move; `support/*` allows all that begin so, `*` every prompt. With this
        list it calls no other model.
    models
        The routes and models it may call; with this list it calls no other prompt.
    environments
        Where it may call prompts and move them; the first is where it calls them by default.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print the key, or the list of keys, as JSON.
    """
    options = {"role": role, "expires": expires, "prompts": prompts, "models": models, "environments": environments}
    given = [option for option, value in options.items() if value is not None]
    if action != "create" and given:
        raise BadInput(f"--{given[0]} belongs to `tidegate keys create`.")
    if action == "list" and name is not None:
        raise BadInput("`tidegate keys list` takes no name: it lists every key.")
    project = compose.project(config)
    zone = project.config.timezone
    with closing(compose.registry(project)) as registry:
        book = registry.keys
        if action == "list":
            _list(book.all(), zone, json=json)
            return
        if name is None:
            raise BadInput(f"`tidegate keys {action}` needs a name.")
        if action == "revoke":
            revoked = book.revoke(name, who=who())
            if json:
                print_json(shown(revoked))
            else:
                out.print(Text(f"{revoked.name} ({revoked.prefix}) is revoked since {moment(_end(revoked), zone)}."))
            return
        if role is None:
            raise BadInput("`tidegate keys create` needs --role: viewer, caller, editor, deployer or admin.")
        ends = None if expires is None else iso_utc(time.time_ns() + duration_s(expires) * 1_000_000_000)
        wanted = Wanted(name, role, _names(prompts), _names(models), _names(environments), ends)
        first = not book.all()
        token, key = book.create(wanted, who=who())
    if json:
        print_json({**shown(key), "key": token})
        return
    out.print(token)
    until = f", until {moment(key.expires_at, zone)}" if key.expires_at else ""
    err.print(Text(f"{key.name}: {key.role}{until}. This is the only time the key is shown.", "dim"))
    if first:
        err.print(Text("It is the first one: calls and the console need a key from now on.", "yellow"))


def duration_s(text: str) -> int:
    """`90d`, `12h`, `30m`, `2w` in seconds. Raises BadInput."""
    found = _DURATION.match(text)
    if not found:
        raise BadInput(f"--expires {text[:40]!r}: write a number and m, h, d or w, such as 90d.")
    return int(found[1]) * _UNITS[found[2]]


def shown(key: Key) -> dict[str, Any]:
    """A key as JSON: all but its hash."""
    values = msgspec.to_builtins(key)
    del values["sha256"]
    return {**values, "state": state(key)}


def state(key: Key) -> str:
    """`valid`, `expired` or `revoked`."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= iso_utc(time.time_ns()) else "valid"


def _names(given: list[str] | None) -> tuple[str, ...] | None:
    """`--prompts a b` and `--prompts a,b` are the same."""
    return None if given is None else tuple(name for item in given for name in item.split(","))


def _end(key: Key) -> str:
    return key.revoked_at or key.created_at


def _list(keys: Sequence[Key], zone: str, *, json: bool) -> None:
    if json:
        print_json([shown(key) for key in keys])
        return
    if not keys:
        out.print(Text("No keys: everybody on this machine may do everything. `tidegate keys create` makes the first."))
        return
    rows = [
        table.Row(
            (
                Text(key.name, "bold"),
                key.prefix,
                key.role,
                moment(key.created_at, zone)[:10],
                visible(key.created_by),
                f"{state(key)}{_until(key, zone)}",
            ),
            Text("; ".join(filter(None, (_only(key), _revoked(key, zone))))),
            "" if state(key) == "valid" else "dim",
        )
        for key in keys
    ]
    table.show(("name", "prefix", "role", "made", "by", "state"), rows)


def _until(key: Key, zone: str) -> str:
    return f" until {moment(key.expires_at, zone)[:10]}" if key.expires_at and state(key) == "valid" else ""


def _revoked(key: Key, zone: str) -> str:
    return f"revoked {moment(key.revoked_at, zone)} by {visible(key.revoked_by or '')}" if key.revoked_at else ""


def _only(key: Key) -> str:
    """What a key is limited to; empty for one that is not."""
    lists = {"prompts": key.prompts, "models": key.models, "in": key.environments}
    given = "; ".join(f"{name} {', '.join(names)}" for name, names in lists.items() if names)
    return f"only {given}" if given else ""
