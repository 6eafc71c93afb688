"""The adapters that speak to a server's console – PromptRegistry, KeyStore, call log – and every way it can fail."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import seed
from tests.contract.remote import ORIGIN, NearbyServer, console_of
from tests.contract.upstream.provider import CA, HERE
from tidegate.console.app import create_app
from tidegate.core.address import Address
from tidegate.core.artifact import Artifact, Message, digest
from tidegate.core.errors import BadInput, Forbidden, NotFound, Refused, TidegateError, Unauthenticated, Unusable
from tidegate.core.evaluation import Repeat, Run
from tidegate.core.keys import Role, Wanted
from tidegate.fakes import FixedClock, FixedRandom
from tidegate.ports import KeyStore, PromptRegistry
from tidegate.prompts.registry import Registry
from tidegate.prompts.remote import RemoteRegistry
from tidegate.stores.control import open_control
from tidegate.telemetry.remote import RemoteCallLog
from tidegate.upstream import server as server_module
from tidegate.upstream.server import API_HEADER, API_VERSION, Server

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
P = "support/answer"


class World:
    """A registry behind a console with keys; `as_` gives the way to it with one of them."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.own = Registry(
            open_control(folder / "control.db"),
            FixedClock(),
            FixedRandom(),
            protects=["production"],
            second_approver=["production"],
        )
        self.settings = settings

    def key(self, name: str, role: Role, **limits: Any) -> str:
        return self.own.keys.create(Wanted(name, role, **limits), who="ada").token

    def as_(self, key: str | None) -> RemoteRegistry:
        return RemoteRegistry(NearbyServer(console_of(self.own, self.folder, **self.settings), key))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with closing(made.own):
        yield made


def artifact(text: str = "x") -> Artifact:
    return Artifact(messages=(Message("user", text),), model="a/b")


def run(run_id: str, output: str = "", **fields: Any) -> Run:
    made = Run(
        run_id,
        P,
        None,
        digest(artifact()),
        sha256(b"s").hexdigest(),
        sha256(b"g").hexdigest(),
        "2026-03-01T12:00:00.000000Z",
        "2026-03-01T12:01:00.000000Z",
        1,
        (Repeat("case", 0, output, cost_nano_usd=2**60, latency_s=0.5),),
        verdict="PASS",
        gate={"reason": "fine"},
    )
    return msgspec.structs.replace(made, **fields)


# who it was


def test_a_second_person_is_another_key(world: World) -> None:
    """A CI job may gate and deploy; that somebody else said yes is told by their key, not by a name in a request."""
    ci = world.as_(world.key("ci", "deployer"))
    ada = world.as_(world.key("ada", "deployer"))
    ci.register(P, artifact())
    ci.save_run(run("r1"), suite="s", golden="g")
    with pytest.raises(Refused, match="has no second approver yet"):
        ci.deploy(P, "v1", who="ci")
    ci.approve(P, "v1", who="ada")
    with pytest.raises(Refused, match="was approved by ci alone, who deploys it"):
        ci.deploy(P, "v1", who="somebody else")
    assert ada.approve(P, "v1", who="whoever").who == "ada"
    move = ci.deploy(P, "v1", who="whoever", git_commit="c" * 40, git_dirty=True)
    assert (move.who, move.approved_by, move.run_id, move.git_commit) == ("ci", "ada", "r1", "c" * 40)
    assert [said.who for said in ci.approvals(P)] == ["ada", "ci"]


def test_two_keys_of_one_name_are_one_person(world: World) -> None:
    first, second = (world.as_(world.key(name, "deployer")) for name in ("ada", "Ada"))
    first.register(P, artifact())
    first.save_run(run("r1"), suite="s", golden="g")
    first.approve(P, "v1", who="")
    with pytest.raises(Refused, match="alone, who deploys it"):
        second.deploy(P, "v1", who="")


def test_a_server_without_keys_takes_the_name_that_it_is_told(world: World) -> None:
    open_server = world.as_(None)
    open_server.register(P, artifact())
    assert open_server.deploy(P, "v1", "staging", who="ada@laptop").who == "ada@laptop"


