"""Contents and parts: the messages that Gemini's requests and answers share."""

from __future__ import annotations

import msgspec

from tidegate.dialects import fields

NO_RAW = msgspec.Raw(b"")


class Blob(msgspec.Struct, rename="camel"):
    """Base64 bytes."""

    mime_type: str = ""
    data: str = ""


class FileData(msgspec.Struct, rename="camel"):
    """A file by its address: uploaded to Google, or anywhere on the web."""

    file_uri: str = ""
    mime_type: str | None = None


class FunctionCall(msgspec.Struct):
    """The model asks for a function. The id may be missing."""

    name: str = ""
    args: msgspec.Raw = NO_RAW
    id: str | None = None


class FunctionResponse(msgspec.Struct):
    """What it gave back: an object, and pictures beside it."""

    name: str = ""
    response: msgspec.Raw = NO_RAW
    id: str | None = None
    parts: list[Part] | None = None


class Part(msgspec.Struct, rename="camel"):
    """One part; of the kinds one is set. A thought is a text with a mark."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    video_metadata: msgspec.Raw = NO_RAW
    media_resolution: msgspec.Raw = NO_RAW


class Content(msgspec.Struct):
    """One turn: of the user, who also brings the results of functions, or of the model."""

    role: str | None = None
    parts: list[Part] | None = None


def arguments(call: FunctionCall) -> str:
    """The arguments as JSON text."""
    return fields.arguments(call.args)
