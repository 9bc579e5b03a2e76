# SPDX-License-Identifier: Apache-2.0
"""A server on loopback that speaks as much of the Hub's API as the client needs, and folders small enough to be sent."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicProcessor,
    LatentActionTokenizerConfig,
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerImageProcessor,
    PrismaticConfig,
)
from cyclemimic.models.cyclemimic import make_tiny_backbone_config

from ..label_files import write_labels

TOKEN = "hf_MARKEDmarkedMARKEDmarkedMARKEDmarked"
LARGE = (".safetensors", ".parquet")


@dataclass
class Repository:
    """Commits, oldest first: id to the files of it."""

    is_private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commit = list(self.commits)[-1] if revision == "main" else revision
        return (commit, self.commits[commit]) if commit in self.commits else None


class HubServer(ThreadingHTTPServer):
    """Who has `token` may do everything, and others read what is not private."""

    daemon_threads = True

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.uploads_before_break: int | None = None
        self.uploading = threading.Lock()
        self.is_echoing = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        for pattern, method in _ROUTES:
            if match := re.fullmatch(pattern, path):
                with suppress(BrokenPipeError):
                    method(self, **match.groupdict())
                return
        self._refuse(404, "EntryNotFound")

    @property
    def _is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.server.token}"

    def _answer(self, values: Any) -> None:
        self._send(200, json.dumps(values).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        echo = self.headers.get("Authorization", "") if self.server.is_echoing else ""
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": f"{code} {echo}"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _open(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self.server.repositories.get(name)
        if repository is None or (repository.is_private and not self._is_owner):
            self._refuse(401, "RepoNotFound")
            return None
        found = repository.at(revision)
        if found is None:
            self._refuse(404, "RevisionNotFound")
        return found

    def create(self) -> None:
        if not self._is_owner:
            return self._refuse(401, "Unauthorized")
        wanted = json.loads(self.body)
        prefix = f"{wanted['type']}s/" if wanted.get("type", "model") != "model" else ""
        name = f"{prefix}{wanted.get('organization') or 'me'}/{wanted['name']}"
        if name in self.server.repositories:
            return self._send(409, json.dumps({"url": f"{self.server.url}/{name}"}).encode(), {})
        self.server.repositories[name] = Repository(wanted.get("visibility") == "private")
        self._answer({"url": f"{self.server.url}/{name}", "name": name})

    def validate_card(self) -> None:
        self._answer({"errors": [], "warnings": []})

    def info(self, kind: str, name: str, revision: str | None = None) -> None:
        found = self._open(_key(kind, name), revision or "main")
        if found:
            commit, files = found
            private = self.server.repositories[_key(kind, name)].is_private
            siblings = [{"rfilename": path} for path in files]
            self._answer({"id": name, "sha": commit, "private": private, "siblings": siblings, "tags": []})

    def tree(self, kind: str, name: str, revision: str) -> None:
        found = self._open(_key(kind, name), revision)
        if found:
            files = found[1].items()
            self._answer([{"type": "file", "path": path, "size": len(b), "oid": _etag(path, b)} for path, b in files])

    def preupload(self, kind: str, name: str, revision: str) -> None:
        if not self._is_owner:
            return self._refuse(401, "RepoNotFound")
        paths = [file["path"] for file in json.loads(self.body)["files"]]
        modes = {path: "lfs" if path.endswith(LARGE) else "regular" for path in paths}
        files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
        self._answer({"files": files})

    def batch(self, name: str) -> None:
        wanted = json.loads(self.body)["objects"]
        for item in wanted:
            if item["oid"] not in self.server.objects:
                item["actions"] = {"upload": {"href": f"{self.server.url}/objects/{item['oid']}"}}
        self._answer({"transfer": "basic", "objects": wanted})

    def upload(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        before_break = self.server.uploads_before_break
        with self.server.uploading:  # the client sends several at once
            is_broken = before_break is not None and len(self.server.uploads) >= before_break
            if not is_broken:
                self.server.uploads.append(oid)
        if is_broken:
            self.close_connection = True
            return self.connection.close()
        self.server.objects[oid] = self.body
        self._send(200, b"", {})

    def commit(self, kind: str, name: str, revision: str) -> None:
        if not self._is_owner:
            return self._refuse(401, "RepoNotFound")
        repository = self.server.repositories[_key(kind, name)]
        files = dict(repository.at(revision)[1])
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = hashlib.sha1(self.body + str(len(repository.commits)).encode()).hexdigest()
        repository.commits[oid] = files
        self._answer({"commitUrl": f"{self.server.url}/{name}/commit/{oid}", "commitOid": oid})

    def resolve(self, name: str, revision: str, path: str) -> None:
        found = self._open(name, revision)
        if not found:
            return
        commit, files = found
        if path not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        self._send(200, files[path], {"ETag": f'"{_etag(path, files[path])}"', "X-Repo-Commit": commit})


def _key(kind: str, name: str) -> str:
    return name if kind == "models" else f"{kind}/{name}"


def _etag(path: str, content: bytes) -> str:
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


_API = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
_ROUTES = [
    ("/api/repos/create", _Handler.create),
    ("/api/validate-yaml", _Handler.validate_card),
    (_API, _Handler.info),
    (_API + "/revision/(?P<revision>[^/]+)", _Handler.info),
    (_API + "/tree/(?P<revision>[^/]+)", _Handler.tree),
    (_API + "/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (_API + "/commit/(?P<revision>[^/]+)", _Handler.commit),
    (r"/(?P<name>.+)\.git/info/lfs/objects/batch", _Handler.batch),
    ("/objects/(?P<oid>[0-9a-f]+)", _Handler.upload),
    ("/(?P<name>(datasets/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]


@pytest.fixture
def server() -> Iterator[HubServer]:
    """A Hub that no client knows of."""
    with HubServer(TOKEN) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def hub(server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubServer:
    """The Hub of this process' client, who has its token."""
    from huggingface_hub import constants, hf_api
    from huggingface_hub.utils import _http

    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    # What it has read from HF_ENDPOINT and the like when it was imported.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hf_api.api, "endpoint", server.url)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return server


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with its image processor, in two shards."""
    folder = tmp_path_factory.mktemp("hub") / "tokenizer"
    config = LatentActionTokenizerConfig(
        image_size=16,
        patch_size=8,
        vision_config=None,
        hidden_size=32,
        num_attention_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_discriminator_layers=1,
        codebook_dim=8,
    )
    LatentActionTokenizerForPreTraining(config).save_pretrained(folder, max_shard_size="200KB")
    LatentActionTokenizerImageProcessor(size=16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy with its processor, on a backbone that transformers does not know."""
    folder = tmp_path_factory.mktemp("hub") / "policy"
    processor = CycleMimicProcessor.from_texts(["open the drawer"], image_size=32)
    bounds = {"q01": [-2.0] * 7, "q99": [2.0] * 7}
    processor.add_action_statistics("arm", bounds)
    backbone = make_tiny_backbone_config(processor, 32, hidden_size=32, num_text_layers=1)
    config = processor.make_config(backbone, action_decoder_hidden_size=32, action_decoder_num_heads=1)
    CycleMimicForActionPrediction(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def prismatic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy on the package's own backbone, and `backbone` in it, that alone."""
    folder = tmp_path_factory.mktemp("hub") / "prismatic"
    processor = CycleMimicProcessor.from_texts(["open the drawer"], image_size=28, patch_size=14)
    tower = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    backbone = PrismaticConfig(
        vision_config={"model_type": "dinov2_with_registers", **tower},
        fused_vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **tower},
        text_config={"model_type": "llama", "vocab_size": len(processor.tokenizer), **text},
        image_token_id=processor.image_token_id,
    )
    config = processor.make_config(backbone, action_decoder_hidden_size=32, action_decoder_num_heads=1)
    model = CycleMimicForActionPrediction(config)
    model.save_pretrained(folder)
    model.backbone.save_pretrained(folder / "backbone")
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of three pairs."""
    folder = tmp_path_factory.mktemp("hub") / "labels"
    columns = {
        "source": ["squares"] * 3,
        "episode_index": [0, 0, 1],
        "frame_index": [0, 1, 0],
        "future_index": [5, 6, 5],
        "instruction": ["go left"] * 3,
        "codes": np.arange(12).reshape(3, 4),
    }
    write_labels(folder, columns, codebook_size=16, num_latent_tokens=4, tokenizer="me/tokenizer")
    return folder
