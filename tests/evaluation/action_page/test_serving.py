# SPDX-License-Identifier: Apache-2.0
"""What the server lets in and out, asked over HTTP; and the page itself, in a browser."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemimic.data import encode_video
from cyclemimic.evaluation.action_page.page_blocks import ActionPage
from cyclemimic.evaluation.action_page.serving import check_port_is_free, require_gradio, serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome"))), None)
WAIT_MS = 20_000
PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--b--\r\n'
MULTIPART = "multipart/form-data; boundary=b"


def test_a_port_that_is_taken():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(
            ValueError, match=rf"`port` must be free on 127\.0\.0\.1, got {port}: Address already in use"
        ):
            check_port_is_free("127.0.0.1", port)
    check_port_is_free("127.0.0.1", port)
    check_port_is_free("127.0.0.1", None)


@pytest.fixture(scope="module")
def address(explorer) -> Iterator[str]:
    pytest.importorskip("gradio", reason="the page needs gradio")
    page = ActionPage(explorer, "Latent actions", "data: arm, leg", 0.1)
    with serving(page.build, "127.0.0.1", None) as (blocks, url):
        assert blocks.share_url is None and blocks.analytics_enabled is False
        yield url
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
    assert not folder.exists() and "GRADIO_TEMP_DIR" not in os.environ


def ask(url: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, body, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


def test_without_gradio_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"^the page needs the package gradio: pip install 'cyclemimic\[space\]'$"):
        require_gradio()


def test_no_file_of_the_machine_is_served(address, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"not for you")
    for path in (tmp_path / "secret.png", "/etc/passwd", Path(__file__), "setup.py", "../../etc/passwd"):
        status, text = ask(f"{address}gradio_api/file={path}")
        assert status in (403, 404) and "not for you" not in text and "root:" not in text
    assert ask(f"{address}openapi.json")[0] == 404
    assert json.loads(ask(f"{address}gradio_api/info")[1]) == {"named_endpoints": {}, "unnamed_endpoints": {}}


def test_uploads_are_capped(address, monkeypatch):
    monkeypatch.setattr("cyclemimic.evaluation.action_page.serving.MAX_FILES", 500)
    upload = f"{address}gradio_api/upload"
    # Told only: what is announced is refused before any of it is read.
    assert ask(upload, b"x", Content_Length=str(65 << 20)) == (413, "At most 64 MB can be sent at once.")
    # Of two lengths, a server takes the one that no announcement bounds.
    chunked = {"Content_Length": "5", "Transfer_Encoding": "chunked"}
    assert ask(upload, b"1\r\nx\r\n0\r\n\r\n", **chunked) == (411, "The request must tell its length.")
    assert ask(upload, PART, Content_Type=MULTIPART)[0] == 200
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    for index in range(500):
        (folder / str(index)).touch()
    try:
        assert ask(upload, PART, Content_Type=MULTIPART) == (
            503,
            "Too many files have been sent; try again in an hour.",
        )
    finally:
        for index in range(500):
            (folder / str(index)).unlink()
    # Nor may few large ones fill the disk.
    (folder / "large").write_bytes(bytes(5000))
    try:
        monkeypatch.setattr("cyclemimic.evaluation.action_page.serving.MAX_TOTAL_BYTES", 4000)
        assert ask(upload, PART, Content_Type=MULTIPART)[0] == 503
        monkeypatch.setattr("cyclemimic.evaluation.action_page.serving.MAX_TOTAL_BYTES", 40_000)
        assert ask(upload, PART, Content_Type=MULTIPART)[0] == 200
    finally:
        (folder / "large").unlink()


def show_pair(address: str, path: str) -> str:
    """What the server answers where both frames are said to lie at a path of its own."""
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    session = f"s{abs(hash(path))}"
    body = json.dumps({"data": [file, file, None], "fn_index": 1, "session_hash": session}).encode()
    assert ask(f"{address}gradio_api/queue/join", body, Content_Type="application/json")[0] == 200
    return ask(f"{address}gradio_api/queue/data?session_hash={session}")[1]


@pytest.mark.parametrize("path", ["/etc/passwd", "http://127.0.0.1:9/a.png", "HTTPS://example.org/a.png"])
def test_no_path_and_no_link_passes_for_an_upload(address, path, monkeypatch):
    fetched = []
    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", lambda url, **_: fetched.append(url))
    events = show_pair(address, path)
    assert '"success":false' in events and "codes" not in events and "root:" not in events
    assert fetched == []


def test_what_is_no_picture_is_said_in_the_page(address):
    (path,) = json.loads(ask(f"{address}gradio_api/upload", PART, Content_Type=MULTIPART)[1])
    events = show_pair(address, path)
    assert '"success":true' in events and "The current frame does not decode" in events and path not in events


@pytest.fixture(scope="module")
def browser_page(address):
    # Set where this must not be passed over, as in continuous integration.
    if not os.environ.get("REQUIRE_BROWSER"):
        pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
        if CHROMIUM is None:
            pytest.skip("the browser test needs chromium")
    assert CHROMIUM is not None
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(WAIT_MS)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        yield page
        browser.close()


def test_the_page_in_a_browser(browser_page, address, explorer, tmp_path):
    page, result = browser_page, browser_page.locator("#result")
    page.locator(".thumbnail-lg:visible").nth(1).click()
    result.locator(".large .codes").wait_for()
    shown = result.locator(".large .codes > span").all_inner_texts()
    assert tuple(map(int, shown)) == explorer.view_example(explorer.examples()[1]).codes
    assert result.locator("section[aria-label=transfer] figure").count() == 1
    assert result.locator("section[aria-label='nearest pairs'] figure").count() == 3
    # Pictures that did not load are 0 wide; chips without their style are not coloured.
    assert result.locator("img").evaluate_all("images => images.every(image => image.naturalWidth > 0)")
    colour = result.locator(".large .codes > span").first.evaluate("chip => getComputedStyle(chip).backgroundColor")
    assert colour not in ("rgba(0, 0, 0, 0)", "rgb(255, 255, 255)")

    page.get_by_role("tab", name="Two frames of your own").click()
    page.get_by_role("button", name="Show the latent action").click()
    result.get_by_text("add a current and a future frame").wait_for()
    for place, (name, size) in enumerate((("a", (24, 24)), ("b", (24, 24)), ("c", (16, 24)))):
        Image.effect_noise(size, 80).convert("RGB").save(tmp_path / f"{name}.png")
        page.locator("input[type=file]").nth(place).set_input_files(tmp_path / f"{name}.png")
        page.locator(f"img[src*='{name}.png']").wait_for()
    page.get_by_role("button", name="Show the latent action").click()
    result.get_by_text("your frame").wait_for()

    frames = np.random.default_rng(3).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    encode_video(tmp_path / "film.mp4", frames, 10.0)
    page.get_by_role("tab", name="A video of your own").click()
    page.locator("input[type=file][accept*=video]").set_input_files(tmp_path / "film.mp4")
    page.locator("video[src*='film.mp4']").wait_for()
    page.get_by_role("button", name="Read the video").click()
    page.locator(".thumbnail-lg:visible").nth(4).click()
    result.locator(".large .codes").wait_for()
    own = (address, "data:", f"blob:{address}")
    assert [url for url in page.asked if not url.startswith(own)] == []
