"""
Every seam of tidegate, on one screen.

A port is a Protocol over core values. Adapters implement them; `compose.py` alone knows which adapter stands behind
which port. Blocking ports (ControlStore) are called from threads or from the CLI, never on an event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec

from tidegate.core.artifact import Artifact
from tidegate.core.budgets import BudgetState, Charge
from tidegate.core.chain import Fault, Line, SealedKeyLine
from tidegate.core.evaluation import Run, ToolUse
from tidegate.core.kept import KeptAnswer
from tidegate.core.keys import Key, KeyLine, MintedKey, Wanted
from tidegate.core.ledger import (
    Approval,
    Deployment,
    Freshness,
    Head,
    Measure,
    Pointer,
    Policy,
    Served,
    Version,
)
from tidegate.core.pricing import Rates
from tidegate.core.run_lines import RunFilter, RunLine, RunSummary


class Clock(Protocol):
    """Time. `now_ns` is UTC since 1970 and may step; `monotonic` never does and measures durations, in seconds."""

    def now_ns(self) -> int: ...
    def monotonic(self) -> float: ...


class Random(Protocol):
    """Randomness, so that tests can hold it still."""

    def bits(self, count: int) -> int: ...
    def uniform(self) -> float: ...


SERVER_CLOSING = "the server is closing"
"""With these words a server cancels a call when it has to go; the reply still works then."""


class Reply(Protocol):
    """Where a call's answer goes: one `start`, any number of `push`, one `end`."""

    @property
    def started(self) -> bool: ...
    async def start(self, status: int, headers: Sequence[tuple[str, str]], *, streamed: bool) -> None: ...
    def push(self, chunk: bytes) -> bool:
        """Sends a chunk; False when over 256 KiB wait for a slow reader: the next one comes after `drained`."""
        ...

    async def drained(self) -> None: ...
    async def end(self, tail: bytes = b"") -> None: ...


class UpstreamRequest(msgspec.Struct, frozen=True):
    """One HTTP request to a provider. `origin` is `https://host[:port]`; headers hold the resolved credential."""

    origin: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connect_s: float
    first_byte_s: float
    idle_s: float
    passed: tuple[tuple[str, str], ...] = ()
    """What of the client's own headers goes along; unlike `headers` it differs from call to call."""

    def __repr__(self) -> str:  # the headers hold a credential, the body what was said
        return f"UpstreamRequest({self.method} {self.origin}{self.path})"


class Pieces(Protocol):
    """
    The body of an answer as it arrives; a wait that was cancelled may be taken up again.

    Raises StreamBroken when it is cut, UpstreamTimeout(phase=idle) when it stalls.
    """

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes: ...
    async def pump(self, sink: Callable[[bytes], bool]) -> bool:
        """
        Hands on each piece until `sink` says False; returns True at the end of the body.

        An adapter that can calls `sink` in the moment a piece comes, without a turn of the loop in between. What `sink`
        raises is raised here.
        """
        async for piece in self:
            if not sink(piece):
                return False
        return True


class UpstreamAnswer(Protocol):
    """A provider's answer, its head already read. Closing it early closes the connection: that cancels upstream."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case."""
        ...

    def chunks(self) -> Pieces:
        """The body."""
        ...

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamProtocol above `limit` bytes."""
        ...


class Upstream(Protocol):
    """The way out: `async with upstream.request(…) as answer`. Raises UpstreamUnavailable, -Timeout, -Protocol."""

    def request(self, request: UpstreamRequest) -> UpstreamExchange: ...
    async def close(self) -> None: ...


class UpstreamExchange(Protocol):
    """One request under way; leaving the block early closes its connection."""

    async def __aenter__(self) -> UpstreamAnswer: ...
    async def __aexit__(self, *exc: object) -> None: ...


class Spool(Protocol):
    """Where records go: one write(2) of one whole line, before the last byte of the answer."""

    def append(self, line: bytes) -> bool:
        """False when the line could not be written (disk full): counted as shed, and serving goes on."""
        ...


class Running(Protocol):
    """Where calls under a budget stand from before their first attempt until they are recorded, over a crash too."""

    def begin(self, said: bytes) -> Any | None:
        """Takes down a call as its record would be by now; its place, or None when that can not be."""
        ...

    def end(self, place: Any | None, *, recorded: bool) -> None:
        """Its record was handed to the spool, which took it or not."""
        ...


class Hold(Protocol):
    """What one admitted call holds of limits and budgets: until it is settled, and its record was handed over."""

    @property
    def most(self) -> Charge | None:
        """What it may be charged at most, and by whom; None for a call that is under no budget."""
        ...

    def begin(self, said: bytes) -> bool:
        """Takes the call down before its first attempt; False when that can not be."""
        ...

    def settle(self, tokens: int, nano_usd: int | None, model: str | None) -> Charge | None:
        """
        Gives everything back; returns what is charged for it. A second time is a no-op.

        Args:
            nano_usd: None when there was an answer and nobody knows what it cost.
            model: `provider/model` that was called last.
        """
        ...

    def end(self, *, recorded: bool) -> None:
        """After `settle`: the call's record was handed to the spool, which took it or not."""
        ...


