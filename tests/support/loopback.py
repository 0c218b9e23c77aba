"""A rerank service on loopback, in a process of its own, that speaks every provider's format and fails on demand.

The first part of a path says which format: ``http://127.0.0.1:<port>/cohere`` is a base URL for Cohere's SDK.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import contextlib
import gzip
import hashlib
import hmac
import json
import math
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["AWS_KEY", "AWS_SECRET", "FAULTS", "Loopback", "oci_folder", "running", "score"]

AWS_KEY, AWS_SECRET = "AKIAEXAMPLE", "aws-Zq7PvT4mXw9LrB2n"
"""Credentials whose signatures the Bedrock format takes."""

OCI_KEY_ID = "ocid1.tenancy.oc1..aaaatest/ocid1.user.oc1..aaaatest/20:3b:97:13:55:1c:5b:0d:d3:37:d8:50:4e:c5:3a:34"
"""Whose key signs in the OCI format, see :func:`oci_folder`."""
OCI_SIGNED = {"(request-target)", "content-length", "content-type", "date", "host", "x-content-sha256"}
"""What a signature of that format covers."""

STATUS_FAULTS = (
    "307",
    "400",
    "401",
    "403",
    "404",
    "408",
    "413",
    "422",
    "429",
    "500",
    "501",
    "502",
    "503",
    "520",
    "529",
)
BODY_FAULTS = ("html-200", "html-429", "html-502", "truncated-json", "not-utf-8")
WIRE_FAULTS = ("cut-body", "drop", "slow")
ROW_FAULTS = (
    "empty-results",
    "extra-result",
    "index-duplicate",
    "index-float",
    "index-negative",
    "index-out-of-range",
    "index-string",
    "missing-result",
    "results-no-list",
    "results-missing",
    "row-no-object",
    "score-bool",
    "score-huge",
    "score-infinite",
    "score-missing",
    "score-nan",
    "score-null",
    "score-string",
)
FAULTS = (*STATUS_FAULTS, "429-retry-after", *BODY_FAULTS, *WIRE_FAULTS, *ROW_FAULTS, "usage-missing")

DOCUMENT_KEYS = ("documents", "texts", "input", "inputs", "passages", "records")
RESULTS = {
    "deepinfra": "scores",
    "elasticsearch": "rerank",
    "fireworks": "data",
    "mixedbread": "data",
    "nvidia": "rankings",
    "oci": "documentRanks",
    "pinecone": "data",
    "vertex": "records",
    "voyage": "data",
}
"""Where an answer has its results, if not under ``results``; sglang and tei answer with a bare list."""
SCORES = {"bedrock": "relevanceScore", "nvidia": "logit", "oci": "relevanceScore"} | dict.fromkeys(
    ("isaacus", "mixedbread", "pinecone", "sglang", "tei", "vertex", "watsonx"), "score"
)
LOGITS = ("llamacpp", "nvidia", "watsonx")

UNBILLED = {*STATUS_FAULTS, "429-retry-after", "html-429"} - {"500", "502", "520"}
"""What the service refuses; everything else it does and bills, whether its answer arrives or not."""

_STATUS_TEXT = {429: "Too Many Requests", 529: "Overloaded"}


def score(query: str, text: str) -> float:
    """Return the relevance in (0, 1) that the service gives a text: shared words, and a little of its own."""
    words = set(query.lower().split())
    shared = len(words & set(text.lower().split())) / max(1, len(words))
    return 0.01 + 0.88 * shared + 0.1 * zlib.crc32(text.encode(errors="replace")) / 2**32


class _Service:
    def __init__(self) -> None:
        self.bills: dict[str, Counter[str]] = {}
        """By model; no plan resets them, because a request may arrive after its client has gone."""
        self.reset({})

    def reset(self, plan: dict[str, Any]) -> None:
        """Take a plan: ``faults`` and ``delays`` (lists, one a request), ``always``, ``rates``, ``delay``, …"""
        self.faults: list[str | None] = list(plan.get("faults", ()))
        self.always: str | None = plan.get("always")
        self.rates: dict[str, float] = plan.get("rates", {})
        self.delay: float = plan.get("delay", 0.0)
        self.delays: list[float] = list(plan.get("delays", ()))
        self.retry_after: str = plan.get("retry_after", "0.05")
        self.message: str = plan.get("message", "the service refuses this on demand")
        self.only: str | None = plan.get("only")
        self.record: bool = plan.get("record", True)
        self.reply: Any = plan.get("reply")
        self.models: Any = plan.get("models")
        self.flat: bool = plan.get("flat", False)
        self.headers: dict[str, str] = plan.get("headers", {})
        self.padding: int = plan.get("padding", 0)
        self.gzip: int = plan.get("gzip", 0)
        self.page: int = plan.get("page", 0)
        self.replies: dict[tuple[str, int], bytes] = {}
        self.random = random.Random(plan.get("seed", 0))
        self.connections = 0
        self.active = self.most_active = 0
        self.counts: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []

    def fault(self, documents: list[str]) -> str | None:
        """Return the fault of the next request."""
        if self.only is not None and self.only not in documents:
            return None
        if self.always is not None:
            return self.always
        if self.faults:
            return self.faults.pop(0)
        drawn = self.random.random() if self.rates else 1.0
        for name, rate in self.rates.items():
            if drawn < rate:
                return name
            drawn -= rate
        return None

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        counted = False
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                path = head[0].split(" ")[1]
                if path.startswith("http://"):  # we are the proxy
                    path = "/" + path.split("/", 3)[3]
                if path.startswith("/_"):
                    self._control(path, body, writer)
                elif head[0].startswith("GET "):
                    self.counts["models"] += 1
                    _send(writer, 200, json.dumps(self.models).encode())
                else:
                    if not counted:
                        self.connections += 1
                        counted = True
                    if not await self._rerank(path, headers, body, reader, writer):
                        break
                await writer.drain()
        writer.close()

    def _control(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if path == "/_plan":
            self.reset(json.loads(body))
        stats = {
            "bills": self.bills,
            "connections": self.connections,
            "counts": self.counts,
            "most_active": self.most_active,
            "requests": self.requests,
        }
        _send(writer, 200, json.dumps(stats).encode())

    async def _rerank(
        self,
        path: str,
        headers: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer a request; False where the connection ends with it."""
        shape = path.split("/")[1]
        request = json.loads(body)
        query, texts = _query_and_texts(request)
        signed = {"bedrock": _is_signed, "oci": _is_signed_for_oci}.get(shape)
        if signed is not None and not signed(path, headers, body):
            _send(writer, 403, b'{"message": "The request signature we calculated does not match"}')
            return True
        fault = self.fault(texts)
        self.counts["requests"] += 1
        self.counts[fault or "answered"] += 1
        self.counts["documents"] += 0 if fault else len(texts)
        if fault not in UNBILLED:
            bill = self.bills.setdefault(str(request.get("model")), Counter())
            bill.update(tokens=7 * len(texts), search_units=-(-len(texts) // 100))
        if self.record:
            self.requests.append({"path": path, "headers": headers, "body": request, "at": time.monotonic()})
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            if not await self._patient(reader):
                self.counts["abandoned"] += 1
                return False
            return await self._answer(shape, {**request, "query": query}, texts, fault, writer)
        finally:
            self.active -= 1

    async def _patient(self, reader: asyncio.StreamReader) -> bool:
        """Let a request wait as planned; False where the client does not wait for its end."""
        until = time.monotonic() + (self.delays.pop(0) if self.delays else self.delay)
        while (left := until - time.monotonic()) > 0.0:
            if reader.at_eof():
                return False
            await asyncio.sleep(min(left, 0.005))
        return True

    def _flat_reply(self, shape: str, texts: list[str]) -> bytes:
        """Return an answer that takes this process no time, for measuring the other one."""
        key = (shape, len(texts))
        if key not in self.replies:
            self.replies[key] = _reply(shape, {"query": "a"}, [str(number) for number in range(len(texts))], None)
        return self.replies[key]

    async def _answer(
        self,
        shape: str,
        request: dict[str, Any],
        texts: list[str],
        fault: str | None,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if fault == "drop":
            return False
        status, extra = 200, {"x-request-id": "req-1"}
        reply = self._flat_reply(shape, texts) if self.flat else _reply(shape, request, texts, fault)
        if self.page:
            payload, start = json.loads(reply), int(request.get("nextToken", 0))
            payload["results"] = payload["results"][start : start + self.page]
            more = {"nextToken": str(start + self.page)} if start + self.page < len(texts) else {}
            reply = json.dumps({**payload, **more}).encode()
        if self.reply is not None:
            reply = json.dumps(self.reply).encode()
        if shape == "tei" and fault != "usage-missing":
            extra["x-compute-tokens"] = str(7 * len(texts))
        if shape == "litellm" and fault != "usage-missing":
            extra["x-litellm-response-cost"] = "0.0063"
        if fault is not None and fault[:3].isdigit():
            status = int(fault[:3])
            reply = json.dumps({"detail": self.message, "message": self.message}).encode()
            if fault == "307":
                extra["location"] = f"/{shape}/elsewhere"
            if fault == "429-retry-after":
                extra["retry-after"] = self.retry_after
        elif fault in BODY_FAULTS:
            reply = {
                "html-200": b"<html><body>Welcome</body></html>",
                "html-429": b"<html><body>Slow down</body></html>",
                "html-502": b"<html><body>Bad gateway</body></html>",
                "not-utf-8": b'{"results": "\xff\xfe"}',
                "truncated-json": reply[: len(reply) // 2],
            }[fault]
            status = {"html-429": 429, "html-502": 502}.get(fault, 200)
        kind = "text/html" if (fault or "").startswith("html") else "application/json"
        if fault == "slow":
            for start in range(0, len(reply), max(1, len(reply) // 20)):
                if start == 0:
                    _send(writer, status, b"", kind, extra, length=len(reply))
                writer.write(reply[start : start + max(1, len(reply) // 20)])
                await writer.drain()
                await asyncio.sleep(0.1)
            return True
        if fault == "cut-body":
            _send(writer, status, reply[: len(reply) // 2], kind, extra, length=len(reply))
            await writer.drain()
            return False
        reply += b" " * (3_000_000 if fault == "huge" else self.padding)
        for _ in range(self.gzip):
            reply = gzip.compress(reply)
            extra["content-encoding"] = ", ".join(["gzip"] * self.gzip)
        _send(writer, status, reply, kind, {**extra, **self.headers})
        return True


def _query_and_texts(request: dict[str, Any]) -> tuple[str, list[str]]:
    """Return what a request asks, under whatever names and in whatever objects."""
    if "sources" in request:  # Bedrock
        return request["queries"][0]["textQuery"]["text"], [
            source["inlineDocumentSource"]["textDocument"]["text"] for source in request["sources"]
        ]
    query = request.get("query") or (request["input"] if "servingMode" in request else request["queries"][0])
    documents = next((request[key] for key in DOCUMENT_KEYS if key in request), [])
    texts = [
        text if isinstance(text, str) else text["text"] if "text" in text else text["content"]
        for text in documents
    ]
    return (query if isinstance(query, str) else query["text"]), texts


def _is_signed(path: str, headers: dict[str, str], body: bytes) -> bool:
    """Check a request's AWS signature, version 4, for any region; a token must be signed, too."""
    kind, _, rest = headers.get("authorization", "").partition(" ")
    fields = dict(part.strip().split("=", 1) for part in rest.split(",")) if kind == "AWS4-HMAC-SHA256" else {}
    scope = fields.get("Credential", "").split("/")
    if len(scope) != 5 or scope[0] != AWS_KEY or scope[3:] != ["bedrock", "aws4_request"]:
        return False
    names = fields["SignedHeaders"].split(";")
    if "x-amz-security-token" in headers and "x-amz-security-token" not in names:
        return False
    signed = "".join(f"{name}:{headers[name]}\n" for name in names)
    asked = f"POST\n{path}\n\n{signed}\n{fields['SignedHeaders']}\n{hashlib.sha256(body).hexdigest()}"
    digest = hashlib.sha256(asked.encode()).hexdigest()
    key = b"AWS4" + AWS_SECRET.encode()
    for part in (*scope[1:], f"{kind}\n{headers['x-amz-date']}\n{'/'.join(scope[1:])}\n{digest}"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    return key.hex() == fields["Signature"]


def _is_signed_for_oci(path: str, headers: dict[str, str], body: bytes) -> bool:
    """Check a request's OCI signature, version 1, by the public key of :func:`oci_folder`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    fields = dict(re.findall(r'(\w+)="([^"]*)"', headers.get("authorization", "")))
    names = fields.get("headers", "").split()
    if fields.get("keyId") != OCI_KEY_ID or not set(names) >= OCI_SIGNED:
        return False
    if headers["x-content-sha256"] != base64.b64encode(hashlib.sha256(body).digest()).decode():
        return False
    target = {"(request-target)": f"post {path}"}
    signed = "\n".join(f"{name}: {target.get(name) or headers[name]}" for name in names)
    public: Any = load_pem_public_key((Path(sys.argv[1]) / "public.pem").read_bytes())
    try:
        public.verify(base64.b64decode(fields["signature"]), signed.encode(), PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


@cache
def oci_folder() -> Path:
    """Return a folder with a new OCI configuration and its keys, which ``OCI_CONFIG_FILE`` names from now on."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if find_spec("cryptography") is not None:  # comes with the extra oci
        from cryptography.hazmat.primitives import serialization as forms
        from cryptography.hazmat.primitives.asymmetric import rsa

        key, pem = rsa.generate_private_key(65537, 2048), forms.Encoding.PEM
        private = key.private_bytes(pem, forms.PrivateFormat.TraditionalOpenSSL, forms.NoEncryption())
        public = key.public_key().public_bytes(pem, forms.PublicFormat.SubjectPublicKeyInfo)
        (folder / "key.pem").write_bytes(private)
        (folder / "public.pem").write_bytes(public)
        tenancy, user, fingerprint = OCI_KEY_ID.split("/")
        (folder / "config").write_text(
            f"[DEFAULT]\ntenancy={tenancy}\nuser={user}\nfingerprint={fingerprint}\n"
            f"key_file={folder / 'key.pem'}\nregion=us-chicago-1\n",
            encoding="utf-8",
        )
    os.environ["OCI_CONFIG_FILE"] = str(folder / "config")
    return folder


def _rows(shape: str, request: dict[str, Any], texts: list[str]) -> list[dict[str, Any]]:
    key = SCORES.get(shape, "relevance_score")
    rows = [{"index": index, key: score(request["query"], text)} for index, text in enumerate(texts)]
    if shape != "deepinfra":
        rows.sort(key=lambda row: -row[key])
    model = request.get("model") or ""
    for row in rows:
        if shape in LOGITS and "qwen3" not in model.lower():
            row[key] = math.log(row[key] / (1.0 - row[key]))
        if model.rpartition("/")[2].startswith("jina-reranker-v3"):
            row[key] = 2.0 * row[key] - 1.0
        if shape == "vertex":
            row[key] = round(row[key], 2)
        if shape in ("litellm", "openrouter", "vllm"):
            row["document"] = {"text": texts[row["index"]]}
    return rows


def _reply(shape: str, request: dict[str, Any], texts: list[str], fault: str | None) -> bytes:
    rows: Any = _rows(shape, request, texts)
    if fault in ROW_FAULTS:
        rows = _broken(rows, SCORES.get(shape, "relevance_score"), fault)
    if isinstance(rows, list) and shape == "deepinfra":
        rows = [row.get("relevance_score") if isinstance(row, dict) else row for row in rows]
    if isinstance(rows, list) and shape == "vertex":
        rows = [{**row, "id": str(row["index"]), "index": None} if isinstance(row, dict) else row for row in rows]
    if shape in ("sglang", "tei") and fault != "results-missing":
        return json.dumps(rows).encode()
    payload: dict[str, Any] = {} if fault == "results-missing" else {RESULTS.get(shape, "results"): rows}
    if fault != "usage-missing":
        payload |= _usage(shape, len(texts))
    return json.dumps({"id": "req-1", **payload}).encode()


def _usage(shape: str, documents: int) -> dict[str, Any]:
    """Return what a service says of what a request consumed."""
    tokens, units = 7 * documents, -(-documents // 100)
    if shape in ("azure", "cohere", "litellm", "xinference"):
        return {"meta": {"billed_units": {"search_units": float(units)}, "tokens": {"input_tokens": tokens}}}
    return {
        "bedrock": {},
        "contextual": {},
        "deepinfra": {"input_tokens": tokens, "inference_status": {"status": "succeeded", "cost": 0.0021}},
        "elasticsearch": {},
        "isaacus": {"usage": {"input_tokens": tokens}},
        "oci": {},
        "nvidia": {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}},
        "openrouter": {"usage": {"cost": 0.0042, "search_units": units, "total_tokens": tokens}},
        "pinecone": {"usage": {"rerank_units": units}},
        "vertex": {},
        "watsonx": {"input_token_count": tokens},
        "zeroentropy": {"total_bytes": 4 * tokens, "total_tokens": tokens},
    }.get(shape, {"usage": {"total_tokens": tokens}})


def _broken(rows: list[dict[str, Any]], key: str, fault: str) -> Any:
    first = rows[0]
    whole: dict[str, Any] = {
        "empty-results": [],
        "extra-result": [*rows, {"index": len(rows), key: 0.5}],
        "missing-result": rows[1:],
        "results-missing": rows,
        "results-no-list": {"0": first},
        "row-no-object": ["a", *rows[1:]],
    }
    if fault in whole:
        return whole[fault]
    changed: dict[str, tuple[str, Any]] = {
        "index-duplicate": ("index", rows[-1]["index"]),
        "index-float": ("index", first["index"] + 0.5),
        "index-negative": ("index", -1),
        "index-out-of-range": ("index", len(rows) + 6),
        "index-string": ("index", str(first["index"])),
        "score-bool": (key, True),
        "score-huge": (key, 10**400),
        "score-infinite": (key, math.inf),
        "score-nan": (key, math.nan),
        "score-null": (key, None),
        "score-string": (key, "0.9"),
    }
    if fault == "score-missing":
        return [{"index": first["index"]}, *rows[1:]]
    name, value = changed[fault]
    return [{**first, name: value}, *rows[1:]]


def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    kind: str = "application/json",
    extra: dict[str, str] | None = None,
    *,
    length: int | None = None,
) -> None:
    lines = [
        f"HTTP/1.1 {status} {_STATUS_TEXT.get(status, 'Status')}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body) if length is None else length}",
        *(f"{name}: {value}" for name, value in (extra or {}).items()),
    ]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


class Loopback:
    """The running service, seen from a test."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, shape: str) -> str:
        """Return the base URL of a format."""
        return f"http://127.0.0.1:{self.port}/{shape}"

    def plan(self, **plan: Any) -> None:
        """Say what the next requests meet, and forget what was counted."""
        self._call("/_plan", plan)

    def stats(self) -> dict[str, Any]:
        """Return what was counted since the last plan."""
        stats: dict[str, Any] = self._call("/_stats", {})
        return stats

    def _call(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as response:
            return json.loads(response.read())


@contextmanager
def running() -> Iterator[Loopback]:
    """Start the service, and stop it at the end."""
    # Isolated, so that the modules beside this one hide none of the standard library.
    process = subprocess.Popen([sys.executable, "-I", __file__, str(oci_folder())], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Loopback(int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def _serve() -> None:
    server = await asyncio.start_server(_Service().connection, "127.0.0.1", 0, backlog=1024, limit=2**26)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
