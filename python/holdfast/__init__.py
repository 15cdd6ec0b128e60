"""holdfast: a checkpoint saver for LangGraph that stores each message once.

with holdfast.open("sqlite:///state.db") as saver:
    graph = builder.compile(checkpointer=saver)
"""

from holdfast.backends.base import Finding
from holdfast.errors import (
    CheckpointCorrupted,
    CheckpointRemoved,
    ConfigurationError,
    FormatTooNew,
    HoldfastError,
    LeaseHeld,
    LeaseLost,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    StoreWarning,
    ThreadDeleted,
)
from holdfast.open import from_config, open
from holdfast.options import Options
from holdfast.saver import Saver
from holdfast.savers import (
    AsyncPostgresSaver,
    AsyncRedisSaver,
    AsyncSqliteSaver,
    InMemorySaver,
    MemorySaver,
    PostgresSaver,
    RedisSaver,
    SqliteSaver,
)
from holdfast.threads import Swept, Thread

__all__ = [
    "AsyncPostgresSaver",
    "AsyncRedisSaver",
    "AsyncSqliteSaver",
    "CheckpointCorrupted",
    "CheckpointRemoved",
    "ConfigurationError",
    "Finding",
    "FormatTooNew",
    "HoldfastError",
    "InMemorySaver",
    "LeaseHeld",
    "LeaseLost",
    "MemorySaver",
    "Options",
    "PostgresSaver",
    "RedisSaver",
    "Saver",
    "SqliteSaver",
    "StoreFull",
    "StoreTimeout",
    "StoreUnavailable",
    "StoreWarning",
    "Swept",
    "Thread",
    "ThreadDeleted",
    "from_config",
    "open",
]
