"""
The registry: which versions a prompt has, what is live where, and how it came to be so.

A version's number is given once, by the store, to a digest that is first registered; pointers move only together with a
line in the ledger. The rules of moving stand here: what a protected environment asks for, and where a rollback goes.
Every method is one short transaction; any number of processes may use a registry at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from tidegate.core.artifact import Artifact, digest, from_canonical, short
from tidegate.core.chain import Fault, faults
from tidegate.core.errors import BadInput, NotFound, Refused, nearest
from tidegate.core.evaluation import Run
from tidegate.core.ids import uuid7
from tidegate.core.instant import iso_utc
from tidegate.core.json_schema import NotASchema, validator
from tidegate.core.keys import keys_of
from tidegate.core.ledger import (
    Approval,
    Deployment,
    Head,
    Measure,
    Pointer,
    Policy,
    Served,
    Share,
    Snapshot,
    Split,
    Version,
    as_kept,
    rolled_back,
)
from tidegate.core.run_lines import RunFilter, RunLine, RunSummary
from tidegate.core.selector import is_digest, is_number, means
from tidegate.core.split import check_weight, shown
from tidegate.ports import Clock, ControlStore, ControlTransaction, Random
from tidegate.prompts import approval
from tidegate.prompts.files import check_name
from tidegate.prompts.keys import KeyBook

_ENVIRONMENT = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")


class Registry:
    """Prompts, versions, environments and runs of one project. Blocking; safe to share between threads."""

    def __init__(
        self,
        store: ControlStore,
        clock: Clock,
        random: Random,
        *,
        protects: Sequence[str],
        second_approver: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self.policy = Policy(frozenset(protects), frozenset(second_approver))
        self.keys = KeyBook(store, clock, random)

    def close(self) -> None:
        """Lets go of the store."""
        self._store.close()

    # versions

    def register(self, prompt: str, artifact: Artifact, *, description: str = "", file_sha256: str = "") -> Version:
        """
        The version of this content: the one it has, or the next number.

        Raises: BadInput for an impossible name, or a schema that is none: it may come from elsewhere than from a file.
        """
        check_name(prompt)
        key = digest(artifact)
        with self._store.read() as tx:
            known = tx.version_of(prompt, key)
        if known:
            return known
        _check_schemas(artifact)
        with self._store.write() as tx:
            known = tx.version_of(prompt, key)  # another process may have been first
            if known:
                return known
            number = max((version.number for version in tx.versions(prompt)), default=0) + 1
            version = Version(
                prompt=prompt,
                number=number,
                digest=key,
                created_at=self._now(),
                description=as_kept(description),
                file_sha256=file_sha256,
            )
            tx.put_artifact(key, artifact)
            tx.add_version(version)
        return version

    def resolve(self, prompt: str, selector: str) -> Version:
        """
        The version that `v3`, a digest or its first 6 and more hex digits, or an environment's name means.

        Raises: NotFound with the nearest names, BadInput when a digest prefix means several versions.
        """
        with self._store.read() as tx:
            return _resolve(tx, prompt, selector)

    def artifact(self, digest: str) -> Artifact:
        """The stored content of a full digest. Raises NotFound."""
        with self._store.read() as tx:
            return _artifact(tx, digest)

    def served(self, prompt: str, selector: str) -> Served:
        """A version together with its content. Raises as `resolve`."""
        with self._store.read() as tx:
            version = _resolve(tx, prompt, selector)
            return Served(prompt, version.number, version.digest, _artifact(tx, version.digest))

    def prompts(self) -> list[str]:
        """The names of all prompts that have a version, sorted."""
        with self._store.read() as tx:
            return list(tx.prompts())

    def versions(self, prompt: str) -> list[Version]:
        """Newest first; empty when the prompt is not known."""
        with self._store.read() as tx:
            return sorted(tx.versions(prompt), key=lambda version: -version.number)

    # what is live

    def pointers(self, prompt: str | None = None) -> list[Pointer]:
        """What each environment points at, by prompt and environment."""
        with self._store.read() as tx:
            return list(tx.pointers(prompt))

    def log(self, prompt: str | None = None) -> list[Deployment]:
        """Every move, newest first."""
        with self._store.read() as tx:
            return list(tx.deployments(prompt))[::-1]

    def snapshot(self, before: Snapshot | None = None) -> Snapshot:
        """All that a gateway serves from. Given the snapshot `before`, only what has changed since is read."""
        generation = self.generation()  # before the rest: a change in between is then seen by the next look
        with self._store.read() as tx:
            head = tx.head()
            keys = keys_of([sealed.line for sealed in tx.key_lines()])
            if before is not None and head == before.head:
                return Snapshot(generation, before.live, head, before.texts, keys)
            moved = None if before is None else tx.moved(before.head)
            pointers = tx.pointers() if moved is None else moved
            known = {} if before is None else before.texts
            wanted = {digest for pointer in pointers for digest in _digests(pointer)}
            texts = {**known, **tx.texts(wanted - known.keys())}
        live = {} if before is None or moved is None else dict(before.live)
        live |= {(pointer.prompt, pointer.environment): _live(pointer, texts) for pointer in pointers}
        snapshot = Snapshot(generation, live, head, keys=keys)
        return msgspec.structs.replace(
            snapshot,
            texts={served.digest: texts[served.digest] for served in snapshot.versions()},
            anew=moved is None and before is not None and before.head != Head(),
        )

    def wait_for_change(self, generation: int, timeout_s: float) -> int:
        """The present generation: as soon as it is not `generation`, at the latest when the time is up."""
        return self._store.wait_for_change(generation, timeout_s)

    def verify(self) -> list[Fault]:
        """Every line about deployments or keys that was edited, removed or moved since; empty when none was."""
        with self._store.read() as tx:
            return faults(tx.lines(), tx.pointers(), tx.key_lines())

    def generation(self) -> int:
        """A number that is another one after any change."""
        return self._store.generation()

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
        """
        Points `environment` at a version. What is live there already stays, and its last deployment is given back.

        With a `weight` the version gets that share of the calls, and what is live keeps the rest; the same again with
        another weight moves the share, and a deploy without one ends the split.

        A protected environment takes only a version whose last gate verdict is PASS, and where the policy asks for it
        one that somebody other than `who` approved; no environment takes a version that was rolled back there. `force`
        overrules all of this, needs a reason, and is written down as forced.

        Args:
            measure: the suite and golden set that stand in the prompt's folder: only verdicts and approvals under just
                these count. None when there is no folder to compare with: then the last verdict under any.
            weight: above 0 and below 1. It asks for as much as a deploy to all calls does.

        Raises: Refused, NotFound, BadInput.
        """
        if force and not reason.strip():
            raise BadInput("--force needs --reason: the ledger keeps why the policy was overruled.")
        _check_environment(environment)
        if weight is not None:
            check_weight(weight)
        with self._store.write() as tx:
            version = _resolve(tx, prompt, selector)
            ledger = tx.deployments(prompt, environment)
            live = _pointer(tx, prompt, environment)
            if live and _serves(live, version, weight):
                return ledger[-1]
            _check_split(live, version, environment, weight)
            found = approval.of(tx, self.policy, version, environment, who=as_kept(who), measure=measure)
            refusal = _rolled_back_before(version, environment, ledger) or found.refusal
            if live and live.version == version.number:
                refusal = None  # it serves the rest, so nothing goes live that is not: this only ends the split
            if refusal and not force:
                raise Refused(refusal)
            return self._move(
                tx,
                version,
                environment,
                "deploy",
                live,
                weight=weight,
                who=who,
                reason=reason,
                forced=refusal is not None,
                run=found.run,
                approved_by=found.second.who if found.second else None,
                git_commit=git_commit,
                git_dirty=git_dirty,
            )

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
        """
        Writes down that `who` approves a version for an environment that asks for a second approver.

        It holds for this version under the suite and golden set of its gate run. Saying it twice writes one line.

        Raises: Refused when the version has no passing gate run (`measure` as in `deploy`), NotFound, BadInput when the
            environment asks for no second approver.
        """
        _check_environment(environment)
        if environment not in self.policy.second_approver:
            raise BadInput(
                f"{environment} asks for no second approver, so there is nothing to approve."
                " `gate: {second_approver: [...]}` in tidegate.yaml names the environments that do."
            )
        with self._store.write() as tx:
            version = _resolve(tx, prompt, selector)
            found = approval.of(tx, self.policy, version, environment, who="", measure=measure)
            if environment in self.policy.protects and found.run is None:
                raise Refused(found.refusal or "")
            for said in approval.standing(tx, version, environment, found.run):
                if said.who == as_kept(who):
                    return said
            now_ns = self._clock.now_ns()
            given = Approval(
                id=uuid7(now_ns // 1_000_000, self._random.bits(80)),
                prompt=prompt,
                environment=environment,
                version=version.number,
                digest=version.digest,
                who=as_kept(who),
                reason=as_kept(reason),
                at=iso_utc(now_ns),
                run_id=found.run.id if found.run else None,
                suite_digest=found.run.suite_digest if found.run else None,
                golden_digest=found.run.golden_digest if found.run else None,
            )
            tx.add_approval(given)
        return given

    def approvals(self, prompt: str | None = None) -> list[Approval]:
        """What second approvers said, newest first."""
        with self._store.read() as tx:
            return list(tx.approvals(prompt))[::-1]

    def rollback(
        self, prompt: str, environment: str = "production", *, who: str, reason: str = "", to: str | None = None
    ) -> Deployment:
        """
        Points `environment` back at the last version that was live there and was not itself rolled back; or at `to`,
        which must be such a version. While traffic is split that is the version which serves the rest. Needs no
        approval: it was live before.

        Raises: NotFound when nothing is deployed there or nothing came before, Refused and BadInput for a wrong `to`.
        """
        _check_environment(environment)
        with self._store.write() as tx:
            ledger = tx.deployments(prompt, environment)
            if not ledger:
                _known_prompt(tx, prompt)
                raise NotFound(f"{prompt} was never deployed to {environment}: there is nothing to roll back.")
            live = _pointer(tx, prompt, environment)
            number = _earlier(live, ledger) if to is None else _chosen(_resolve(tx, prompt, to), live, ledger)
            if number is None:
                raise NotFound(
                    f"{prompt} has no earlier version in {environment} that was not rolled back:"
                    f" v{ledger[-1].to_version} stays live."
                )
            version = next(version for version in tx.versions(prompt) if version.number == number)
            return self._move(tx, version, environment, "rollback", live, who=who, reason=reason)

    def rollback_target(self, prompt: str, environment: str = "production") -> Version | None:
        """Where `rollback` without `to` would go now; None when there is nothing to go back to."""
        with self._store.read() as tx:
            number = _earlier(_pointer(tx, prompt, environment), tx.deployments(prompt, environment))
            return next((version for version in tx.versions(prompt) if version.number == number), None)

    # runs

    def save_run(self, run: Run, *, suite: str, golden: str, summary: RunSummary | None = None) -> None:
        """
        Stores a run, and the texts of its suite and golden set under the digests it names.

        A run without a version gets that of its digest, when there is one. Without its summary, whoever lists it first
        makes one. Raises BadInput when its id is stored.
        """
        with self._store.write() as tx:
            if run.version is None and (version := tx.version_of(run.prompt, run.digest)):
                run = msgspec.structs.replace(run, version=version.number)
            tx.put_document(run.suite_digest, "suite", suite)
            tx.put_document(run.golden_digest, "golden", golden)
            tx.save_run(run)
            if summary is not None:
                tx.put_summary(run.id, summary)

    def run(self, run_id: str) -> Run:
        """A run with all its results. Raises NotFound."""
        with self._store.read() as tx:
            found = tx.run(run_id)
        if found is None:
            raise NotFound(f"no run {run_id!r}.")
        return found

    def runs(self, prompt: str | None = None, limit: int = 100) -> list[Run]:
        """Last stored first, without their results."""
        with self._store.read() as tx:
            return list(tx.runs(prompt, limit=limit))

    def run_lines(self, wanted: RunFilter, *, limit: int, before: str | None = None) -> list[RunLine]:
        """Last stored first, without answers; `before` is the id of the last run of the page before."""
        with self._store.read() as tx:
            return list(tx.run_lines(wanted, limit=limit, before=before))

    def keep_summaries(self, summaries: Mapping[str, RunSummary]) -> None:
        """By run id: what `run_lines` gives with these runs from now on."""
        with self._store.write() as tx:
            for run_id, summary in summaries.items():
                tx.put_summary(run_id, summary)

    def document(self, digest: str) -> str:
        """The text of a stored suite or golden set. Raises NotFound."""
        with self._store.read() as tx:
            found = tx.document(digest)
        if found is None:
            raise NotFound(f"no stored suite or golden set has the digest {digest!r}.")
        return found

    def _move(
        self,
        tx: ControlTransaction,
        version: Version,
        environment: str,
        action: Literal["deploy", "rollback"],
        live: Pointer | None,
        *,
        weight: float | None = None,
        who: str,
        reason: str,
        forced: bool = False,
        run: Run | None = None,
        approved_by: str | None = None,
        git_commit: str | None = None,
        git_dirty: bool | None = None,
    ) -> Deployment:
        now_ns = self._clock.now_ns()
        deployment = Deployment(
            id=uuid7(now_ns // 1_000_000, self._random.bits(80)),
            prompt=version.prompt,
            environment=environment,
            action=action,
            from_version=_leaving(live, version),
            to_version=version.number,
            to_digest=version.digest,
            who=as_kept(who),
            reason=as_kept(reason),
            at=iso_utc(now_ns),
            forced=forced,
            run_id=run.id if run else None,
            git_commit=git_commit,
            git_dirty=git_dirty,
            suite_digest=run.suite_digest if run else None,
            golden_digest=run.golden_digest if run else None,
            approved_by=approved_by,
            weight=weight,
        )
        tx.move(deployment)
        return deployment

    def _now(self) -> str:
        return iso_utc(self._clock.now_ns())


def _pointer(tx: ControlTransaction, prompt: str, environment: str) -> Pointer | None:
    return next((pointer for pointer in tx.pointers(prompt) if pointer.environment == environment), None)


def _serves(live: Pointer, version: Version, weight: float | None) -> bool:
    """Whether a deploy would change nothing."""
    if weight is None:
        return live.split is None and live.version == version.number
    return live.split is not None and (live.split.version, live.split.weight) == (version.number, weight)


def _check_split(live: Pointer | None, version: Version, environment: str, weight: float | None) -> None:
    """Raises BadInput when there is nothing to share the calls with."""
    if weight is None:
        return
    if live is None:
        raise BadInput(
            f"nothing of {version.prompt} is live in {environment}, so nothing could serve the rest of its calls."
            " Deploy without a weight first."
        )
    if live.version == version.number:
        raise BadInput(
            f"{version.prompt} {version.name} is what {environment} serves already"
            + (f" ({shown(live)}): give the weight of the other version." if live.split else ".")
        )


def _leaving(live: Pointer | None, version: Version) -> int | None:
    """The version that a move takes calls from."""
    if live is None:
        return None
    return live.split.version if live.split and live.version == version.number else live.version


def _earlier(live: Pointer | None, ledger: Sequence[Deployment]) -> int | None:
    """Where a rollback goes: a version that served all calls once, and was not rolled back."""
    if live is None or live.split is not None:
        return live.version if live else None
    out = rolled_back(ledger).keys() | {live.version}
    whole = [move.to_version for move in ledger if move.weight is None]
    return next((number for number in reversed(whole) if number not in out), None)


def _rolled_back_before(version: Version, environment: str, ledger: Sequence[Deployment]) -> str | None:
    move = rolled_back(ledger).get(version.number)
    if move is None:
        return None
    why = f' ("{move.reason}")' if move.reason else ""
    return (
        f"{version.prompt} {version.name} was rolled back from {environment} by {move.who} at {move.at}{why}."
        " Deploy another version, or overrule with --force --reason."
    )


def _chosen(version: Version, live: Pointer | None, ledger: Sequence[Deployment]) -> int:
    environment = ledger[-1].environment
    if live and live.split and version.number == live.version:
        return version.number
    if live and version.number in live.shares:
        raise BadInput(
            f"{version.prompt} {version.name} is what {environment} serves already"
            + (f" ({shown(live)}). Deploy it without a weight to give it all calls." if live.split else ".")
        )
    if version.number not in {move.to_version for move in ledger}:
        raise Refused(
            f"{version.prompt} {version.name} was never live in {environment}, so a rollback can not go back to it."
            " Deploy it instead."
        )
    refusal = _rolled_back_before(version, environment, ledger)
    if refusal:
        raise Refused(refusal)
    return version.number


def _digests(pointer: Pointer) -> list[str]:
    return [pointer.digest] if pointer.split is None else [pointer.digest, pointer.split.digest]


def _live(pointer: Pointer, texts: Mapping[str, str]) -> Served:
    split = pointer.split
    live = _served(pointer.prompt, pointer, texts)
    if split is None:
        return live
    share = Share(split.id, split.weight, _served(pointer.prompt, split, texts))
    return msgspec.structs.replace(live, split=share)


def _served(prompt: str, named: Pointer | Split, texts: Mapping[str, str]) -> Served:
    if named.digest not in texts:
        raise NotFound(f"no stored artifact has the digest {named.digest!r}.")
    return Served(prompt, named.version, named.digest, from_canonical(texts[named.digest]))


def _artifact(tx: ControlTransaction, digest: str) -> Artifact:
    found = tx.artifact(digest)
    if found is None:
        raise NotFound(f"no stored artifact has the digest {digest!r}.")
    return found


def _known_prompt(tx: ControlTransaction, prompt: str) -> None:
    known = tx.prompts()
    if not known:
        raise NotFound(f"no prompt named {prompt!r}: nothing is registered yet. `tidegate eval` or `deploy` does so.")
    if prompt not in known:
        raise NotFound(f"no registered prompt is named {prompt!r}.{nearest(prompt, known)}")


def _resolve(tx: ControlTransaction, prompt: str, selector: str) -> Version:
    _known_prompt(tx, prompt)
    versions = tx.versions(prompt)
    pointers = {pointer.environment: pointer.version for pointer in tx.pointers(prompt)}
    if selector in pointers:
        return next(version for version in versions if version.number == pointers[selector])
    wanted = [version for version in versions if means(selector, version.number, version.digest)]
    if len(wanted) > 1:
        names = ", ".join(f"{version.name} ({short(version.digest)})" for version in wanted)
        raise BadInput(f"{prompt}: the digest prefix {selector!r} means {names}: give more digits.")
    if not wanted:
        known = [*pointers, *(version.name for version in versions)]
        raise NotFound(
            f"{prompt} has no version {selector[:80]!r}, and nothing is deployed to an environment of that name."
            f"{nearest(selector, known)}"
        )
    return wanted[0]


def _check_environment(name: str) -> None:
    if not _ENVIRONMENT.match(name) or is_number(name) or is_digest(name):
        raise BadInput(
            f"{name[:80]!r} can not be an environment's name: use a-z, 0-9, '_' and '-', such as production or staging,"
            " and nothing that reads as a version or a digest."
        )


def _check_schemas(artifact: Artifact) -> None:
    schemas = {f"tools.{tool.name[:80]}.parameters": tool.parameters for tool in artifact.tools}
    if artifact.output.schema is not None:
        schemas["output.schema"] = artifact.output.schema
    for name, schema in schemas.items():
        try:
            validator(schema)
        except NotASchema as error:
            raise BadInput(f"artifact.{name}: not a valid JSON Schema: {error}.") from error
