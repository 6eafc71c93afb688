"""
Images as values: which are accepted, and how a rendered text that shows some becomes a list of parts.

While a message is rendered, a mark stands for each image. Marks hold 128 random bits of that one rendering, so that no
text a caller sends can be taken for one; what is sent to the provider never holds a mark.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tidegate.core.errors import InvalidRequest

MAX_DATA_CHARS = 8 << 20
"""Of one data: URI, some 6 MiB of image."""
MAX_URL_CHARS = 8_192
MAX_TOTAL_CHARS = 32 << 20
"""Of all images that one rendering shows; a loop may show one many times."""

_DATA = re.compile(r"data:image/(png|jpeg|webp|gif);base64,")
_URL = re.compile(r"[\x21-\x7e]+\Z")
_BEGINNINGS = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "gif": re.compile(rb"GIF8[79]a"),
    "webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}
_KEPT_DATA = re.compile(r"(data:image/[a-z]{3,4};base64,)([A-Za-z0-9+/=]{64,})")


def image_complaint(value: str) -> str | None:
    """What is wrong with an image, as a sentence without its subject; None when nothing is."""
    if value.startswith("https://"):
        return _url_complaint(value)
    found = _DATA.match(value)
    if found is None:
        return "must be an https:// address, or a data: URI of image/png, jpeg, webp or gif in base64."
    if len(value) > MAX_DATA_CHARS:
        return f"is {len(value):,} characters of data: URI; at most {MAX_DATA_CHARS:,} are allowed."
    try:
        body = binascii.a2b_base64(value[found.end() :].encode(), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        return "is not valid base64 after `base64,`."
    if not _BEGINNINGS[found[1]].match(body):
        return f"does not begin as a {found[1]} image does."
    return None


def _url_complaint(value: str) -> str | None:
    if len(value) > MAX_URL_CHARS:
        return f"is an address of {len(value):,} characters; at most {MAX_URL_CHARS:,} are allowed."
    try:
        url = urlsplit(value)
        good = url.hostname and (url.port is None or url.port) and _URL.match(value)
    except ValueError:
        return "is not a valid https:// address."
    if not good:
        return "is not a valid https:// address."
    return "must not hold a user name or a password." if "@" in url.netloc else None


class Marks:
    """The images of one rendering."""

    def __init__(self) -> None:
        self._secret = secrets.token_hex(16)
        self._images: list[str] = []
        self._shown_chars = 0

    def __bool__(self) -> bool:
        return bool(self._images)

    def put(self, image: str) -> str:
        """The mark that stands for `image`."""
        self._images.append(image)
        return f"[image {self._secret} {len(self._images) - 1}]"

    def content(self, role: str, text: str) -> str | list[dict[str, Any]]:
        """
        A message's content: the text itself when it shows no image, else OpenAI's parts in order.

        Text of nothing but white space between images is left out: not every provider takes it. Raises InvalidRequest
        for an image outside a user message, one a template has cut up, and too much of them.
        """
        pieces = re.split(rf"\[image {self._secret} (\d+)\]", text)
        if any(self._secret in piece.lower() for piece in pieces[::2]):
            raise InvalidRequest("an image can only be shown whole, as `{{ name }}`.", param="variables")
        if len(pieces) == 1:
            return text
        if role != "user":
            raise InvalidRequest(f"an image can not stand in the {role} message.", param="variables")
        parts: list[dict[str, Any]] = []
        for index, piece in enumerate(pieces):
            if index % 2:
                parts.append({"type": "image_url", "image_url": {"url": self._shown(int(piece))}})
            elif piece.strip():
                parts.append({"type": "text", "text": piece})
        return parts

    def _shown(self, number: int) -> str:
        image = self._images[number]
        self._shown_chars += len(image)
        if self._shown_chars > MAX_TOTAL_CHARS:
            raise InvalidRequest(
                f"the images shown are longer than {MAX_TOTAL_CHARS:,} characters together.", param="variables"
            )
        return image


def without_data(text: str) -> str:
    """`text` for a record: each image in it says how long it is instead of being there."""
    if ";base64," not in text:
        return text
    return _KEPT_DATA.sub(lambda found: f"{found[1]}[{len(found[2]):,} characters left out]", text)


def without_images(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables for a record, likewise."""
    return {name: without_data(value) if isinstance(value, str) else value for name, value in variables.items()}


def describe(url: str) -> str:
    """An image for people: its address, or its type and size."""
    found = _DATA.match(url)
    if found is None:
        return f"[image {url}]"
    size = len(base64.b64decode(url[found.end() :]))
    return f"[image/{found[1]}, {size:,} bytes]"
