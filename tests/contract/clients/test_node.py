"""
OpenAI's SDK for Node as a client, in a process of its own (node/client.mjs).

The package is installed once, from its lock file, into a folder in the user's cache. Where there is no Node or no
package to be had, these tests are skipped; TIDEGATE_REQUIRE_NODE=1 makes that a failure.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.clients.gateway import (
    ANSWER,
    CLIENT_KEY,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    QUESTION,
    SYSTEM,
    TOOL_ANSWER,
    TOOL_RESULT,
    VARIABLES,
    WEATHER,
    Gateway,
    gateway,
)

SOURCES = Path(__file__).parent / "node"
PROGRAM = SOURCES / "client.mjs"
PACKAGE = (SOURCES / "package.json", SOURCES / "package-lock.json")
MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
ASKED = [{"role": "user", "content": "How warm is it?"}]
FORMAT = {"name": "reply", "strict": True, "schema": {"type": "object", "required": ["answer"]}}
DIALECTS = pytest.mark.parametrize("dialect", ["chat", "responses"])


class Node:
    """The process: it takes a call as a line of JSON, and answers with another."""

    def __init__(self, folder: Path) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(["node", PROGRAM, folder], stdin=pipe, stdout=pipe, text=True)

    async def run(self, here: Gateway, **asked: Any) -> Any:
        """What came of a call."""
        self.tell({"origin": here.origin, "key": CLIENT_KEY, "model": "support", "messages": MESSAGES, **asked})
        return await self.heard()

    def tell(self, asked: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(asked)}\n")
        self._process.stdin.flush()

    async def heard(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(await asyncio.to_thread(self._process.stdout.readline))

    def close(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    try:
        folder = install()
    except (OSError, subprocess.SubprocessError) as error:
        if "TIDEGATE_REQUIRE_NODE" in os.environ:
            raise
        pytest.skip(f"Node's client can not be had here: {error}")
    started = Node(folder)
    yield started
    started.close()


def install() -> Path:
    """The folder with the installed package; made once per machine, and whole or not at all."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise FileNotFoundError(f"{tool} is not installed")
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in PACKAGE)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate-tests"
    folder = cache / f"node-{digest}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=cache))
    try:
        for file in PACKAGE:
            shutil.copy(file, making)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=making, check=True, capture_output=True, timeout=60)
        try:
            making.rename(folder)
        except OSError:
            if not folder.exists():  # else another test process was faster
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder


@pytest.mark.parametrize("call", ["chat", "chat_stream", "responses", "responses_stream"])
async def test_an_answer(node: Node, call: str) -> None:
    async with gateway() as here:
        assert await node.run(here, call=call) == {"text": ANSWER, "tokens": [INPUT_TOKENS, OUTPUT_TOKENS]}
    record = here.record()
    assert (record["outcome"], record["streamed"]) == ("ok", call.endswith("_stream"))
    assert record["dialect"] == ("openai_chat" if call.startswith("chat") else "openai_responses")


@pytest.mark.parametrize(("call", "finish"), [("chat_tools", "tool_calls"), ("responses_tools", "function_call")])
async def test_tools_over_two_turns(node: Node, call: str, finish: str) -> None:
    tools = {"model": "tools", "messages": ASKED, "parameters": WEATHER, "result": TOOL_RESULT}
    async with gateway() as here:
        answer = await node.run(here, call=call, **tools)
    assert answer == {"finish_reason": finish, "call": ["weather", {"city": "Paris"}], "text": TOOL_ANSWER}


@pytest.mark.parametrize(
    ("call", "more"),
    [
        ("chat", {"response_format": {"type": "json_schema", "json_schema": FORMAT}}),
        ("responses", {"text": {"format": {"type": "json_schema", **FORMAT}}}),
    ],
)
async def test_structured_output(node: Node, call: str, more: dict[str, Any]) -> None:
    async with gateway() as here:
        assert (await node.run(here, call=call, more=more))["text"] == ANSWER
        sent = json.loads(here.provider.requests[0].body)
    assert sent["response_format"]["json_schema"]["name"] == "reply"


@DIALECTS
async def test_a_prompt_is_called_by_its_name(node: Node, dialect: str) -> None:
    call = {"call": dialect, "model": "prompt:support/answer", "messages": [], "more": {"variables": VARIABLES}}
    async with gateway() as here:
        assert (await node.run(here, **call))["text"] == ANSWER
    record = here.record()
    assert (record["prompt"], record["version"], record["output_valid"]) == ("support/answer", 7, True)


@pytest.mark.parametrize(("call", "first"), [("chat_leave", "assistant"), ("responses_leave", "response.created")])
async def test_a_client_that_leaves_frees_the_provider(node: Node, call: str, first: str) -> None:
    async with gateway("stall=4") as here:
        assert await node.run(here, call=call) == first
        node.tell("leave")
        record = await here.left()
        assert await node.heard() == "left"
    assert (record["outcome"], record["http_status"]) == ("client_closed", 499)


@DIALECTS
@pytest.mark.parametrize(
    ("fault", "model", "expected"),
    [
        ("", "suport", ("NotFoundError", 404)),
        ("", "prompt:support/answer", ("BadRequestError", 400)),
        ("status=429; retry-after=7", "support", ("RateLimitError", 429)),
        ("status=503", "support", ("InternalServerError", 503)),
    ],
)
async def test_errors_are_the_sdks_own(
    node: Node, dialect: str, fault: str, model: str, expected: tuple[str, int]
) -> None:
    async with gateway(*filter(None, [fault])) as here:
        error = (await node.run(here, call=dialect, model=model, messages=MESSAGES[1:], retries=2))["error"]
    assert (error["kind"], error["status"]) == expected
    assert error["retryAfter"] == ("7" if "retry-after" in fault else None)
    assert len(here.records()) == 1  # the SDK was told not to try again


@pytest.mark.parametrize("call", ["chat_stream", "responses_stream"])
async def test_a_stream_that_breaks_throws(node: Node, call: str) -> None:
    async with gateway("cut=4") as here:
        error = (await node.run(here, call=call))["error"]
    assert error["kind"] == "APIError"
    assert error["code"] == "stream_broken"
    assert here.record()["error_type"] == "stream_broken"
