"""Where an index is kept: one file, which is replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rerank_core._support.extras import require

__all__ = ["VERSION", "Archive", "places", "save"]

VERSION = 1
"""Of what an index file holds; one of another version is built anew."""

FOLDER = ".rerank-bridge"


def places(corpus: Path) -> Iterator[Path]:
    """Return where a corpus's index may be: in a hidden folder beside it, else in the user's cache."""
    full = corpus.resolve()
    if full.is_dir():
        yield full / FOLDER / "folder.index"
    else:
        yield full.parent / FOLDER / f"{full.name}.index"
    platformdirs: Any = require("platformdirs", extra="cli", purpose="corpus search")
    name = hashlib.blake2b(str(full).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    with contextlib.suppress(RuntimeError):  # no home folder
        yield Path(platformdirs.user_cache_path("rerank-bridge")) / f"{name}.index"


def save(place: Path, arrays: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    """Write an index file; whoever reads it meanwhile has the old one, and of two writers the last one stays.

    Raises:
        OSError: the folder cannot be written to.
    """
    import numpy as np

    place.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f"{place.name}.", suffix=".tmp", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("header", json.dumps({"version": VERSION, **header}))
                for name, array in arrays.items():
                    content = io.BytesIO()
                    np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
                    archive.writestr(name, content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    ignore = place.parent / ".gitignore"
    if place.parent.name == FOLDER and not ignore.exists():
        with contextlib.suppress(OSError):
            ignore.write_text("*\n", encoding="utf-8")


class Archive:
    """An index file that was opened: its header, and its arrays as they are asked for.

    Raises:
        ValueError: it is damaged, or of another version.
        OSError: it cannot be read.
    """

    def __init__(self, place: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(place)
            self.header: dict[str, Any] = json.loads(self._zip.read("header"))
        except (zipfile.BadZipFile, KeyError, EOFError) as exc:
            raise ValueError(f"{place} is damaged") from exc
        if self.header.get("version") != VERSION:
            raise ValueError(f"{place} is of version {self.header.get('version')}")

    def array(self, name: str) -> Any:
        """Return an array.

        Raises:
            ValueError: it is damaged.
        """
        import numpy as np

        try:
            content = io.BytesIO(self._zip.read(name))
        except (zipfile.BadZipFile, KeyError, EOFError) as exc:
            raise ValueError(f"the index's {name} is damaged") from exc
        return np.lib.format.read_array(content, allow_pickle=False)

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
