"""The options of a saver, under the same names for every store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from holdfast.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Options:
    """What `holdfast.open` takes beside the URL.

    Attributes:
        cache_bytes: Bytes of chunks, last values and records kept in this process's memory.
        compression: "zstd", kept for a chunk only where it saves, or "none".
        retry_budget: Seconds for which a busy or lost store is retried.
        prefix: What the names of all keys begin with (Redis).
        table: Prefix of the names of tables (SQL stores).
        synchronous: SQLite: "full" (a commit survives a power cut) or "normal" (it
            survives a crash of the process).
    """

    cache_bytes: int = 64 << 20
    compression: str = "zstd"
    retry_budget: float = 10.0
    prefix: str = "holdfast"
    table: str = "holdfast"
    synchronous: str = "full"

    def __post_init__(self) -> None:
        if self.cache_bytes < 0:
            raise ConfigurationError("cache_bytes is a number of bytes, 0 for no cache")
        if self.compression not in ("zstd", "none"):
            raise ConfigurationError(f"compression is 'zstd' or 'none', not {self.compression!r}")
        if not 0 <= self.retry_budget < math.inf:
            raise ConfigurationError("retry_budget is a number of seconds")
        if not self.prefix:
            raise ConfigurationError("prefix is what the names of keys begin with, not nothing")
        if not self.table or "\0" in self.table:
            raise ConfigurationError("table is a name without NUL")
        if self.synchronous.lower() not in ("full", "normal"):
            raise ConfigurationError(f"synchronous is 'full' or 'normal', not {self.synchronous!r}")

    @classmethod
    def names(cls) -> list[str]:
        """The names of all options."""
        return [field.name for field in fields(cls)]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Options:
        """Options by name; text is read as the type that the option has.

        Raises:
            ConfigurationError: An option does not exist, or has an impossible value.
        """
        known: dict[str, Any] = {field.name: type(field.default) for field in fields(cls)}
        unknown = sorted(options.keys() - known.keys())
        if unknown:
            raise ConfigurationError(
                f"unknown option {', '.join(map(repr, unknown))}; "
                f"there are: serde, {', '.join(sorted(known))}"
            )
        values = {}
        for name, value in options.items():
            try:
                values[name] = known[name](value)
            except (TypeError, ValueError) as error:
                raise ConfigurationError(
                    f"option {name} is of type {known[name].__name__}, not {value!r}"
                ) from error
        return cls(**values)