class Admission(Protocol):
    """
    Limits and budgets. It answers at once, from memory: an adapter over a store that several gateways share keeps
    leases, and renews them before they are used up.
    """

    def admit(
        self,
        *,
        key: str | None,
        prompt: str | None,
        route: str | None,
        models: tuple[str, ...],
        tokens: int,
        nano_usd: int,
    ) -> Hold:
        """
        Takes a call's part of everything that concerns it, or takes nothing.

        Args:
            models: `provider/model` of all it may be sent to, in the order they are tried.
            tokens: an estimate of input and output.
            nano_usd: the most it may cost.
        Raises: Saturated, TooLarge for more tokens than a minute has, BudgetExhausted.
        """
        ...

    def budgets(self) -> Sequence[BudgetState]:
        """Every budget as it stands."""
        ...


class AnswerCache(Protocol):
    """Answers that may be given again. Keys are hashes; what is kept under one belongs to whoever can make it."""

    @property
    def largest(self) -> int:
        """Bytes of the largest answer that is kept."""
        ...

    async def get(self, key: bytes) -> KeptAnswer | None: ...
    async def put(self, key: bytes, answer: KeptAnswer, ttl_s: float) -> None: ...
    async def purge(self, prompt: str | None = None, digest: str | None = None) -> int:
        """Forgets all answers, or those of a prompt, or of one version of it; returns how many."""
        ...


class Prices(Protocol):
    """Rates of a provider's model, or None when nobody knows them."""

    def rates(self, provider: str, model: str) -> Rates | None: ...


class PromptCall(msgspec.Struct, frozen=True):
    """One call that tidegate itself makes (eval, canary, judge, playground)."""

    prompt: str
    digest: str
    variables: dict[str, Any]
    origin: str
    tags: dict[str, str] = {}
    messages: tuple[dict[str, Any], ...] = ()
    """What follows the prompt's own messages, as OpenAI Chat spells them: an agent's tool calls and their results."""
    top_logprobs: int = 0
    """Asks for the log-probabilities of so many alternatives of each token; 0: for none."""


class TokenChance(msgspec.Struct, frozen=True):
    """One token of an answer: its log-probability, and those of its alternatives, itself included."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class PromptAnswer(msgspec.Struct, frozen=True):
    """Its outcome. `error` is set instead of an output when there was no answer."""

    output: str
    error: str | None = None
    call_id: str | None = None
    finish_reason: str | None = None
    cost_nano_usd: int | None = None
    latency_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    tool_calls: tuple[ToolUse, ...] = ()
    logprobs: tuple[TokenChance, ...] = ()
    """Empty where they were not asked for, or the provider has none."""
    code: str | None = None
    """Of an error: its kind, as in core/errors.py or as the provider calls it."""
    status: int | None = None
    """Of an error: its HTTP status; None where there was no answer at all."""
    retry_after_s: float | None = None
    """Of an error: when to come back, where somebody said."""


class PromptSource(Protocol):
    """Which version a gateway serves, from memory."""

    def live(self, prompt: str, environment: str) -> Served | None:
        """What the environment points at in the last snapshot; None when it points nowhere."""
        ...

    def names(self) -> Sequence[str]:
        """Every prompt that is live somewhere, sorted."""
        ...

    def freshness(self) -> Freshness:
        """How old that snapshot may be."""
        ...

    async def find(self, prompt: str, selector: str) -> Served:
        """Any stored version by `vN` or digest. Raises NotFound with the nearest names."""
        ...


class Caller(Protocol):
    """Makes calls through a gateway's pipeline: in this process, or over HTTP to the gateway that owns the folder."""

    async def call(self, call: PromptCall) -> PromptAnswer: ...


