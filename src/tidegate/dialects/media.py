"""
Which media type a file's name tells, and back: what models take, the same on every machine.

Hides that Python's `mimetypes` answers by its version and by the machine's /etc/mime.types: without that file, Python
3.11 knows neither WebP nor Markdown.
"""

from __future__ import annotations

_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "svg": "image/svg+xml",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "aac": "audio/aac",
    "aiff": "audio/aiff",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "ogg": "audio/ogg",
    "opus": "audio/opus",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "mpg": "video/mpeg",
    "mov": "video/quicktime",
    "avi": "video/x-msvideo",
    "webm": "video/webm",
    "wmv": "video/x-ms-wmv",
    "flv": "video/x-flv",
    "3gp": "video/3gpp",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "html": "text/html",
    "htm": "text/html",
    "css": "text/css",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "xml": "text/xml",
    "rtf": "application/rtf",
    "json": "application/json",
    "js": "text/javascript",
    "py": "text/x-python",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}
_ENDINGS = {kind: ending for ending, kind in reversed(_TYPES.items())}


def told_by(name: str | None) -> str | None:
    """The media type of a file name or a URL, such as `https://a.example/Cat.WEBP?s=2`; None when it tells none."""
    path = (name or "").partition("?")[0].partition("#")[0]
    return _TYPES.get(path.rpartition(".")[2].lower()) if "." in path else None


def ending(media_type: str) -> str:
    """`.pdf` for `application/pdf`; empty for what is not known."""
    known = _ENDINGS.get(media_type.partition(";")[0].strip().lower())
    return f".{known}" if known else ""
