"""The store in this process's memory: the reference for every other backend."""

from holdfast.backends.memory.backend import MemoryBackend

__all__ = ["MemoryBackend"]
