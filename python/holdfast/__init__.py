"""holdfast: a checkpoint saver for LangGraph that stores each message once.

with holdfast.open("sqlite:///state.db") as saver:
    graph = builder.compile(checkpointer=saver)
"""

from holdfast.errors import (
    CheckpointCorrupted,
    ConfigurationError,
    FormatTooNew,
    HoldfastError,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    ThreadDeleted,
)
from holdfast.open import from_config, open
from holdfast.options import Options
from holdfast.saver import Saver
from holdfast.savers import AsyncSqliteSaver, InMemorySaver, MemorySaver, SqliteSaver

__all__ = [
    "AsyncSqliteSaver",
    "CheckpointCorrupted",
    "ConfigurationError",
    "FormatTooNew",
    "HoldfastError",
    "InMemorySaver",
    "MemorySaver",
    "Options",
    "Saver",
    "SqliteSaver",
    "StoreFull",
    "StoreTimeout",
    "StoreUnavailable",
    "ThreadDeleted",
    "from_config",
    "open",
]
