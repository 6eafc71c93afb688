"""A provider on this machine that speaks OpenAI's protocol and says what a test wants it to say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Said = str | bytes | dict[str, Any]
"""A text, a message as OpenAI has it, or a body as it stands."""
Say = Callable[[dict[str, Any]], tuple[int, Said]]
"""A request of a chat → status and what is said; a status of 0 ends the connection."""


class Provider(ThreadingHTTPServer):
    """`with Provider(say) as provider: provider.url`."""

    daemon_threads = True

    def __init__(self, say: Say) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.say = say
        self.calls = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Provider

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.calls += 1
        status, said = self.server.say(asked)
        if status == 0:
            self.close_connection = True
            return
        body = said if isinstance(said, bytes) else json.dumps(_whole(asked, said, status)).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _whole(asked: dict[str, Any], said: Any, status: int) -> dict[str, Any]:
    if status != 200:
        return {"error": {"message": said, "type": "said_by_a_test"}}
    message = said if isinstance(said, dict) else {"role": "assistant", "content": said}
    reason = "tool_calls" if message.get("tool_calls") else "stop"
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": asked["model"],
        "choices": [{"index": 0, "finish_reason": reason, "message": message}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20},
    }
