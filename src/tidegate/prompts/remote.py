"""
The registry of another machine: the same methods, over the API of its console.

The rules hold there, not here: what is protected, who may do what, and who somebody is – the holder of the key,
whatever `who` says; only a server without keys takes that word. Errors are the server's own sentences.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from tidegate.core.address import split_url
from tidegate.core.artifact import Artifact, digest
from tidegate.core.chain import Fault
from tidegate.core.errors import BadInput, NotFound
from tidegate.core.evaluation import Run
from tidegate.core.keys import Key, MintedKey, Wanted
from tidegate.core.ledger import Approval, Deployment, Measure, Pointer, Policy, Served, Version
from tidegate.core.run_lines import RunSummary
from tidegate.upstream.server import Server, quoted

MOST_RUNS = 1_000
MOST_TEXT, MOST_WHO = 4_000, 200
T = TypeVar("T")


class _Gateway(msgspec.Struct):
    url: str | None
    port: int


class Names(msgspec.Struct, frozen=True):
    """What the server's tidegate.yaml gives a name to. Implements upstream.lint.Serving."""

    routes: frozenset[str]
    providers: frozenset[str]


class _About(msgspec.Struct):
    gateway: _Gateway
    gate: Policy
    serving: Names


class RemoteRegistry:
    """Implements ports.PromptRegistry. Blocking; safe to share between threads."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.keys = RemoteKeys(server)

    def close(self) -> None:
        """Nothing is held."""

    @property
    def policy(self) -> Policy:
        """The server's word on approvals."""
        return self._about.gate

    @property
    def key(self) -> str | None:
        """What calls of an eval are made with."""
        return self._server.address.key

    @cached_property
    def gateway(self) -> str:
        """Where the server's gateway takes calls. Raises BadInput when that can not be told from here."""
        address, about = self._server.address, self._about.gateway
        if about.url is not None:
            return "".join(split_url(about.url, "the server's gateway.public_url", plain=address.plain))
        parts = urlsplit(address.origin)
        if parts.scheme == "https" or address.path:
            raise BadInput(
                f"{address.origin} does not say where its gateway is reached from elsewhere: set gateway.public_url in"
                " its tidegate.yaml."
            )
        host = parts.hostname or ""
        return f"http://[{host}]:{about.port}" if ":" in host else f"http://{host}:{about.port}"

    @property
    def serving(self) -> Names:
        """The routes and providers that prompts may name there."""
        return self._about.serving

    @cached_property
    def _about(self) -> _About:
        return self._server.read(_About, "/server")

    # versions

    def register(self, prompt: str, artifact: Artifact, *, description: str = "", file_sha256: str = "") -> Version:
        """As Registry.register. Raises BadInput also when the server gives this content another digest."""
        body = {"prompt": prompt, "artifact": artifact, "description": _text(description), "file_sha256": file_sha256}
        version = self._server.write(Version, "/versions", _encode(body))
        if version.digest != digest(artifact):
            raise BadInput(
                "the server knows this prompt under another digest: it runs another tidegate. Use the same on both"
                " sides."
            )
        return version

    def resolve(self, prompt: str, selector: str) -> Version:
        """As Registry.resolve."""
        return self._server.read(Version, "/version", prompt=prompt, selector=selector)

    def artifact(self, digest: str) -> Artifact:
        """As Registry.artifact."""
        return self._server.read(Artifact, f"/artifacts/{quoted(digest)}")

    def served(self, prompt: str, selector: str) -> Served:
        """As Registry.served."""
        version = self.resolve(prompt, selector)
        return Served(prompt, version.number, version.digest, self.artifact(version.digest))

    def prompts(self) -> list[str]:
        """As Registry.prompts."""
        return self._server.read(list[str], "/prompts")

    def versions(self, prompt: str) -> list[Version]:
        """As Registry.versions."""
        try:
            return self._server.read(list[Version], f"/versions/{quoted(prompt)}")
        except NotFound:
            return []

    # what is live

    def pointers(self, prompt: str | None = None) -> list[Pointer]:
        """As Registry.pointers."""
        return self._server.read(list[Pointer], "/pointers", prompt=prompt)

    def log(self, prompt: str | None = None) -> list[Deployment]:
        """As Registry.log."""
        return self._server.read(list[Deployment], "/deployments", prompt=prompt)

    def verify(self) -> list[Fault]:
        """As Registry.verify."""
        return self._server.read(list[Fault], "/faults")

    # moving

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
    ) -> Deployment:
        """As Registry.deploy."""
        body = {
            "prompt": prompt,
            "version": selector,
            "environment": environment,
            "who": _text(who)[:MOST_WHO],
            "reason": _text(reason),
            "force": force,
            "git_commit": git_commit,
            "git_dirty": git_dirty,
            "measure": measure,
            "weight": weight,
        }
        return self._server.write(Deployment, "/deployments", _encode(body))

    def approve(
        self,
        prompt: str,
        selector: str,
        environment: str = "production",
        *,
        who: str,
        reason: str = "",
        measure: Measure | None = None,
    ) -> Approval:
        """As Registry.approve."""
        body = {
            "prompt": prompt,
            "version": selector,
            "environment": environment,
            "who": _text(who)[:MOST_WHO],
            "reason": _text(reason),
            "measure": measure,
        }
        return self._server.write(Approval, "/approvals", _encode(body))

    def approvals(self, prompt: str | None = None) -> list[Approval]:
        """As Registry.approvals."""
        return self._server.read(list[Approval], "/approvals", prompt=prompt)

    def rollback(
        self, prompt: str, environment: str = "production", *, who: str, reason: str = "", to: str | None = None
    ) -> Deployment:
        """As Registry.rollback."""
        body = {
            "prompt": prompt,
            "environment": environment,
            "who": _text(who)[:MOST_WHO],
            "reason": _text(reason),
            "to": to,
        }
        return self._server.write(Deployment, "/rollbacks", _encode(body))

    def rollback_target(self, prompt: str, environment: str = "production") -> Version | None:
        """As Registry.rollback_target."""
        answer = self._server.read(_Target, "/rollbacks/target", prompt=prompt, environment=environment)
        return answer.target

    # runs

    def save_run(self, run: Run, *, suite: str, golden: str, summary: RunSummary | None = None) -> None:
        """
        As Registry.save_run. The version must be registered, and the texts those of the run's digests; the summary
        stays here, the server makes its own.
        """
        self._server.write(_Stored, "/runs", _encode({"run": run, "suite": suite, "golden": golden}))

    def run(self, run_id: str) -> Run:
        """As Registry.run."""
        return self._server.read(Run, f"/runs/{quoted(run_id)}")

    def runs(self, prompt: str | None = None, limit: int = 100) -> list[Run]:
        """As Registry.runs, at most 1,000."""
        return self._server.read(list[Run], "/runs", prompt=prompt, limit=min(limit, MOST_RUNS))

    def document(self, digest: str) -> str:
        """As Registry.document."""
        return self._server.read(_Document, f"/documents/{quoted(digest)}").text


class RemoteKeys:
    """Implements ports.KeyStore. The server mints: a key's text is in its answer, and nowhere else."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def create(self, wanted: Wanted, *, who: str) -> MintedKey:
        """As KeyBook.create; who made it is the holder of our own key."""
        minted = self._server.write(_Minted, "/keys", _encode(wanted))
        return MintedKey(minted.token, minted.key)

    def revoke(self, name: str, *, who: str) -> Key:
        """As KeyBook.revoke."""
        return self._server.write(Key, "/keys/revocations", _encode({"key": name}))

    def all(self) -> Sequence[Key]:
        """As KeyBook.all, without their hashes."""
        return self._server.read(list[Key], "/keys")


class _Target(msgspec.Struct):
    target: Version | None


class _Stored(msgspec.Struct):
    id: str


class _Document(msgspec.Struct):
    text: str


class _Minted(msgspec.Struct):
    token: str
    key: Key


def _text(text: str) -> str:
    """Free text from a command line as it can be sent; the server keeps no more of it either."""
    return text.encode("utf-8", "replace").decode()[:MOST_TEXT]


def _encode(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half an emoji in an answer of a model: JSON has an escape for it, UTF-8 has none
        return json.dumps(msgspec.to_builtins(value)).encode()