class BatchItem(msgspec.Struct, frozen=True):
    """One request of a batch, as the provider would get it by itself."""

    id: str
    """Unique in its batch; at most 64 letters, digits, `-` and `_`."""
    body: bytes


class BatchState(msgspec.Struct, frozen=True):
    """How far a provider is with a batch."""

    ended: bool
    """Nothing more will come of it: finished, expired or cancelled."""
    done: int
    failed: int
    total: int
    refused: str | None = None
    """Why the provider does not take the batch at all."""


class BatchResult(msgspec.Struct, frozen=True):
    """What became of one request."""

    id: str
    body: bytes = b""
    """The answer as it would have come to the request alone, its service tier `batch`; empty where there is none."""
    error: str = ""


class BatchUpstream(Protocol):
    """A provider's batch API: half the price, within a day. All raise UpstreamError."""

    async def submit(self, items: Sequence[BatchItem], *, mark: str) -> str:
        """Hands in a batch; returns the provider's id of it. `mark` is ours, and stands with it where there is room."""
        ...

    async def find(self, mark: str, *, since: str, total: int) -> str | None:
        """The id of a batch that was handed in at `since` (ISO 8601) or later, and may be the one of that mark."""
        ...

    async def state(self, batch: str) -> BatchState:
        """Raises UpstreamRejected with status 404 for one that the provider does not have."""
        ...

    def results(self, batch: str) -> AsyncIterator[BatchResult]:
        """Of a batch that has ended, in any order; what expired may be left out."""
        ...


class BatchCaller(Protocol):
    """Prompt calls through providers' batch APIs. All raise BadInput where there is none, and UpstreamError."""

    async def prepare(self, calls: Mapping[str, PromptCall]) -> Sequence[BatchItem]:
        """
        The requests of calls of one version by their ids, in their order, as many as fit one batch.

        A call that can not be made is left out: made alone it says why. Raises BadInput where there is no batch API.
        """
        ...

    async def submit(self, call: PromptCall, items: Sequence[BatchItem], *, mark: str) -> str:
        """Hands them in; returns the batch's ticket. `call` is one of theirs."""
        ...

    async def find(self, call: PromptCall, mark: str, *, since: str, total: int) -> str | None:
        """The ticket of a batch that a process handed in and did not live to hear of; `call` is one of its version."""
        ...

    async def state(self, ticket: str) -> BatchState:
        """How far it is. Raises NotFound where the provider does not have it."""
        ...

    def answers(self, ticket: str, calls: Mapping[str, PromptCall]) -> AsyncIterator[tuple[str, PromptAnswer]]:
        """What came of those of `calls` that are in it; each that was answered is recorded as a call."""
        ...


class KeyStore(Protocol):
    """The keys of one project. Blocking."""

    def create(self, wanted: Wanted, *, who: str) -> MintedKey: ...
    def revoke(self, name: str, *, who: str) -> Key: ...
    def all(self) -> Sequence[Key]:
        """Every key that was ever made, oldest first."""
        ...


