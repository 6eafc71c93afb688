"""
Keys: who may do what, and how a key is told from every other text.

    tg_k3f9a2c1_4fGq…     the prefix finds the key and may be shown; the secret, 43 characters, carries 256 random bits

Only the sha256 of the whole text is kept: it can not be turned back, and shown instead of the key it opens nothing.
What happens to keys is a chain of lines, as in the ledger of deployments: nothing in it is ever changed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, get_args

import msgspec
import rfc8785

from tidegate.core.errors import BadInput, Forbidden, nearest

Role = Literal["viewer", "caller", "editor", "deployer", "admin"]
Right = Literal["call", "read", "evaluate", "move", "overrule", "keys"]
ROLES: tuple[Role, ...] = get_args(Role)
RIGHTS: Mapping[Role, frozenset[Right]] = {
    "viewer": frozenset({"read"}),
    "caller": frozenset({"call"}),
    "editor": frozenset({"call", "read", "evaluate"}),
    "deployer": frozenset({"call", "read", "evaluate", "move"}),
    "admin": frozenset(get_args(Right)),
}
"""
call      calls through the gateway
read      everything that is stored: prompts, ledger, runs, records with their content, SQL
evaluate  register versions, make calls of an eval, store runs
move      deploy, roll back, approve as the second person
overrule  deploy what the policy refuses, with a reason
keys      make, list and revoke keys
"""
MEANINGS: Mapping[Right, str] = {
    "call": "make calls",
    "read": "read what is stored here",
    "evaluate": "run evals and store what they find",
    "move": "deploy, roll back or approve",
    "overrule": "overrule the policy with --force",
    "keys": "make, list or revoke keys",
}

DEFAULT_ENVIRONMENT = "production"
ENTROPY_BYTES = 38
SECRET_BITS = 256
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PREFIX_DIGITS = 8
_SECRET_DIGITS = 43
_START, _MIDDLE = 3, 3 + _PREFIX_DIGITS
_NOTHING = bytes(32)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,63}\Z")
_PATTERN = re.compile(r"[\w./:@-]{0,199}\*?\Z", re.ASCII)

Names = tuple[str, ...]
"""Names that a list allows; one that ends in `*` allows all that begin so."""


class Key(msgspec.Struct, frozen=True):
    """A key as it is kept: everything but the key."""

    prefix: str
    name: str
    """Who holds it: the ledger and the records say so. Keys of one name are one person's, one program's."""
    role: Role
    sha256: str
    """Of the whole key, in hex."""
    created_at: str
    created_by: str
    prompts: Names | None = None
    models: Names | None = None
    environments: Names | None = None
    expires_at: str | None = None
    revoked_at: str | None = None
    revoked_by: str | None = None

    def __repr__(self) -> str:
        return f"Key({self.prefix}, {self.name}, {self.role})"


class MintedKey(NamedTuple):
    """A key that was just made: the only time its text is known."""

    token: str
    key: Key

    def __repr__(self) -> str:
        return f"MintedKey({self.key!r})"


class Access(msgspec.Struct, frozen=True):
    """
    What one who asks may do.

    Once one of the lists is given, only what they name may be called: a key with `prompts` alone calls no model by
    itself. `environments` limits calls and moves, `prompts` also what may be registered and moved. Neither limits what
    may be read.
    """

    rights: frozenset[Right] = RIGHTS["admin"]
    name: str = ""
    """The key's; empty where nobody was asked for one."""
    prefix: str = ""
    prompts: Names | None = None
    models: Names | None = None
    environments: Names | None = None

    @property
    def environment(self) -> str:
        """What a prompt is called in when the call does not say."""
        return self.environments[0] if self.environments else DEFAULT_ENVIRONMENT

    def may(self, right: Right) -> bool:
        """Whether it has this right."""
        return right in self.rights

    def require(self, right: Right) -> None:
        """Raises Forbidden without this right."""
        if right not in self.rights:
            *others, last = [role for role in ROLES if right in RIGHTS[role]]
            can = f"{', '.join(others)} or {last}" if others else last
            raise Forbidden(f"this key may not {MEANINGS[right]}; that takes the role {can}.")

    def may_call(self, *, prompt: str | None = None, model: str | None = None) -> bool:
        """Whether it may use this prompt, or this route or model."""
        if self.prompts is None and self.models is None:
            return True
        return _among(prompt, self.prompts) or _among(model, self.models)

    def require_prompt(self, prompt: str) -> None:
        """Raises Forbidden for a prompt that it may not use, whether there is one or not."""
        if not self.may_call(prompt=prompt):
            raise Forbidden(f"this key may not use the prompt {prompt[:200]!r}.", param="model")

    def require_model(self, model: str) -> None:
        """Raises Forbidden for a route or a model that it may not call, whether there is one or not."""
        if not self.may_call(model=model):
            # Whether there is such a prompt is not told, only how one would be called.
            meant = self.may_call(prompt=model.partition("@")[0])
            hint = f" If that is a prompt, call it as 'prompt:{model[:200]}'." if meant else ""
            raise Forbidden(f"this key may not use the model {model[:200]!r}.{hint}", param="model")

    def require_environment(self, environment: str) -> None:
        """Raises Forbidden for another environment than its own; a version or a digest is none."""
        if self.environments is not None and environment not in self.environments:
            raise Forbidden(
                f"this key may not use {environment[:80]!r}, only what is live in {', '.join(self.environments)}.",
                param="model",
            )


def _among(name: str | None, allowed: Names | None) -> bool:
    return name is not None and any(
        name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])) for pattern in allowed or ()
    )


OPEN = Access()
"""Where there are no keys, everybody may do everything; so may tidegate itself."""