def test_what_a_key_may_not_do_is_said_with_the_servers_words(world: World) -> None:
    viewer = world.as_(world.key("eve", "viewer"))
    with pytest.raises(Forbidden, match=r"this key may not run evals .* that takes the role editor, deployer or admin"):
        viewer.register(P, artifact())
    with pytest.raises(Forbidden, match="may not deploy, roll back or approve"):
        viewer.rollback(P, who="")
    with pytest.raises(Unauthenticated, match=f"{ORIGIN} asks for a key: set TIDEGATE_API_KEY"):
        world.as_(None).prompts()
    with pytest.raises(Unauthenticated, match="does not accept the key in TIDEGATE_API_KEY: it is unknown, expired or"):
        world.as_("tg_nothing").prompts()


# what comes back is what was sent


@pytest.mark.parametrize("output", ["", "é\u2028\0", "half an emoji \ud83d", "\udcff"])
def test_a_run_comes_back_as_it_was(world: World, output: str) -> None:
    editor = world.as_(world.key("ci", "editor"))
    version = editor.register(P, artifact(), description="d\ud800", file_sha256="a" * 64)
    editor.save_run(run("r1", output), suite="s", golden="g")
    found = editor.run("r1")
    assert found == world.own.run("r1") == run("r1", output, version=version.number)
    assert editor.runs(P, limit=5_000) == world.own.runs(P)


def test_everything_that_is_read_is_read_the_same(world: World) -> None:
    remote: PromptRegistry = world.as_(world.key("ada", "admin"))
    for text in ("a", "b"):
        remote.register(P, artifact(text), description=f"Says {text}.", file_sha256="a" * 64)
        remote.deploy(P, digest(artifact(text)), "staging", who="")
    remote.deploy(P, "v1", "staging", who="", weight=0.25)
    own: PromptRegistry = world.own
    for each in (own, remote):
        assert each.policy == own.policy
        assert each.prompts() == [P]
        assert each.versions(P) == own.versions(P)
        assert each.versions("no/such") == []
        assert each.resolve(P, "staging") == own.resolve(P, "staging")
        assert each.served(P, "v1").artifact == artifact("a")
        assert each.pointers() == each.pointers(P) == own.pointers()
        assert each.pointers()[0].split is not None
        assert each.log() == each.log(P) == own.log()
        assert each.verify() == []
        assert each.rollback_target(P, "staging") == own.rollback_target(P, "staging")
        assert each.rollback_target(P, "production") is None
        with pytest.raises(NotFound, match=r"Did you mean 'support/answer'\?"):
            each.resolve("support/anser", "v1")
        for unknown in ("%2e%2e é", "../../keys", "a/b"):
            with pytest.raises(NotFound):
                each.artifact(unknown)
            with pytest.raises(NotFound):
                each.document(unknown)


def test_keys_are_kept_through_the_server(world: World) -> None:
    admin: KeyStore = world.as_(world.key("ada", "admin")).keys
    token, key = admin.create(Wanted("ci", "deployer", environments=("staging",)), who="whoever")
    assert (key.created_by, key.environments) == ("ada", ("staging",))
    assert world.own.keys.ring().owner(token) is not None
    assert [known.name for known in admin.all()] == ["ada", "ci"]
    assert {known.sha256 for known in admin.all()} == {""}
    assert admin.revoke("ci", who="").revoked_by == "ada"
    with pytest.raises(BadInput, match="can not be a key's name"):
        admin.create(Wanted("", "viewer"), who="")