class PromptRegistry(Protocol):
    """Prompts, versions, environments and runs of one project, in this folder or on a server. Blocking."""

    @property
    def keys(self) -> KeyStore: ...
    @property
    def policy(self) -> Policy: ...
    def close(self) -> None: ...
    def register(self, prompt: str, artifact: Artifact, *, description: str = "", file_sha256: str = "") -> Version: ...
    def resolve(self, prompt: str, selector: str) -> Version: ...
    def artifact(self, digest: str) -> Artifact: ...
    def served(self, prompt: str, selector: str) -> Served: ...
    def prompts(self) -> list[str]: ...
    def versions(self, prompt: str) -> list[Version]: ...
    def pointers(self, prompt: str | None = None) -> list[Pointer]: ...
    def log(self, prompt: str | None = None) -> list[Deployment]: ...
    def verify(self) -> list[Fault]: ...
    def deploy(
        self,
        prompt: str,
        selector: str,
        environment: str = "production",
        *,
        who: str,
        reason: str = "",
        force: bool = False,
        git_commit: str | None = None,
        git_dirty: bool | None = None,
        measure: Measure | None = None,
        weight: float | None = None,
    ) -> Deployment: ...
    def approve(
        self,
        prompt: str,
        selector: str,
        environment: str = "production",
        *,
        who: str,
        reason: str = "",
        measure: Measure | None = None,
    ) -> Approval: ...
    def approvals(self, prompt: str | None = None) -> list[Approval]: ...
    def rollback(
        self, prompt: str, environment: str = "production", *, who: str, reason: str = "", to: str | None = None
    ) -> Deployment: ...
    def rollback_target(self, prompt: str, environment: str = "production") -> Version | None: ...
    def save_run(self, run: Run, *, suite: str, golden: str, summary: RunSummary | None = None) -> None: ...
    def run(self, run_id: str) -> Run: ...
    def runs(self, prompt: str | None = None, limit: int = 100) -> list[Run]: ...
    def document(self, digest: str) -> str: ...


class ControlTransaction(Protocol):
    """Reads and writes of one transaction of the control store; all of it happens or nothing does."""

    def artifact(self, digest: str) -> Artifact | None: ...
    def put_artifact(self, digest: str, artifact: Artifact) -> None: ...
    def prompts(self) -> Sequence[str]: ...
    def texts(self, digests: Collection[str]) -> Mapping[str, str]:
        """The canonical text of each of these artifacts that is stored."""
        ...

    def versions(self, prompt: str) -> Sequence[Version]: ...
    def version_of(self, prompt: str, digest: str) -> Version | None: ...
    def add_version(self, version: Version) -> None: ...
    def pointers(self, prompt: str | None = None) -> Sequence[Pointer]: ...
    def move(self, deployment: Deployment) -> None:
        """Appends to the ledger and moves the pointer."""
        ...

    def deployments(self, prompt: str | None = None, environment: str | None = None) -> Sequence[Deployment]:
        """The ledger, oldest first."""
        ...

    def head(self) -> Head:
        """The last line of the ledger."""
        ...

    def moved(self, since: Head) -> Sequence[Pointer] | None:
        """At least the pointers that moved after `since`; None when the ledger does not hold that line."""
        ...

    def lines(self) -> Sequence[Line]:
        """The ledger with its hashes, oldest first."""
        ...

    def add_approval(self, approval: Approval) -> None: ...
    def approvals(self, prompt: str | None = None, environment: str | None = None) -> Sequence[Approval]:
        """Oldest first."""
        ...

    def add_key_line(self, line: KeyLine) -> None: ...
    def key_lines(self) -> Sequence[SealedKeyLine]:
        """What happened to keys, with its hashes, oldest first."""
        ...

    def save_run(self, run: Run) -> None: ...
    def run(self, run_id: str) -> Run | None: ...
    def runs(self, prompt: str | None = None, digest: str | None = None, limit: int = 100) -> Sequence[Run]:
        """Newest first, without their results."""
        ...

    def run_lines(self, wanted: RunFilter, *, limit: int, before: str | None = None) -> Sequence[RunLine]:
        """Newest first, without answers; `before` is the id of the last run of the page before."""
        ...

    def put_summary(self, run_id: str, summary: RunSummary) -> None:
        """Keeps what `run_lines` gives with a run."""
        ...

    def put_document(self, digest: str, kind: str, body: str) -> None:
        """Keeps a suite or a golden set by its digest; a second time is a no-op."""
        ...

    def document(self, digest: str) -> str | None: ...


class ControlStore(Protocol):
    """Prompts, ledger, runs. Blocking. Short transactions from any process."""

    def read(self) -> AbstractContextManager[ControlTransaction]: ...
    def write(self) -> AbstractContextManager[ControlTransaction]:
        """One writer at a time, across processes: waits for its turn, up to the store's busy time-out."""
        ...

    def generation(self) -> int:
        """A number that is different after any committed change, cheap enough to ask ten times a second."""
        ...

    def wait_for_change(self, generation: int, timeout_s: float) -> int:
        """The present generation: once it is not `generation` (250 ms later at most), or when the time is up."""
        ...

    def close(self) -> None: ...