class _Held(msgspec.Struct, frozen=True):
    key: Key
    sha256: bytes
    ends_ns: int
    """Nanoseconds since 1970 from when on it is not accepted; 0 when it was revoked."""
    access: Access


class KeyRing:
    """All keys of a project, ready to be asked; never changed. A look takes 2 µs and nothing else than memory."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._held = {key.prefix: _hold(key) for key in keys}

    @property
    def empty(self) -> bool:
        """No key was ever made. Once there was one, nothing is open any more, also when it was revoked."""
        return not self._held

    @property
    def names(self) -> frozenset[str]:
        """Of whom there were ever keys."""
        return frozenset(held.key.name for held in self._held.values())

    def owner(self, token: str) -> Key | None:
        """The key that this text is, accepted or not; None for a text that is none. In constant time."""
        held = self._held.get(token[_START:_MIDDLE])
        sha256 = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        same = hmac.compare_digest(sha256, _NOTHING if held is None else held.sha256)
        return held.key if held is not None and same else None

    def access(self, prefix: str, now_ns: int) -> Access | None:
        """What the key of this prefix may do now; None when there is none, or it was revoked or has expired."""
        held = self._held.get(prefix)
        return held.access if held is not None and now_ns < held.ends_ns else None


def _hold(key: Key) -> _Held:
    ends_ns = 0
    if key.revoked_at is None:
        ends_ns = (1 << 63) - 1 if key.expires_at is None else _unix_ns(key.expires_at)
    access = Access(RIGHTS[key.role], key.name, key.prefix, key.prompts, key.models, key.environments)
    return _Held(key, bytes.fromhex(key.sha256), ends_ns, access)


def _unix_ns(instant: str) -> int:
    return int(datetime.fromisoformat(instant).timestamp()) * 1_000_000_000


def mint(entropy: bytes) -> tuple[str, str]:
    """A key's text and its prefix, from 38 random bytes that nobody else has seen."""
    prefix = _digits(int.from_bytes(entropy[32:ENTROPY_BYTES], "big"), _DIGITS[:10] + _DIGITS[36:], _PREFIX_DIGITS)
    return f"tg_{prefix}_{_digits(int.from_bytes(entropy[:32], 'big'), _DIGITS, _SECRET_DIGITS)}", prefix


def fingerprint(token: str) -> str:
    """What is kept of a key's text: its sha256 in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def _digits(number: int, digits: str, count: int) -> str:
    """The last `count` digits of a number written with these digits."""
    written = []
    for _ in range(count):
        number, rest = divmod(number, len(digits))
        written.append(digits[rest])
    return "".join(reversed(written))


# what happened to keys


class KeyLine(msgspec.Struct, frozen=True):
    """One line of what happened to keys. A line that revokes says whose and by whom, and leaves the rest empty."""

    id: str
    action: Literal["create", "revoke"]
    prefix: str
    name: str
    at: str
    who: str
    role: Role | None = None
    sha256: str = ""
    prompts: Names | None = None
    models: Names | None = None
    environments: Names | None = None
    expires_at: str | None = None

    def __repr__(self) -> str:
        return f"KeyLine({self.action} {self.prefix}, {self.name})"


def seal_key(line: KeyLine, project: str, prev_hash: str) -> str:
    """A line's hash: over all it says, its project, and the hash of the line before it (`""` for the first)."""
    said = msgspec.to_builtins(line)
    return hashlib.sha256(rfc8785.dumps({**said, "project": project, "prev_hash": prev_hash})).hexdigest()


def keys_of(lines: Sequence[KeyLine]) -> tuple[Key, ...]:
    """The keys that these lines, oldest first, have made; oldest first."""
    keys: dict[str, Key] = {}
    for line in lines:
        if line.action == "revoke" and line.prefix in keys:
            keys[line.prefix] = msgspec.structs.replace(keys[line.prefix], revoked_at=line.at, revoked_by=line.who)
        elif line.role is not None:
            keys[line.prefix] = Key(
                line.prefix,
                line.name,
                line.role,
                line.sha256,
                line.at,
                line.who,
                line.prompts,
                line.models,
                line.environments,
                line.expires_at,
            )
    return tuple(keys.values())


class Wanted(msgspec.Struct, frozen=True):
    """A key to be made."""

    name: str
    role: Role
    prompts: Names | None = None
    models: Names | None = None
    environments: Names | None = None
    expires_at: str | None = None
    """UTC, ISO 8601."""


def check(wanted: Wanted) -> None:
    """Raises BadInput for a key that can not be made, or whose limits would not be what they seem."""
    if not _NAME.match(wanted.name):
        raise BadInput(f"{wanted.name[:80]!r} can not be a key's name: use letters, digits and @ . _ + -, at most 64.")
    if wanted.role not in ROLES:
        raise BadInput(f"{wanted.role!r} is no role.{nearest(wanted.role, ROLES)}")
    lists = {"prompts": wanted.prompts, "models": wanted.models, "environments": wanted.environments}
    for name, allowed in lists.items():
        if allowed is None:
            continue
        if wanted.role == "admin":
            raise BadInput(f"--{name}: an admin makes keys, and so can not be limited. Use the role deployer.")
        if wanted.role == "viewer":
            raise BadInput(f"--{name}: a viewer reads all of the project; the lists limit calls and changes only.")
        if not allowed:
            raise BadInput(f"--{name}: names nothing, so nothing would be allowed. Leave it out to allow everything.")
        wrong = next((item for item in allowed if not item or not _PATTERN.match(item)), None)
        if wrong is not None:
            raise BadInput(f"--{name}: {wrong[:80]!r} is not a name, or the beginning of one and a '*'.")
    if wanted.environments and any("*" in name for name in wanted.environments):
        raise BadInput("--environments: write each name out; the first is where prompts are called by default.")