def test_the_call_log_answers_as_it_does_at_home(tmp_path: Path) -> None:
    with seed.incident(tmp_path, NOW, calls=40) as seeded:
        app = create_app(registry=seeded.registry, call_log=seeded.call_log, project=seeded.project, now=lambda: NOW)
        remote, own = RemoteCallLog(NearbyServer(app)), seeded.call_log
        rows = remote.calls("not output_valid", limit=3)
        assert rows == own.calls("not output_valid", limit=3)
        assert len(rows) == 3
        assert remote.call(rows[0]["id"]) == own.call(rows[0]["id"])
        assert remote.call("no-such") is None
        since = NOW - timedelta(hours=1)
        assert remote.served_by(since) == own.served_by(since)
        assert remote.served_by(since, "no/such") == []
        shown = "version, count(*) AS n, avg(latency_s), max(start), list(outcome)[1]"
        query = f"SELECT {shown} FROM calls GROUP BY ALL ORDER BY ALL"  # noqa: S608
        assert json.loads(msgspec.json.encode(remote.sql(query))) == json.loads(msgspec.json.encode(own.sql(query)))
        assert remote.sql("SELECT * FROM calls", limit=2).more
        with pytest.raises(BadInput, match='Candidate bindings: "version"'):
            remote.sql("SELECT versio FROM calls")
        with pytest.raises(Refused, match="is all that runs here"):
            remote.sql("COPY calls TO '/tmp/x'")


# where evals make their calls


@pytest.mark.parametrize(
    ("origin", "public", "gateway"),
    [
        ("http://127.0.0.1:4001", None, "http://127.0.0.1:4000"),
        ("http://[::1]:4001", None, "http://[::1]:4000"),
        ("https://tidegate.example.com", "https://llm.example.com", "https://llm.example.com"),
        ("https://example.com", "https://example.com/llm/", "https://example.com/llm"),
    ],
)
def test_the_gateway_is_where_the_server_says(world: World, origin: str, public: str | None, gateway: str) -> None:
    world.settings = {"gateway": {"public_url": public}} if public else {}
    remote = world.as_(None)
    remote._server.address = Address(origin)
    assert remote.gateway == gateway


@pytest.mark.parametrize(
    ("address", "public", "message"),
    [
        (Address("https://example.com"), None, "does not say where its gateway is reached from elsewhere"),
        (Address("http://127.0.0.1:80", "/tidegate"), None, "set gateway.public_url in its tidegate.yaml"),
        (Address("https://example.com"), "http://llm.example.com", "would send the key unencrypted"),
    ],
)
def test_a_gateway_that_can_not_be_told_is_said(
    world: World, address: Address, public: str | None, message: str
) -> None:
    world.settings = {"gateway": {"public_url": public}} if public else {}
    remote = world.as_(None)
    remote._server.address = address
    with pytest.raises(BadInput, match=message):
        _ = remote.gateway


def test_a_server_with_another_idea_of_a_digest_is_found_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = world.as_(None)
    monkeypatch.setattr("tidegate.prompts.remote.digest", lambda _: "0" * 64)
    with pytest.raises(BadInput, match="under another digest: it runs another tidegate"):
        remote.register(P, artifact())


# the wire


@contextmanager
def playing(
    answer: bytes, *, tls: ssl.SSLContext | None = None, hold: bool = False
) -> Iterator[tuple[int, list[bytes]]]:
    """A server for one connection that says `answer` to whatever it hears, and what it heard."""
    heard: list[bytes] = []
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def play() -> None:
            try:
                connection, _ = listening.accept()
                with connection:
                    talking = tls.wrap_socket(connection, server_side=True) if tls else connection
                    heard.append(talking.recv(65_536))
                    talking.sendall(answer)
                    if hold:
                        done.wait(10)
                    if tls:
                        talking.close()
            except OSError:
                pass

        thread = threading.Thread(target=play)
        thread.start()
        try:
            yield listening.getsockname()[1], heard
        finally:
            done.set()
            with socket.socket() as last:  # so that a server that nobody asked ends, too
                last.connect_ex(listening.getsockname())
            thread.join(10)


def http(status: int, body: str, *headers: str, api: str = API_VERSION) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"{API_HEADER}: {api}", f"content-length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


