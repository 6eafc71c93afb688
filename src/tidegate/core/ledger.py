"""Values of the registry: versions, deployments, what is live where, and the snapshot a gateway serves from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import msgspec
import rfc8785

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
    suite_digest: str | None = None
    """The suite and the golden set it was approved under."""
    golden_digest: str | None = None
    approved_by: str | None = None
    """The second person who said yes, where the environment asks for one."""

    @property
    def measure(self) -> Measure | None:
        """What it was approved under; None when no gate run approved it."""
        if self.suite_digest is None or self.golden_digest is None:
            return None
        return Measure(self.suite_digest, self.golden_digest)


def approving_move(log: Sequence[Deployment], environment: str) -> Deployment | None:
    """Of moves, newest first: the one under whose approval what is live there went live; None when it had none."""
    own = [move for move in log if move.environment == environment]
    return next((move for move in own if move.to_version == own[0].to_version and move.measure), None)


YOUNGER_FIELDS = ("suite_digest", "golden_digest", "approved_by")
"""Of a Deployment, unknown to the first ledgers: sealed only when set, so that older lines keep their hash."""


def seal(move: Deployment, project: str, prev_hash: str) -> str:
    """A ledger line's hash: over all it says, its project, and the hash of the line before it (`""` for the first)."""
    said = {
        name: value
        for name, value in msgspec.structs.asdict(move).items()
        if value is not None or name not in YOUNGER_FIELDS
    }
    return hashlib.sha256(rfc8785.dumps({**said, "project": project, "prev_hash": prev_hash})).hexdigest()


class Measure(msgspec.Struct, frozen=True):
    """What an approval was measured by: suite and golden set, by digest."""

    suite_digest: str
    golden_digest: str


def changed(before: Measure, after: Measure) -> str:
    """`suite`, `golden set`, or both, where they differ; an empty string where they do not."""
    suite = "suite" if before.suite_digest != after.suite_digest else ""
    golden = "golden set" if before.golden_digest != after.golden_digest else ""
    return " and ".join(part for part in (suite, golden) if part)


class Approval(msgspec.Struct, frozen=True):
    """A person's yes to one version in one environment, on top of its gate run."""

    id: str
    prompt: str
    environment: str
    version: int
    digest: str
    who: str
    reason: str
    at: str
    run_id: str | None = None
    """The gate run it rests on; None where the environment asks for none."""
    suite_digest: str | None = None
    golden_digest: str | None = None


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


class Head(msgspec.Struct, frozen=True):
    """The last line of a ledger. Its seal covers every line before it, so one head names one history."""

    number: int = 0
    hash: str = ""
    """Empty when there is no line yet."""


class Snapshot(msgspec.Struct, frozen=True):
    """All that a gateway needs of the registry, read at one instant; replaced whole, never changed."""

    generation: int
    live: dict[tuple[str, str], Served]
    """(prompt, environment) → what it serves."""
    head: Head = Head()
    """Where the ledger stood."""
    texts: dict[str, str] = {}
    """Digest → canonical text of every artifact in `live`: what is written to disk, and need not be read again."""
    anew: bool = False
    """The store's ledger does not hold the head of the snapshot before: another database, or one put back."""

    def prompts(self) -> frozenset[str]:
        return frozenset(prompt for prompt, _ in self.live)


class Freshness(msgspec.Struct, frozen=True):
    """How a gateway stands with the control store."""

    following: bool
    """Its last look at the store succeeded."""
    source: Literal["store", "file"]
    """Where what is served was read from."""
    read_at: str
    """UTC, ISO 8601: when."""
