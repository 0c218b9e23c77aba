"""Where :class:`rerank_core.policies.Cached` keeps scores: in memory, on disk, or in a cache of your own."""

from rerank_core.policies.caches.base import Cache
from rerank_core.policies.caches.disk import DiskCache
from rerank_core.policies.caches.memory import MemoryCache

__all__ = ["Cache", "DiskCache", "MemoryCache"]
