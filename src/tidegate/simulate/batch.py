"""
The provider's side of batches: OpenAI's files and batches, and Anthropic's message batches.

A batch ends `batch_s` seconds after it was made, and is answered by the same models. A fault that strikes its making
decides what becomes of it:

    batch=errored      every second request gets an error
    batch=expired      the second half of the requests runs out of time
    batch=cancelled    the second half is cancelled
    batch=failed       OpenAI finds the file wrong; at Anthropic, all requests get errors
    batch=stuck        it never ends
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec

from tidegate.simulate.faults import Fault
from tidegate.simulate.wire import Failure, decode

ENDPOINTS = ("/v1/chat/completions",)
AnswerOne = Callable[[bytes], bytes]
"""A request's body → its answer's. Raises Failure."""


class _Made(msgspec.Struct):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


class _FileLine(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Request(msgspec.Struct):
    custom_id: str
    params: msgspec.Raw


class _Requests(msgspec.Struct):
    requests: list[_Request]


@dataclass(slots=True)
class _Batch:
    id: str
    made_s: float
    fault: str | None
    total: int
    good: list[bytes] = field(default_factory=list)
    """Lines of results."""
    bad: list[bytes] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    """What its maker said of it."""


class Batches:
    """The files and batches of one server. `answered` counts the requests that its models answered."""

    def __init__(self, batch_s: float) -> None:
        self.batch_s = batch_s
        self.answered = 0
        self._ids = count(1)
        self._files: dict[str, bytes] = {}
        self._openai: dict[str, _Batch] = {}
        self._anthropic: dict[str, _Batch] = {}

    # --- OpenAI -------------------------------------------------------------------------------------------------------

    def upload(self, content_type: str, body: bytes) -> dict[str, Any]:
        """`POST /v1/files`."""
        boundary = content_type.partition("boundary=")[2]
        parts = _form(body, boundary)
        if parts.get("purpose") != b"batch" or "file" not in parts:
            raise Failure(400, "'purpose' and 'file' are required.", param="purpose")
        name = self._add(parts["file"])
        return {"id": name, "object": "file", "purpose": "batch", "bytes": len(parts["file"]), "status": "processed"}

    def content(self, file: str) -> bytes:
        """`GET /v1/files/{id}/content`."""
        if file not in self._files:
            raise Failure(404, f"No such File object: {file}", code="not_found")
        return self._files[file]

    def make(self, body: bytes, fault: Fault, answer: AnswerOne) -> dict[str, Any]:
        """`POST /v1/batches`."""
        made = decode(body, _Made)
        if made.endpoint not in ENDPOINTS:
            raise Failure(400, f"Invalid endpoint {made.endpoint!r}.", param="endpoint")
        lines = [decode(line, _FileLine) for line in self.content(made.input_file_id).splitlines() if line.strip()]
        if len({line.custom_id for line in lines}) < len(lines):
            raise Failure(400, "Every custom_id is unique.", param="custom_id")
        batch = _Batch(f"batch_{next(self._ids)}", time.monotonic(), fault.batch, len(lines))
        batch.about = {"metadata": made.metadata, "endpoint": made.endpoint, "input_file_id": made.input_file_id}
        for index, line in enumerate(lines if fault.batch != "failed" else ()):
            fate = _fate(batch, index)
            response: dict[str, Any] | None = None
            if fate == "succeeded":
                response = {"status_code": 200, "request_id": line.custom_id, "body": self._body(answer, line.body)}
            elif fate == "errored":
                error = {"message": "A simulated failure.", "type": "server_error"}
                response = {"status_code": 500, "request_id": line.custom_id, "body": {"error": error}}
            lost = None if response else {"code": f"batch_{fate}", "message": f"This request has {fate}."}
            told = {"id": f"req_{index}", "custom_id": line.custom_id, "response": response, "error": lost}
            (batch.good if fate == "succeeded" else batch.bad).append(msgspec.json.encode(told))
            _count(batch, fate)
        self._openai[batch.id] = batch
        return self._shown(batch)

    def batch(self, name: str) -> dict[str, Any]:
        """`GET /v1/batches/{id}`."""
        return self._shown(_known(self._openai, name))

    def listed(self) -> dict[str, Any]:
        """`GET /v1/batches`, newest first."""
        return {"object": "list", "data": [self._shown(batch) for batch in reversed(self._openai.values())]}

    def _shown(self, batch: _Batch) -> dict[str, Any]:
        ended = self._ended(batch)
        done = {"errored": "completed", None: "completed", "stuck": "in_progress"}.get(batch.fault, batch.fault)
        shown = {
            "id": batch.id,
            "object": "batch",
            "completion_window": "24h",
            "status": done if ended else "in_progress",
            "request_counts": {"total": batch.total, "completed": 0, "failed": 0},
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            **batch.about,
        }
        if ended and batch.fault == "failed":
            shown["errors"] = {"object": "list", "data": [{"code": "invalid", "message": "A simulated refusal."}]}
        elif ended:
            shown["request_counts"] = {"total": batch.total, "completed": len(batch.good), "failed": len(batch.bad)}
            shown["output_file_id"] = self._kept(f"{batch.id}_output", batch.good)
            shown["error_file_id"] = self._kept(f"{batch.id}_error", batch.bad)
        return shown

    def _kept(self, name: str, lines: list[bytes]) -> str | None:
        if lines:
            self._files[name] = b"\n".join(lines) + b"\n"
        return name if lines else None

    def _add(self, content: bytes) -> str:
        name = f"file-{next(self._ids)}"
        self._files[name] = content
        return name

    # --- Anthropic ----------------------------------------------------------------------------------------------------

    def make_messages(self, body: bytes, fault: Fault, answer: AnswerOne) -> dict[str, Any]:
        """`POST /v1/messages/batches`."""
        requests = decode(body, _Requests).requests
        if not requests:
            raise Failure(400, "requests: at least one is required.", param="requests")
        if len({one.custom_id for one in requests}) < len(requests):
            raise Failure(400, "requests: every custom_id is unique.", param="requests")
        batch = _Batch(f"msgbatch_{next(self._ids)}", time.monotonic(), fault.batch, len(requests))
        batch.about = {"created_at": datetime.now(UTC).isoformat()}
        for index, one in enumerate(requests):
            fate = "errored" if fault.batch == "failed" else _fate(batch, index)
            result: dict[str, Any] = {"type": fate}
            if fate == "succeeded":
                message = self._body(answer, one.params)
                result["message"] = {**message, "usage": {**message["usage"], "service_tier": "batch"}}
            elif fate == "errored":
                error = {"type": "api_error", "message": "A simulated failure."}
                result["error"] = {"type": "error", "error": error}
            batch.good.append(msgspec.json.encode({"custom_id": one.custom_id, "result": result}))
            _count(batch, fate)
        self._anthropic[batch.id] = batch
        return self._told(batch)

    def messages_batch(self, name: str) -> dict[str, Any]:
        """`GET /v1/messages/batches/{id}`."""
        return self._told(_known(self._anthropic, name))

    def messages_listed(self) -> dict[str, Any]:
        """`GET /v1/messages/batches`, newest first."""
        return {"data": [self._told(batch) for batch in reversed(self._anthropic.values())], "has_more": False}

    def messages_results(self, name: str) -> bytes:
        """`GET /v1/messages/batches/{id}/results`."""
        batch = _known(self._anthropic, name)
        if not self._ended(batch):
            raise Failure(404, "The batch has not ended, so it has no results.")
        return b"\n".join(batch.good) + b"\n"

    def _told(self, batch: _Batch) -> dict[str, Any]:
        ended = self._ended(batch)
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts |= batch.counts if ended else {"processing": batch.total}
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts,
            **batch.about,
        }

    # ------------------------------------------------------------------------------------------------------------------

    def _ended(self, batch: _Batch) -> bool:
        return batch.fault != "stuck" and time.monotonic() - batch.made_s >= self.batch_s

    def _body(self, answer: AnswerOne, body: msgspec.Raw) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(answer(bytes(body)))
        self.answered += 1
        return found


def _fate(batch: _Batch, index: int) -> str:
    if batch.fault == "errored" and index % 2:
        return "errored"
    if batch.fault in ("expired", "cancelled") and index >= batch.total / 2:
        return {"expired": "expired", "cancelled": "canceled"}[batch.fault]
    return "succeeded"


def _count(batch: _Batch, fate: str) -> None:
    batch.counts[fate] = batch.counts.get(fate, 0) + 1


def _known(batches: dict[str, _Batch], name: str) -> _Batch:
    if name not in batches:
        raise Failure(404, f"No batch found with id {name!r}.", code="not_found")
    return batches[name]


def _form(body: bytes, boundary: str) -> dict[str, bytes]:
    """The parts of a form by their names (RFC 7578)."""
    parts: dict[str, bytes] = {}
    for part in body.split(b"--" + boundary.encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        parts[name] = content.removesuffix(b"\r\n")
    return parts
