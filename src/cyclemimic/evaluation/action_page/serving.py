# SPDX-License-Identifier: Apache-2.0
"""Serves the page: to this machine unless told otherwise, without share links or statistics, uploads capped."""

from __future__ import annotations

import logging
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemimic.loopback import is_loopback

from .uploads import MAX_BYTES

if TYPE_CHECKING:
    import gradio

logger = logging.getLogger(__name__)

MAX_FILES, MAX_TOTAL_BYTES = 10_000, 2 << 30
"""Most files, a dozen of them small ones of each look at a video, and bytes that visitors may leave behind at a time; Gradio
deletes them an hour later."""
_TEMPLATES = Path(__file__).parents[1] / "templates"
# A page may not take in another host's, whatever finds its way into it; Gradio's own scripts are inline.
_CONTENT_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'"
)


def require_gradio() -> None:
    """Raises `ValueError` where Gradio is not installed."""
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError("the page needs the package gradio: pip install 'cyclemimic[space]'") from error


def check_port_is_free(host: str, port: int | None) -> None:
    """Raises `ValueError` where a page could not listen there, before anything is made that it would show."""
    if port is None:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except OSError as error:
        raise ValueError(f"`port` must be free on {host}, got {port}: {error.strerror or error}.") from error


@contextmanager
def serving(build: Callable[[], gradio.Blocks], host: str, port: int | None) -> Iterator[tuple[gradio.Blocks, str]]:
    """
    Serves a page while the context lasts; what was uploaded is gone with it.

    Args:
        build (`Callable`): Builds the blocks; called once.
        host (`str`): Address to listen on, e.g. `"127.0.0.1"`.
        port (`int`, *optional*): The first free one from 7860 on by default.

    Yields:
        The blocks, and the page's address.

    Raises:
        OSError: The port is taken.
        ValueError: Gradio is not installed.
    """
    require_gradio()
    if not is_loopback(host):
        logger.warning("listening on %s: whoever can reach this machine can use the page, there is no password", host)
    with tempfile.TemporaryDirectory(prefix="cyclemimic-page-") as folder, _environment(GRADIO_TEMP_DIR=folder):
        blocks = build()
        _, url, _ = blocks.queue(max_size=16).launch(**_launch_options(host, port, folder))
        try:
            yield blocks, url
        finally:
            blocks.close(verbose=False)


def _launch_options(host: str, port: int | None, folder: str) -> dict[str, Any]:
    import gradio
    from starlette.middleware import Middleware

    fonts = ["system-ui", "sans-serif"]
    return {
        "server_name": host,
        "server_port": port,
        "share": False,
        "inbrowser": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "ssr_mode": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "run_history": False,
        "footer_links": [],
        "allowed_paths": [],
        "max_file_size": MAX_BYTES,
        "state_session_capacity": 64,
        "theme": gradio.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"]),
        "css": "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("chips.css", "action.css")),
        "app_kwargs": {"middleware": [Middleware(UploadLimits, folder=folder)], "openapi_url": None},
    }


class UploadLimits:
    """
    Refuses what a request may not send before any of it is read, and names no other host to the browser.

    Args:
        app: The application behind it (ASGI).
        folder (`str`): Where uploads lie.
    """

    def __init__(self, app: Any, folder: str) -> None:
        self.app = app
        self.folder = Path(folder)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, or passes it on."""
        from starlette.datastructures import MutableHeaders
        from starlette.responses import PlainTextResponse

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = _CONTENT_POLICY
            await send(message)

        refusal = self._refusal(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        if refusal is not None:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send_with_policy)
        else:
            await self.app(scope, receive, send_with_policy)

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"").decode("latin-1")
        # A server reads no more than the length that was announced, but for a body in chunks, which it reads to its end.
        if not length.isdecimal() or b"transfer-encoding" in headers:
            return 411, "The request must tell its length."
        if int(length) > MAX_BYTES:
            return 413, f"At most {MAX_BYTES >> 20} MB can be sent at once."
        if scope["path"].endswith("/upload") and self._is_full(int(length)):
            return 503, "Too many files have been sent; try again in an hour."
        return None

    def _is_full(self, num_bytes: int) -> bool:
        """Whether there is no room for so many bytes more."""
        sizes = []
        for file in self.folder.rglob("*"):
            # Gradio may delete one meanwhile.
            with suppress(FileNotFoundError):
                found = file.stat()
                sizes += [found.st_size] if stat.S_ISREG(found.st_mode) else []
        return len(sizes) >= MAX_FILES or sum(sizes) + num_bytes > MAX_TOTAL_BYTES


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
