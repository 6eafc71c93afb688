"""Values of the registry: versions, deployments, what is live where, and the snapshot a gateway serves from."""

from __future__ import annotations

from typing import Literal

import msgspec

from tidegate.core.artifact import Artifact


class Version(msgspec.Struct, frozen=True):
    """The registry's number for a digest, per prompt; never reused."""

    prompt: str
    number: int
    digest: str
    created_at: str
    """UTC, ISO 8601."""
    description: str = ""
    file_sha256: str = ""
    """Of the prompt file's own bytes: comments and layout are in here, not in the digest."""

    @property
    def name(self) -> str:
        """`v3`."""
        return f"v{self.number}"


class Deployment(msgspec.Struct, frozen=True):
    """One move of an environment's pointer, as the append-only ledger keeps it."""

    id: str
    prompt: str
    environment: str
    action: Literal["deploy", "rollback"]
    from_version: int | None
    to_version: int
    to_digest: str
    who: str
    reason: str
    at: str
    forced: bool = False
    run_id: str | None = None
    """The gate run that approved it."""
    git_commit: str | None = None
    git_dirty: bool | None = None


class Pointer(msgspec.Struct, frozen=True):
    """What an environment points at, and since when, by whose hand."""

    prompt: str
    environment: str
    version: int
    digest: str
    since: str
    by: str


class Served(msgspec.Struct, frozen=True):
    """A version together with what it serves."""

    prompt: str
    version: int | None
    digest: str
    artifact: Artifact


class Snapshot(msgspec.Struct, frozen=True):
    """All that a gateway needs of the registry, read at one instant; replaced whole, never changed."""

    generation: int
    live: dict[tuple[str, str], Served]
    """(prompt, environment) → what it serves."""

    def prompts(self) -> frozenset[str]:
        return frozenset(prompt for prompt, _ in self.live)
