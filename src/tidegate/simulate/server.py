"""
The simulated provider itself: scripted models over real HTTP, with latencies and faults.

The same seed and the same request give the same answer, byte for byte. Latencies and faults are drawn in order of
arrival from generators with that seed.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from tidegate.core.errors import BadInput
from tidegate.gateway.edge import Edge, HttpReply, Request
from tidegate.simulate import embed, messages, rules
from tidegate.simulate.batch import Batches
from tidegate.simulate.faults import HEADER, NONE, Fault, Script, parse_fault
from tidegate.simulate.wire import (
    CREATED,
    DONE,
    Answer,
    ChatMessage,
    ChatRequest,
    Failure,
    StreamOptions,
    error_object,
    parse_request,
)

MODELS = (*rules.MODELS, embed.EMBED)
REMEMBERED = 1_000
JSON = ("content-type", "application/json")
EVENTS = ("content-type", "text/event-stream; charset=utf-8")
IN_BAND = msgspec.json.encode(error_object(Failure(500, "A simulated failure inside a 200.", code="server_error")))
GARBAGE = b'{"id":"chatcmpl-\xff\xfe", <html>'


class Latency(msgspec.Struct, frozen=True):
    """Log-normal times; all zero, the default, answers at once."""

    first_byte_s: float = 0.0
    """Median."""
    tokens_per_s: float = math.inf
    """Median speed of the tokens after the first byte."""
    sigma: float = 0.35
    """Spread: the standard deviation of the logarithm."""


class Simulator:
    """
    The simulated provider. `async with Simulator(seed=7) as provider: provider.url`.

    `api_key`: refuse every other key with OpenAI's 401. `script`: faults, as lines of `faults.py` or parsed. `batch_s`:
    how long a batch takes.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        latency: Latency = Latency(),  # noqa: B008  a frozen value
        script: Iterable[Fault | str] = (),
        api_key: str | None = None,
        batch_s: float = 0.0,
    ) -> None:
        self._host = host
        self._port = port
        self._seed = seed
        self._latency = latency
        self._api_key = api_key
        self.batches = Batches(batch_s)
        self._edge = Edge(self._handle, max_body_bytes=64 << 20)
        self._times = {model: random.Random(f"latency {seed} {model}") for model in MODELS}
        question = [ChatMessage("user", "How long do I have to return a pair of shoes?")]
        silent, counted = (
            Answer(ChatRequest(rules.FIXED, question, True, StreamOptions(usage)), seed=seed) for usage in (False, True)
        )
        self._fixed_whole = silent.whole()
        self._fixed_events = silent.events(), counted.events()
        self.requests: deque[Request] = deque(maxlen=REMEMBERED)
        """What was received, oldest first; the last 1,000."""
        self.cancelled = 0
        """Answers that their clients did not wait for."""
        self.set_script(script)

    async def __aenter__(self) -> Simulator:
        self._port = await self._edge.start(self._host, self._port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._edge.close(0)

    @property
    def origin(self) -> str:
        """`http://127.0.0.1:4010`."""
        return f"http://{self._host}:{self._port}"

    @property
    def url(self) -> str:
        """The `base_url` for clients: the origin and `/v1`."""
        return f"{self.origin}/v1"

    @property
    def running(self) -> int:
        """Answers under way."""
        return self._edge.running

    @property
    def connections(self) -> int:
        """Open connections."""
        return self._edge.connections

    def set_script(self, script: Iterable[Fault | str]) -> None:
        """Replaces the faults from the next request on. Raises BadInput on a line that is none."""
        faults = [parse_fault(fault) if isinstance(fault, str) else fault for fault in script]
        self._script = Script(faults, self._seed)

    # --- paths --------------------------------------------------------------------------------------------------------

    async def _handle(self, request: Request, reply: HttpReply) -> None:
        if request.path == "/livez":
            await _send_json(reply, 200, {"status": "ok"})
            return
        self.requests.append(request)
        try:
            await self._route(request, reply)
        except Failure as failure:
            shape = messages.error_object if request.path.startswith("/v1/messages") else error_object
            await _send_json(reply, failure.status, shape(failure))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _route(self, request: Request, reply: HttpReply) -> None:
        keys = (request.headers.get("authorization"), request.headers.get("x-api-key"))
        if self._api_key is not None and keys not in ((f"Bearer {self._api_key}", None), (None, self._api_key)):
            raise Failure(401, "Incorrect API key provided.", code="invalid_api_key")
        fault = self._fault(request)
        if fault is not NONE:
            await asyncio.sleep(fault.delay)
            if fault.not_http:
                reply.raw(b"SSH-2.0-OpenSSH_9.2p1\r\n")
                reply.abort()
                return
            if fault.status is not None:
                retry_after = [("retry-after", fault.retry_after)] if fault.retry_after is not None else []
                failure = Failure(fault.status, "A simulated failure.", code="simulated")
                await _send_json(reply, fault.status, error_object(failure), retry_after)
                return
        if request.path == "/v1/chat/completions":
            _allow(request, "POST")
            await self._chat(request, reply, fault)
        elif request.path == "/v1/embeddings":
            _allow(request, "POST")
            answer = embed.answer(request.body)
            first_byte_s, _ = self._draw_times(embed.EMBED)
            await asyncio.sleep(first_byte_s)
            await _send_whole(reply, answer, fault)
        elif request.path == "/v1/messages":
            _allow(request, "POST")
            await _send_whole(reply, self._message(request.body), fault)
        elif request.path.startswith(("/v1/files", "/v1/batches", "/v1/messages/batches")):
            await self._batch(request, reply, fault)
        elif request.path == "/v1/models":
            _allow(request, "GET")
            shown = {"object": "model", "created": CREATED, "owned_by": "simulated"}
            await _send_json(reply, 200, {"object": "list", "data": [{"id": model, **shown} for model in MODELS]})
        else:
            raise Failure(404, f"Invalid URL ({request.method} {request.path})", code="unknown_url")

    def _fault(self, request: Request) -> Fault:
        line = request.headers.get(HEADER)
        if line is None:
            return self._script.draw()
        try:
            fault = parse_fault(line)
        except BadInput as error:
            raise Failure(400, str(error), param=HEADER) from error
        return fault if self._script.strikes(fault) else NONE

    # --- batches ------------------------------------------------------------------------------------------------------

    async def _batch(self, request: Request, reply: HttpReply, fault: Fault) -> None:
        batches, body = self.batches, request.body
        match request.method, request.path.removeprefix("/v1/").split("/"):
            case "POST", ["files"]:
                await _send_json(reply, 200, batches.upload(request.headers.get("content-type", ""), body))
            case "GET", ["files", file, "content"]:
                await _send_lines(reply, batches.content(file))
            case "POST", ["batches"]:
                await _send_json(reply, 200, batches.make(body, fault, self._completion))
            case "GET", ["batches"]:
                await _send_json(reply, 200, batches.listed())
            case "GET", ["batches", batch]:
                await _send_json(reply, 200, batches.batch(batch))
            case "POST", ["messages", "batches"]:
                await _send_json(reply, 200, batches.make_messages(body, fault, self._message))
            case "GET", ["messages", "batches"]:
                await _send_json(reply, 200, batches.messages_listed())
            case "GET", ["messages", "batches", batch]:
                await _send_json(reply, 200, batches.messages_batch(batch))
            case "GET", ["messages", "batches", batch, "results"]:
                await _send_lines(reply, batches.messages_results(batch))
            case _:
                raise Failure(404, f"Invalid URL ({request.method} {request.path})", code="unknown_url")

    def _completion(self, body: bytes) -> bytes:
        return Answer(parse_request(body), seed=self._seed, body=body).whole()

    def _message(self, body: bytes) -> bytes:
        return messages.answer(body, seed=self._seed, models=rules.MODELS)

    # --- chat ---------------------------------------------------------------------------------------------------------

    async def _chat(self, request: Request, reply: HttpReply, fault: Fault) -> None:
        chat = parse_request(request.body)
        if chat.model == rules.FIXED:
            counted = chat.stream_options is not None and chat.stream_options.include_usage
            if chat.stream:
                await _stream(reply, self._fixed_events[counted], 0.0, fault)
            else:
                await _send_whole(reply, self._fixed_whole, fault)
            return
        answer = Answer(chat, seed=self._seed, body=request.body)
        first_byte_s, token_s = self._draw_times(chat.model)
        if chat.stream:
            await asyncio.sleep(first_byte_s)
            await _stream(reply, answer.events(), token_s, fault)
        else:
            await asyncio.sleep(first_byte_s + token_s * len(answer.tokens))
            await _send_whole(reply, answer.whole(), fault)

    def _draw_times(self, model: str) -> tuple[float, float]:
        """Seconds to the first byte, and per token after it."""
        latency = self._latency
        if not latency.first_byte_s and latency.tokens_per_s == math.inf:
            return 0.0, 0.0
        draw = self._times[model].lognormvariate
        return latency.first_byte_s * draw(0, latency.sigma), draw(0, latency.sigma) / latency.tokens_per_s


async def _stream(reply: HttpReply, events: Sequence[bytes], token_s: float, fault: Fault) -> None:
    await reply.start(200, [EVENTS, ("cache-control", "no-cache")], streamed=True)
    if fault.first_byte:
        await asyncio.sleep(fault.first_byte)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, event in enumerate(events):
        if number == fault.after and await _strike(reply, fault):
            return
        if token_s:
            await asyncio.sleep(began + number * token_s - loop.time())  # when late, a turn all the same: clients leave
        await reply.send(event)
    if len(events) == fault.after and await _strike(reply, fault):
        return
    await reply.end(DONE)


async def _strike(reply: HttpReply, fault: Fault) -> bool:
    """The fault, in the middle of an answer. Whether it was the end of it."""
    if fault.cut is not None:
        if fault.how == "rst":
            await asyncio.sleep(0.05)  # a reset overtakes what the client has not read yet
        reply.abort(reset=fault.how == "rst")
    elif fault.stall is not None:
        await asyncio.get_running_loop().create_future()
    elif fault.garbage is not None:
        await reply.send(b"data: " + GARBAGE + b"\n\n")
        return False
    else:
        await reply.end(b"data: " + IN_BAND + b"\n\n")
    return True


async def _send_whole(reply: HttpReply, body: bytes, fault: Fault) -> None:
    if fault.after != 0:
        await reply.start(200, [JSON], streamed=False)
        await reply.end(body)
    elif fault.garbage is not None:
        await reply.start(200, [JSON], streamed=False)
        await reply.end(GARBAGE)
    elif fault.error is not None:
        await reply.start(200, [JSON], streamed=False)
        await reply.end(IN_BAND)
    else:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        reply.raw(head + body[: len(body) // 2])
        await _strike(reply, fault)


def _allow(request: Request, method: str) -> None:
    if request.method != method:
        message = f"Not allowed to {request.method} on {request.path}. Use {method}."
        raise Failure(405, message, code="method_not_allowed")


async def _send_lines(reply: HttpReply, lines: bytes) -> None:
    await reply.start(200, [("content-type", "application/x-jsonl")], streamed=False)
    await reply.end(lines)


async def _send_json(reply: HttpReply, status: int, value: object, headers: Sequence[tuple[str, str]] = ()) -> None:
    await reply.start(status, [JSON, *headers], streamed=False)
    await reply.end(msgspec.json.encode(value))
