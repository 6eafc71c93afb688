"""
Everything that can go wrong, as one tree.

    TidegateError            a clear sentence, a code, an HTTP status, an exit code
    ├─ InvalidFile           a user's file is wrong: file:line, field path, nearest valid name      exit 4
    ├─ BadInput              a command's arguments or its surroundings are wrong (port, folder)      exit 4
    ├─ NotFound              no such prompt, version, environment, run or call                       exit 4, 404
    ├─ Refused               a policy said no: never retried, never an alert                         exit 1, 403
    ├─ Unusable              work began and could not be finished (provider down, store broken)      exit 3, 503
    ├─ RequestError          the client's request is wrong
    │  ├─ InvalidRequest     400
    │  ├─ Unauthenticated    401
    │  ├─ BudgetExhausted    402, saying when there is money again
    │  ├─ Forbidden          403
    │  ├─ UnknownModel       404
   │  ├─ UnknownPath        404
   │  ├─ WrongMethod        405
    │  ├─ TooLarge           413
    │  └─ Saturated          429, with the seconds to wait
    ├─ UpstreamError         a provider failed; `retryable` says whether another attempt may help
    │  ├─ UpstreamUnavailable 502  no connection, or it broke before an answer
    │  ├─ UpstreamTimeout     504
    │  ├─ UpstreamProtocol    502  an answer that is not HTTP or not the dialect
    │  ├─ UpstreamRejected    the provider's own status and body, passed on
    │  └─ StreamBroken        502  the stream ended too early; after the first byte there is no retry
    └─ InternalError         500  a bug of ours

Messages are safe to show to whoever caused them: no secrets, no upstream credentials, no stack. Foreign exceptions are
translated once, in the adapter that meets them; the original stays in `__cause__`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class TidegateError(Exception):
    """Base of all errors that tidegate raises on purpose. `str(error)` is the message for people."""

    code = "internal_error"
    http_status = 500
    exit_code = 3
    retryable = False


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one place in a user's file."""

    file: str
    line: int
    """1-based; 0 when the file as a whole is meant."""
    field: str
    """Dotted path inside the file, or an empty string."""
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


class InvalidFile(TidegateError):
    """One or more problems in files the user wrote; all that could be found at once."""

    code = "invalid_file"
    http_status = 400
    exit_code = 4

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class BadInput(TidegateError):
    """Arguments, or the surroundings of the command, are wrong: nothing was done."""

    code = "bad_input"
    http_status = 400
    exit_code = 4


class NotFound(TidegateError):
    """No such thing; the message names the nearest ones."""

    code = "not_found"
    http_status = 404
    exit_code = 4


class Refused(TidegateError):
    """A policy said no. The message says which, and what would change its mind."""

    code = "refused"
    http_status = 403
    exit_code = 1


class Unusable(TidegateError):
    """Work began and could not be finished; what was done so far is kept."""

    code = "unusable"
    http_status = 503
    exit_code = 3


MOST_SAID = (1_000, 400)
"""Characters of a message's beginning and end: it may quote what a client sent, which may be megabytes."""


class RequestError(TidegateError):
    """The client's request is wrong. `param` names the offending field where there is one."""

    code = "invalid_request_error"
    http_status = 400
    exit_code = 4

    def __init__(self, message: str, *, param: str | None = None) -> None:
        first, last = MOST_SAID
        super().__init__(message if len(message) <= first + last else f"{message[:first]} … {message[-last:]}")
        self.param = param


class InvalidRequest(RequestError):
    """The body, a header or a parameter can not be understood."""


class Unauthenticated(RequestError):
    """No key, or one that is not known, expired or revoked: always the same words."""

    code = "invalid_api_key"
    http_status = 401


class BudgetExhausted(RequestError):
    """What is left of a budget is less than the call may cost; the message says whose, and when it begins anew."""

    code = "budget_exhausted"
    http_status = 402


class Forbidden(RequestError):
    """The key is known and may not do this."""

    code = "forbidden"
    http_status = 403


class UnknownModel(RequestError):
    """Neither a route, nor provider/model, nor a prompt."""

    code = "model_not_found"
    http_status = 404


class UnknownPath(RequestError):
    """Nothing is served there; the message names the paths that are."""

    code = "unknown_path"
    http_status = 404


class WrongMethod(RequestError):
    """The path is served, for another method; the `allow` header names it."""

    code = "method_not_allowed"
    http_status = 405


class TooLarge(RequestError):
    """Body, header or field over its stated size."""

    code = "request_too_large"
    http_status = 413


class Saturated(RequestError):
    """A rate or a concurrency is used up; `retry_after_s` says when to come back."""

    code = "rate_limit_exceeded"
    http_status = 429
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UpstreamError(TidegateError):
    """A provider did not give an answer. `retryable`: another attempt, here or elsewhere, may succeed."""

    code = "upstream_error"
    http_status = 502
    retryable = True
    provider = ""
    """The name of the provider, where the message does not hold it already."""

    def __str__(self) -> str:
        said = super().__str__()
        return f"provider {self.provider!r}: {said}" if self.provider else said


class UpstreamUnavailable(UpstreamError):
    """No connection, or it broke before the answer began."""

    code = "upstream_unavailable"


class UpstreamTimeout(UpstreamError):
    """A deadline passed: `phase` is connect, first_byte, idle or total."""

    code = "upstream_timeout"
    http_status = 504

    def __init__(self, message: str, *, phase: str) -> None:
        super().__init__(message)
        self.phase = phase


class UpstreamProtocol(UpstreamError):
    """The provider answered with something that is not HTTP, too large, or not its own dialect."""

    code = "upstream_protocol"


class UpstreamRejected(UpstreamError):
    """The provider answered with an error status; `body` is its (redacted) answer."""

    code = "upstream_rejected"
    final = False
    """It says itself that it is not to be asked again (`x-should-retry: false`); another one may be."""

    def __init__(self, message: str, *, status: int, body: bytes, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.http_status = status
        self.body = body
        self.retry_after_s = retry_after_s
        self.retryable = status in (408, 409, 425, 429) or status >= 500


class StreamBroken(UpstreamError):
    """The provider broke off: tried again before the client has seen anything, else the dialect's error event."""

    code = "stream_broken"


class InternalError(TidegateError):
    """A bug of ours. The message tells nothing but the call id; the log has the rest."""


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """`" Did you mean 'x'?"` for the closest known name, the list when it is short, or an empty string."""
    names: Sequence[str] = sorted(set(known))
    close = get_close_matches(name, names, n=1, cutoff=cutoff)
    if close:
        return f" Did you mean {close[0]!r}?"
    if 0 < len(names) <= 12:
        return f" Known: {', '.join(names)}."
    return ""


def nearest_model(name: str, routes: Iterable[str], providers: Iterable[str]) -> str:
    """As `nearest`, for a route or `provider/model`: of those it is the provider that may be a little wrong."""
    providers = sorted(providers)
    provider, _, model = name.partition("/")
    close = get_close_matches(provider, providers, n=1) if model else []
    models = [f"{known}/{model}" for known in close] or [f"{known}/MODEL" for known in providers]
    return nearest(name, [*routes, *models])
