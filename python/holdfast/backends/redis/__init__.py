"""Threads in Redis: plain keys, one script per change, calls of one moment in one pipeline."""

from holdfast.backends.redis.backend import RedisBackend
from holdfast.backends.redis.clients import FromUrl, Given

__all__ = ["FromUrl", "Given", "RedisBackend"]
