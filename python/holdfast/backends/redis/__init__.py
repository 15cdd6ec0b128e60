"""Threads in Redis: plain keys, one script per change, calls of one moment in one pipeline."""

from holdfast.backends.redis.backend import RedisBackend
from holdfast.backends.redis.given import choose

__all__ = ["RedisBackend", "choose"]
