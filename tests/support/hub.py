"""A model hub on loopback, as much of it as downloading one repository takes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    """Answers for one repository, whose files are those of a folder."""

    protocol_version = "HTTP/1.1"
    repository: str
    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        """Answer without the content."""
        self._answer()

    def do_GET(self) -> None:
        """Answer with the content."""
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(f"{self.command} {path}")
        if path.startswith(f"/api/models/{self.repository}"):
            within = path.partition("/tree/")[2]
            listing = ([] if "/" in within else self._tree()) if within else self._model()
            self._send(200, json.dumps(listing).encode())
            return
        parts = path.lstrip("/").split("/")
        file = self.folder.joinpath(*parts[4:])
        if "/".join(parts[:3]) == f"{self.repository}/resolve" and file.is_file():
            self._send(200, file.read_bytes())
        elif "/".join(parts[:2]) == self.repository:
            self._send(404, b"", **{"X-Error-Code": "EntryNotFound"})
        else:
            self._send(404, b"{}", **{"X-Error-Code": "RepoNotFound"})

    def _files(self) -> list[Path]:
        return [file for file in self.folder.rglob("*") if file.is_file()]

    def _model(self) -> dict[str, Any]:
        names = [{"rfilename": str(file.relative_to(self.folder))} for file in self._files()]
        return {"id": self.repository, "sha": COMMIT, "siblings": names}

    def _tree(self) -> list[dict[str, Any]]:
        return [
            {
                "type": "file",
                "path": str(file.relative_to(self.folder)),
                "size": file.stat().st_size,
                "oid": COMMIT,
            }
            for file in self._files()
        ]

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def hub(repository: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder as a repository, and give the hub's address and the list of what it is asked for."""
    asked: list[str] = []
    handler = type("Handler", (_Handler,), {"repository": repository, "folder": folder, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
