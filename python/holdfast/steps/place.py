"""Which checkpoint a config names."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_core.runnables import RunnableConfig


@dataclass(slots=True)
class Place:
    """Which checkpoint a config names."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str | None

    @classmethod
    def of(cls, config: RunnableConfig) -> Place:
        """Read a config as LangGraph does: a missing namespace is the root."""
        configurable = config["configurable"]
        return cls(
            str(configurable["thread_id"]),
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
