"""A model's files: in a folder, or in a hub repository, of which only those asked for are fetched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rerank_core._support.extras import require
from rerank_core.errors import ConfigurationError, ScorerUnavailableError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PROBE_SECONDS = 10.0
"""How long the hub may take for its list of files; its own client retries for a minute."""
_BESIDE = ("*.json", "*.jinja", "artifact.metadata")
"""What a checkpoint has beside its weights."""


class ModelFiles:
    """Where the files of a model are, a folder or a hub id, and their names.

    Args:
        owner: whose repositories hub ids without an owner mean; None leaves such an id as it is.
        offline: never ask the hub; use what its cache on this machine has.

    Attributes:
        is_cached: whether the hub's cache stands for the hub.
        error: why the hub did not answer, if it was asked in vain.
    """

    def __init__(
        self, model: str, *, revision: str | None, offline: bool, owner: str | None = "cross-encoder"
    ) -> None:
        self.model = model
        self.error: Exception | None = None
        self._revision = revision
        self._folder: Path | None = None
        is_remote = is_hub_id(model)
        if is_remote:
            self._hub: Any = require("huggingface_hub", extra="onnx", purpose=f"fetching {model!r} from the hub")
            self._repository = model if owner is None or "/" in model else f"{owner}/{model}"
            if offline or not self._list_repository():
                # The file that every model has: without a name, a snapshot would have to be complete.
                self._folder = self._download("config.json", local_files_only=True)
        elif not model:
            raise ConfigurationError("names no model: give a local folder or a hub id")
        else:
            self._folder = Path(model).expanduser()
            if not self._folder.is_dir():
                raise ConfigurationError(
                    f"there is no folder {str(self._folder)!r}, and that is not a hub id either"
                )
        self.is_cached = is_remote and self._folder is not None
        if self._folder is not None:
            found = (path for pattern in ("*", "*/*") for path in self._folder.glob(pattern) if path.is_file())
            self.names = frozenset(path.relative_to(self._folder).as_posix() for path in found)

    def has(self, name: str) -> bool:
        """Tell whether there is a file of this name, in a folder at any depth."""
        return name in self.names or (self._folder is not None and (self._folder / name).is_file())

    def fetch(self, *patterns: str) -> Path:
        """Return the folder with the files of these names or patterns, and with those beside the weights."""
        return self._folder or self._download(*_BESIDE, *patterns)

    def _list_repository(self) -> bool:
        try:
            listing = self._hub.HfApi().model_info(
                self._repository, revision=self._revision, timeout=_PROBE_SECONDS
            )
        except Exception as exc:
            self.error = exc
            return False
        self.names = frozenset(file.rfilename for file in listing.siblings or [])
        return True

    def _download(self, *patterns: str, **options: Any) -> Path:
        download = self._hub.snapshot_download
        try:
            return Path(
                download(self._repository, revision=self._revision, allow_patterns=list(patterns), **options)
            )
        except Exception as exc:
            raise unavailable(self.model) from (self.error or exc)


def is_hub_id(model: str) -> bool:
    """Tell a hub id, ``"name"`` or ``"owner/name"``, from a path; a folder that exists is never a hub id."""
    return _HUB_ID.fullmatch(model) is not None and not Path(model).exists()


def unavailable(model: str) -> ScorerUnavailableError:
    """Return the error for a hub model that is neither on the hub nor on this machine."""
    return ScorerUnavailableError(
        "could not be fetched from the hub (the cause is above), nor was it in the local cache: check the name "
        f"and the network, or run 'hf download {model} --local-dir FOLDER' where there is one, and give "
        "the folder instead of the hub id"
    )