def ask(port: int, *, scheme: str = "http", host: str = "127.0.0.1", write: bool = False) -> object:
    remote = Server(Address(f"{scheme}://{host}:{port}", key="tg_secret"))
    return remote.write(list[str], "/prompts", b"{}") if write else remote.read(list[str], "/prompts")


def test_a_request_says_who_asks_and_what_is_accepted() -> None:
    with playing(http(200, '["a"]')) as (port, heard):
        assert ask(port) == ["a"]
    head = heard[0].decode().lower()
    assert head.startswith("get /api/v1/prompts http/1.1\r\n")
    assert f"host: 127.0.0.1:{port}\r\n" in head
    assert "authorization: bearer tg_secret\r\n" in head


WRONG: list[tuple[bytes, type[TidegateError], str]] = [
    (http(302, "", "location: https://evil.test/"), BadInput, "answers with a redirect to 'https://evil.test/'"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", BadInput, "is not a tidegate console .HTTP 200."),
    (http(200, "[]", api="2"), BadInput, "speaks version 2 of the API, and this tidegate version 1"),
    (http(200, '{"a": 1}'), BadInput, "the server's answer is of another tidegate: Expected `array`"),
    (http(200, "<html>"), BadInput, "the server's answer is of another tidegate"),
    (http(500, "oops"), Unusable, "HTTP 500"),
    (http(503, '{"error": {"code": "unusable", "message": "no store."}}'), Unusable, "^no store.$"),
    (http(429, '{"error": {"code": "rate_limit_exceeded", "message": "wait."}}'), Unusable, "wait."),
    (b"", Unusable, "the connection broke before the answer was whole"),
    (http(200, '["a"]')[:-2], Unusable, "the connection broke before the answer was whole"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", Unusable, "what answers there is not an HTTP server"),
    (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200, Unusable, "what answers there is not an HTTP server"),
]


@pytest.mark.parametrize(("answer", "kind", "message"), WRONG)
def test_each_wrong_answer_is_one_clear_sentence(answer: bytes, kind: type[TidegateError], message: str) -> None:
    with playing(answer) as (port, _), pytest.raises(kind, match=message) as error:
        ask(port)
    assert "tg_secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_change_without_an_answer_is_not_known_and_not_sent_again() -> None:
    with playing(b"") as (port, heard), pytest.raises(Unusable, match=r"not known: look with `tidegate log`"):
        ask(port, write=True)
    assert len(heard) == 1


def test_nobody_there_is_one_clear_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(Unusable, match=f"http://127.0.0.1:{port}: it can not be reached: connection refused"):
        ask(port)


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "ANSWER_S", 0.2)
    with playing(http(200, '["a"]')[:-2], hold=True) as (port, _), pytest.raises(Unusable, match="no answer in time"):
        ask(port)


def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_ANSWER_BYTES", 10)
    with playing(http(200, '["aaaaaaaaaaaaaa"]')) as (port, _), pytest.raises(Unusable, match="is longer than"):
        ask(port)


def certified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / "localhost.pem")
    return context


def test_a_certificate_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        playing(b"", tls=certified()) as (port, heard),
        pytest.raises(Unusable, match="its certificate is not trusted"),
    ):
        ask(port, scheme="https", host="localhost")
    assert heard == []
    monkeypatch.setenv("SSL_CERT_FILE", str(CA))
    with playing(http(200, '["a"]'), tls=certified()) as (port, _):
        assert ask(port, scheme="https", host="localhost") == ["a"]
    with playing(b"plain", hold=False) as (port, _), pytest.raises(Unusable, match="no TLS connection"):
        ask(port, scheme="https", host="localhost")


def test_a_proxy_of_the_environment_is_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with playing(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as (port, heard):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:pw@127.0.0.1:{port}")
        with pytest.raises(Unusable, match="407"):
            ask(443, scheme="https", host="tidegate.example.com")
    head = heard[0].decode().lower()
    assert head.startswith("connect tidegate.example.com:443 http/1.")
    assert "proxy-authorization: basic" in head
    assert "tg_secret" not in head
