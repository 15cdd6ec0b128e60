"""Which checkpoint a config names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig

from holdfast.errors import ConfigurationError


def named_thread(thread_id: Any) -> str:
    """A thread id of a config as it is stored.

    Raises:
        ConfigurationError: It is None: all who have none would share one thread.
    """
    if thread_id is None:
        raise ConfigurationError(
            "config['configurable']['thread_id'] is None: give each conversation an id of its own"
        )
    return str(thread_id)


@dataclass(slots=True)
class Place:
    """Which checkpoint a config names."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str | None

    @classmethod
    def of(cls, config: RunnableConfig) -> Place:
        """Read a config as LangGraph does: a missing namespace is the root.

        Raises:
            ConfigurationError: Its thread id is None.
            KeyError: It has none.
        """
        configurable = config["configurable"]
        return cls(
            named_thread(configurable["thread_id"]),
            configurable.get("checkpoint_ns") or "",
            configurable.get("checkpoint_id") or None,
        )

    def config(self, checkpoint_id: str) -> RunnableConfig:
        return {
            "configurable": {
                "thread_id": self.thread_id,
                "checkpoint_ns": self.checkpoint_ns,
                "checkpoint_id": checkpoint_id,
            }
        }
