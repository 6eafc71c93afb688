"""
The last snapshot on disk: what a gateway serves when it starts and its control store can not be reached.

One JSON file, readable by its owner only, replaced whole. Artifacts stand in it as the registry keeps them, so that
each is checked against its digest when it is read; a file that is damaged in any way is not used at all. The keys are
in it as they are stored, hashed: a gateway that starts without its store asks for the same ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec

from tidegate.core.artifact import Artifact, from_canonical
from tidegate.core.errors import BadInput, TidegateError, Unusable
from tidegate.core.keys import Key
from tidegate.core.ledger import Head, Served, Share, Snapshot

FORMAT = 3
PIECES = 250
"""Written at once. Each write lets the event loop's thread run, which encoding it all at once would hold up."""


class _Share(msgspec.Struct, array_like=True):
    id: str
    weight: float
    version: int
    digest: str


class _Live(msgspec.Struct, array_like=True):
    prompt: str
    environment: str
    version: int
    digest: str
    split: _Share | None = None


class _Contents(msgspec.Struct):
    format: int
    project: str
    read_at: datetime
    generation: int
    ledger: Head
    keys: tuple[Key, ...]
    live: list[_Live]
    artifacts: dict[str, msgspec.Raw]


class SnapshotFile:
    """Blocking; one gateway writes it, the one that holds its folder."""

    def __init__(self, path: Path, project: str) -> None:
        self.path = path
        self._project = project

    def write(self, snapshot: Snapshot, read_at: str) -> None:
        """Replaces the file. `read_at` is when the store said so, UTC. Raises Unusable; the old file is kept then."""
        draft = self.path.with_suffix(".new")
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "wb", buffering=0) as out:
                pieces = self._pieces(snapshot, read_at)
                while some := b"".join(islice(pieces, PIECES)):
                    out.write(some)
                os.fsync(fd)
            draft.replace(self.path)
        except OSError as error:
            raise Unusable(f"{self.path}: can not be written: {error.strerror}.") from error

    def _pieces(self, snapshot: Snapshot, read_at: str) -> Iterator[bytes]:
        encode = msgspec.json.encode
        start = {"format": FORMAT, "project": self._project, "read_at": read_at, "generation": snapshot.generation}
        yield encode({**start, "ledger": snapshot.head, "keys": snapshot.keys})[:-1] + b',\n"live": ['
        between = b"\n"
        for (prompt, environment), served in snapshot.live.items():
            yield between + encode((prompt, environment, served.version, served.digest, _share(served)))
            between = b",\n"
        yield b'],\n"artifacts": {'
        between = b"\n"
        for digest, text in snapshot.texts.items():
            yield b'%b"%b":%b' % (between, digest.encode(), text.encode())
            between = b",\n"
        yield b"}}\n"

    def read(self) -> tuple[Snapshot, str] | None:
        """
        The snapshot and when it was read from the store, UTC; None when there is no file.

        Raises BadInput when the file is damaged, of another format or of another project.
        """
        try:
            raw = self.path.read_bytes()
            contents = msgspec.json.decode(raw, type=_Contents)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadInput(f"{self.path}: can not be read: {error.strerror}.") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{self.path}: is damaged, or of another version of tidegate: {error}.") from error
        if contents.format != FORMAT:
            raise BadInput(f"{self.path}: has format {contents.format}, this tidegate knows {FORMAT}.")
        if contents.project != self._project:
            raise BadInput(f"{self.path}: is of the project {contents.project!r}, not of {self._project!r}.")
        return self._snapshot(contents), contents.read_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _snapshot(self, contents: _Contents) -> Snapshot:
        texts: dict[str, str] = {}
        for digest, text in contents.artifacts.items():
            if hashlib.sha256(text).hexdigest() != digest:
                raise BadInput(f"{self.path}: is damaged: the artifact {digest[:12]} is not what its digest says.")
            texts[digest] = bytes(text).decode("utf-8")
        try:
            artifacts = {digest: from_canonical(text) for digest, text in texts.items()}
            live = {(line.prompt, line.environment): _served(line, artifacts) for line in contents.live}
        except KeyError as error:
            raise BadInput(f"{self.path}: is damaged: the artifact {error} is missing.") from error
        except TidegateError as error:
            raise BadInput(f"{self.path}: is damaged: {error}") from error
        return Snapshot(contents.generation, live, contents.ledger, texts, contents.keys)


def _share(served: Served) -> tuple[object, ...] | None:
    split = served.split
    return None if split is None else (split.id, split.weight, split.served.version, split.served.digest)


def _served(line: _Live, artifacts: Mapping[str, Artifact]) -> Served:
    live = Served(line.prompt, line.version, line.digest, artifacts[line.digest])
    split = line.split
    if split is None:
        return live
    other = Served(line.prompt, split.version, split.digest, artifacts[split.digest])
    return msgspec.structs.replace(live, split=Share(split.id, split.weight, other))
