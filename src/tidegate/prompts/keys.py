"""
The keys of one project: made, listed, revoked. Each is one short transaction; gateways follow within a second.

A key's text leaves `create` once and is kept nowhere. Nothing that was written about a key is ever changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from tidegate.core import keys
from tidegate.core.errors import BadInput, NotFound, nearest
from tidegate.core.ids import uuid7
from tidegate.core.instant import iso_utc
from tidegate.core.keys import Key, KeyLine, KeyRing, MintedKey, Wanted
from tidegate.core.ledger import as_kept
from tidegate.ports import Clock, ControlStore, ControlTransaction, Random


class KeyBook:
    """Blocking; safe to share between threads."""

    def __init__(self, store: ControlStore, clock: Clock, random: Random) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._ring: tuple[int, KeyRing] | None = None

    def create(self, wanted: Wanted, *, who: str) -> MintedKey:
        """Makes a key. Raises BadInput for one that can not be, or that would have expired already."""
        keys.check(wanted)
        now_ns = self._clock.now_ns()
        if wanted.expires_at is not None and wanted.expires_at <= iso_utc(now_ns):
            raise BadInput(f"a key that expires at {wanted.expires_at} would never be accepted.")
        with self._store.write() as tx:
            taken = {key.prefix for key in _keys(tx)}
            token, prefix = keys.mint(secrets.token_bytes(keys.ENTROPY_BYTES))
            while prefix in taken:
                token, prefix = keys.mint(secrets.token_bytes(keys.ENTROPY_BYTES))
            line = KeyLine(
                id=self._id(now_ns),
                action="create",
                prefix=prefix,
                name=wanted.name,
                at=iso_utc(now_ns),
                who=as_kept(who),
                role=wanted.role,
                sha256=keys.fingerprint(token),
                prompts=wanted.prompts,
                models=wanted.models,
                environments=wanted.environments,
                expires_at=wanted.expires_at,
            )
            tx.add_key_line(line)
        return MintedKey(token, keys.keys_of([line])[0])

    def revoke(self, name: str, *, who: str) -> Key:
        """
        Takes a key back for ever, by its name or its prefix. One that was revoked before stays as it is.

        Raises: NotFound with the nearest names, BadInput when several keys have the name.
        """
        now_ns = self._clock.now_ns()
        with self._store.write() as tx:
            found = _find(_keys(tx), name)
            if found.revoked_at is not None:
                return found
            line = KeyLine(self._id(now_ns), "revoke", found.prefix, found.name, iso_utc(now_ns), as_kept(who))
            tx.add_key_line(line)
            return next(key for key in _keys(tx) if key.prefix == found.prefix)

    def all(self) -> Sequence[Key]:
        """Every key that was ever made, oldest first."""
        with self._store.read() as tx:
            return _keys(tx)

    def ring(self) -> KeyRing:
        """The keys as they are now; read anew only when something was written since."""
        generation = self._store.generation()  # before the keys: a change in between is then seen by the next look
        known = self._ring
        if known is None or known[0] != generation:
            known = self._ring = generation, KeyRing(self.all())
        return known[1]

    def now_ns(self) -> int:
        """The instant by which keys expire."""
        return self._clock.now_ns()

    def _id(self, now_ns: int) -> str:
        return uuid7(now_ns // 1_000_000, self._random.bits(80))


def _keys(tx: ControlTransaction) -> tuple[Key, ...]:
    return keys.keys_of([sealed.line for sealed in tx.key_lines()])


def _find(known: Sequence[Key], name: str) -> Key:
    prefix = name.removeprefix("tg_").partition("_")[0] if name.startswith("tg_") else name  # a key is never shown
    exact = next((key for key in known if key.prefix == prefix), None)
    named = [key for key in known if key.name == name]
    usable = [key for key in named if key.revoked_at is None]
    if exact is not None and not named:
        return exact
    if not named:
        raise NotFound(f"no key has the name or prefix {prefix[:80]!r}.{nearest(prefix, {key.name for key in known})}")
    if len(usable) > 1:
        which = ", ".join(f"{key.prefix} of {key.created_at[:10]}" for key in usable)
        raise BadInput(f"{len(usable)} keys have the name {name!r}: {which}. Give the prefix of one.")
    return usable[0] if usable else named[-1]
