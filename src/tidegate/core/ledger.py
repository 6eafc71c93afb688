"""Values of the registry: versions, deployments, what is live where, and the snapshot a gateway serves from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import rfc8785

from tidegate.core.artifact import Artifact
from tidegate.core.keys import Key

MAX_TEXT = 4_000


def as_kept(text: str) -> str:
    """Free text, as of a command line, as a ledger keeps it: one line, valid UTF-8, no control characters."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(char if char.isprintable() else " " for char in text).strip()[:MAX_TEXT]


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
    weight: float | None = None
    """The share of the environment's calls, above 0 and below 1, that goes to `to_version` from now on while
    `from_version` keeps the rest; None when `to_version` takes all."""

    @property
    def measure(self) -> Measure | None:
        """What it was approved under; None when no gate run approved it."""
        if self.suite_digest is None or self.golden_digest is None:
            return None
        return Measure(self.suite_digest, self.golden_digest)


YOUNGER_FIELDS = ("suite_digest", "golden_digest", "approved_by", "weight")
"""Of a Deployment, unknown to the first ledgers: sealed only when set, so that older lines keep their hash."""


def seal(move: Deployment, project: str, prev_hash: str) -> str:
    """A ledger line's hash: over all it says, its project, and the hash of the line before it (`""` for the first)."""
    said = {
        name: value
        for name, value in msgspec.structs.asdict(move).items()
        if value is not None or name not in YOUNGER_FIELDS
    }
    return hashlib.sha256(rfc8785.dumps({**said, "project": project, "prev_hash": prev_hash})).hexdigest()


class Policy(msgspec.Struct, frozen=True):
    """The server's word: which environments ask for a gate run, and which for a second person."""

    protects: frozenset[str] = frozenset()
    second_approver: frozenset[str] = frozenset()


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


class Split(msgspec.Struct, frozen=True):
    """A second version in an environment, and its share of the calls."""

    id: str
    """Of the move that began it. It stays while only the weight changes, and so do callers on their side."""
    version: int
    digest: str
    weight: float
    """Above 0 and below 1."""
    since: str
    """When the weight became this."""
    by: str


class Pointer(msgspec.Struct, frozen=True):
    """What an environment points at, and since when, by whose hand."""

    prompt: str
    environment: str
    version: int
    """While there is a split: the older of the two, which serves the rest."""
    digest: str
    since: str
    by: str
    split: Split | None = None

    @property
    def shares(self) -> dict[int, float]:
        """Version → its share of the environment's calls; the version pointed at first."""
        if self.split is None:
            return {self.version: 1.0}
        return {self.version: round(1 - self.split.weight, 6), self.split.version: self.split.weight}

    @property
    def settled(self) -> str:
        """When the last change of what is served here was made."""
        return self.since if self.split is None else self.split.since


def after(before: Pointer | None, move: Deployment) -> Pointer:
    """What an environment points at once it was moved; `before` is None when it pointed nowhere."""
    if move.weight is None or before is None:
        return Pointer(move.prompt, move.environment, move.to_version, move.to_digest, move.at, move.who)
    split = before.split
    began = split.id if split and split.version == move.to_version else move.id
    now = Split(began, move.to_version, move.to_digest, move.weight, move.at, move.who)
    return msgspec.structs.replace(before, split=now)


def rolled_back(ledger: Sequence[Deployment]) -> dict[int, Deployment]:
    """
    Of one environment's moves, oldest first: the versions that were rolled back, and not put back on purpose since,
    each with the move that did it. A rollback takes out all that was served before, but what it goes to.
    """
    out: dict[int, Deployment] = {}
    pointer: Pointer | None = None
    for move in ledger:
        before, pointer = pointer, after(pointer, move)
        if move.action == "rollback" and before is not None:
            out |= dict.fromkeys(before.shares, move)
        out.pop(move.to_version, None)
    return out


def approving_move(log: Sequence[Deployment], pointer: Pointer) -> Deployment | None:
    """Of moves, newest first: the one under whose approval the version pointed at went live; None when it had none."""
    own = (move for move in log if move.environment == pointer.environment)
    return next((move for move in own if move.to_version == pointer.version and move.measure), None)


class Served(msgspec.Struct, frozen=True):
    """A version together with what it serves."""

    prompt: str
    version: int | None
    digest: str
    artifact: Artifact
    split: Share | None = None
    """Of what an environment points at: the other version that serves a share of the calls."""


class Share(msgspec.Struct, frozen=True):
    """A split as a gateway acts on it."""

    id: str
    weight: float
    served: Served


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
    keys: tuple[Key, ...] = ()
    """Every key that was ever made."""
    anew: bool = False
    """The store's ledger does not hold the head of the snapshot before: another database, or one put back."""

    def prompts(self) -> frozenset[str]:
        return frozenset(prompt for prompt, _ in self.live)

    def versions(self) -> Iterator[Served]:
        """Every version that is live, some of them more than once."""
        for served in self.live.values():
            yield served
            if served.split is not None:
                yield served.split.served


class Freshness(msgspec.Struct, frozen=True):
    """How a gateway stands with the control store."""

    following: bool
    """Its last look at the store succeeded."""
    source: Literal["store", "file"]
    """Where what is served was read from."""
    read_at: str
    """UTC, ISO 8601: when."""
