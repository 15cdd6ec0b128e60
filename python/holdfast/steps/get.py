"""Read one checkpoint."""

from __future__ import annotations

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol

from holdfast._core import Core
from holdfast.drive import Steps
from holdfast.steps.load import head, load
from holdfast.steps.place import Place


def get_tuple(
    core: Core, serde: SerializerProtocol, config: RunnableConfig
) -> Steps[CheckpointTuple | None]:
    """Read a checkpoint: one round trip, two where the store cannot follow references,
    one more for a checkpoint older than format 4."""
    place = Place.of(config)
    row = yield from head(core, place.thread_id, place.checkpoint_ns, place.checkpoint_id)
    loaded = yield from load(core, serde, row)
    if loaded is None:
        return None
    found = loaded.decode(serde, remember=True)
    loaded.reader.remember(loaded.record, loaded.row.checkpoint_ns, loaded.row.checkpoint_id)
    return found
