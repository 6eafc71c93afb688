"""
Static files, each under a URL that changes with its content, so that browsers keep them for ever.

The chart bundle (Vega, Vega-Lite, vega-embed) is carried by vl-convert, which needs a whole V8 to write it out: that
happens once per version of vl-convert, in a process of its own, and the result is kept in the project's state folder.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from threading import Lock

from starlette.responses import Response

from tidegate.core.errors import NotFound, Unusable
from tidegate.private import make_private

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
CHARTS = "charts.js"
WRITE_BUNDLE = "import sys, vl_convert; sys.stdout.buffer.write(vl_convert.javascript_bundle().encode())"


@dataclass(frozen=True)
class Asset:
    """One file, as it is and compressed."""

    body: bytes
    media_type: str

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.body).hexdigest()[:16]

    @cached_property
    def gzipped(self) -> bytes:
        return gzip.compress(self.body, 6, mtime=0)


class Assets:
    """All static files. `cache` is a folder that may not exist and may not be writable. Safe for concurrent calls."""

    def __init__(self, cache: Path) -> None:
        self._bundle_file = cache / f"charts-{version('vl-convert-python')}.js"
        self._lock = Lock()
        self._files = {
            path.name: Asset(path.read_bytes(), TYPES[path.suffix])
            for path in sorted(FOLDER.iterdir())
            if path.suffix in TYPES
        }

    def url(self, name: str) -> str:
        """The address of a file, for a page to name. The first use of `charts.js` on a machine takes about a second."""
        return f"/static/{self._asset(name).digest}/{name}"

    def respond(self, digest: str, name: str, accepts: str) -> Response:
        """The file; `accepts` is the request's Accept-Encoding. Raises NotFound when the content has moved on."""
        asset = self._asset(name)
        if asset.digest != digest:
            raise NotFound(f"{name} has changed since this page was loaded. Load the page again.")
        headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
        if "gzip" in accepts:
            return Response(asset.gzipped, media_type=asset.media_type, headers=headers | {"content-encoding": "gzip"})
        return Response(asset.body, media_type=asset.media_type, headers=headers)

    def _asset(self, name: str) -> Asset:
        if name == CHARTS and name not in self._files:
            with self._lock:
                if name not in self._files:
                    self._files[name] = Asset(self._bundle(), TYPES[".js"])
        if name not in self._files:
            raise NotFound(f"there is no static file {name!r}.")
        return self._files[name]

    def _bundle(self) -> bytes:
        try:
            return self._bundle_file.read_bytes()
        except OSError:
            body = write_bundle()
        try:
            keep(self._bundle_file, body)
        except OSError:
            return body  # a read-only state folder costs a second at each start, nothing else
        return body


def write_bundle(timeout_s: float = 60) -> bytes:
    """Vega, Vega-Lite and vega-embed as one script. Raises Unusable when vl-convert can not make it in time."""
    try:
        done = subprocess.run([sys.executable, "-c", WRITE_BUNDLE], capture_output=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise Unusable(
            f"vl-convert has no chart bundle after {timeout_s:g} s: is the machine busy? Load the page anew."
        ) from error
    if done.returncode or not done.stdout:
        raise Unusable(f"vl-convert could not write the chart bundle (exit code {done.returncode}).")
    return done.stdout


def keep(file: Path, body: bytes) -> None:
    """Writes a whole file or none: a reader never sees half of it. Raises OSError."""
    make_private(file.parent)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(body)
        Path(name).replace(file)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
