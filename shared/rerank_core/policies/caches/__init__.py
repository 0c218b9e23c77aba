"""Where :class:`rerank_core.policies.Cached` keeps scores: in memory, on disk, or in a cache of your own."""

from rerank_core.policies.caches.base import Cache, MemoryCache
from rerank_core.policies.caches.disk import DiskCache

__all__ = ["Cache", "DiskCache", "MemoryCache"]
