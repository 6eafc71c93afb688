"""
The cache as an operator sees it: `DELETE /v1/cache` forgets all answers, `?prompt=NAME` those of a prompt, and
`?prompt=NAME&version=v3` those of one version of it.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

import msgspec

from tidegate.core.errors import Forbidden, InvalidRequest, TidegateError, WrongMethod
from tidegate.core.keys import Access
from tidegate.dialects import openai_chat
from tidegate.gateway.edge import Request
from tidegate.gateway.lookup import Lookup
from tidegate.gateway.relay import JSON_HEADERS
from tidegate.ports import PromptSource, Reply

PATH = "/v1/cache"
ASKS = ("prompt", "version")


async def answer(request: Request, reply: Reply, lookup: Lookup | None, prompts: PromptSource, access: Access) -> None:
    """Answers `{"purged": 12}`, or an error in OpenAI's shape."""
    headers = [JSON_HEADERS]
    try:
        if request.method != "DELETE":
            headers.append(("allow", "DELETE"))
            raise WrongMethod(f"{PATH} takes DELETE.")
        purged = await _purge(request.query, lookup, prompts, access)
    except TidegateError as error:
        await reply.start(error.http_status, headers, streamed=False)
        await reply.end(openai_chat.DIALECT.error_body(error))
        return
    await reply.start(200, headers, streamed=False)
    await reply.end(msgspec.json.encode({"purged": purged}))


async def _purge(query: str, lookup: Lookup | None, prompts: PromptSource, access: Access) -> int:
    if not access.may("move"):
        raise Forbidden("this key may not empty the cache; that takes the role deployer or admin.")
    try:
        asked = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=8))
    except ValueError as error:
        raise InvalidRequest(f"{PATH} takes {' and '.join(ASKS)}, each once.") from error
    prompt, version = (asked.get(name) for name in ASKS)
    if unknown := next((name for name in asked if name not in ASKS and name != "key"), None):
        raise InvalidRequest(f"{PATH} takes {' and '.join(ASKS)}, not {unknown[:80]!r}.", param=unknown[:80])
    if prompt is not None:
        access.require_prompt(prompt)
    elif access.prompts is not None or access.models is not None:
        raise Forbidden("this key may empty the cache of its own prompts only: name one.", param="prompt")
    if version is None:
        digest = None
        if prompt is not None and prompt not in prompts.names():
            await prompts.find(prompt, "v1")  # every registered prompt has one
    elif prompt is None:
        raise InvalidRequest("a version is one of a prompt: name that too.", param="prompt")
    else:
        served = prompts.live(prompt, version) or await prompts.find(prompt, version)
        digest = served.digest
    return 0 if lookup is None else await lookup.purge(prompt, digest)
