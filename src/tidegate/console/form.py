"""The fields of a form that a page sent."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from tidegate.core.errors import BadInput, TooLarge

MAX_FORM_BYTES = 64 << 10


async def form(request: Request) -> dict[str, str]:
    """A form's fields; of a name that stands twice the last. Raises TooLarge, BadInput."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise TooLarge(f"a form is at most {MAX_FORM_BYTES >> 10} KiB.")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True)) if body else {}
    except ValueError as error:
        raise BadInput("the body is not a form.") from error


Form = Annotated[dict[str, str], Depends(form)]
