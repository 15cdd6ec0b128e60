"""Makes the dictionary that objects of format 2 are compressed with: what messages, their dicts
and checkpoints have in common, as LangGraph's serializer writes it. The rarest stands first: zstd
refers to what is near in fewer bits.

usage: python rust/store/dictionary/make.py > rust/store/dictionary/format-2

What is released stays as it is, whatever this makes with newer libraries: objects that were stored
with it could not be read without it.
"""

from __future__ import annotations

import sys
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command, Interrupt, Send

USAGE = {
    "input_tokens": 300,
    "output_tokens": 300,
    "total_tokens": 600,
    "input_token_details": {"audio": 0, "cache_creation": 0, "cache_read": 0},
    "output_token_details": {"audio": 0, "reasoning": 0},
}
OPENAI = {
    "token_usage": {
        "completion_tokens": 300,
        "prompt_tokens": 300,
        "total_tokens": 600,
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "audio_tokens": 0,
            "reasoning_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 0},
    },
    "model_provider": "openai",
    "model_name": "gpt-4o-mini-2024-07-18",
    "system_fingerprint": "fp_",
    "id": "chatcmpl-",
    "service_tier": "default",
    "finish_reason": "tool_calls",
    "logprobs": None,
}
ANTHROPIC = {
    "id": "msg_01",
    "model": "claude-sonnet-4-5",
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "input_tokens": 300,
        "output_tokens": 300,
        "server_tool_use": None,
        "service_tier": "standard",
    },
    "model_name": "claude-sonnet-4-5",
    "model_provider": "anthropic",
}
CALL = {"name": "search", "args": {"query": "", "limit": 10}, "id": "call_", "type": "tool_call"}
BLOCKS = [
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "tool_use", "id": "toolu_01", "name": "", "input": {}, "caller": {"type": "direct"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
    {"type": "text", "text": "", "annotations": []},
]
MESSAGES = [
    RemoveMessage("__remove_all__"),
    AIMessageChunk("", id="lc_run--", usage_metadata=USAGE, chunk_position="last"),
    SystemMessage("You are a helpful assistant.", id=""),
    AIMessage(BLOCKS, id="lc_run--", response_metadata=ANTHROPIC, usage_metadata=USAGE),
    AIMessage(
        "",
        id="lc_run--",
        response_metadata=OPENAI,
        usage_metadata=USAGE,
        tool_calls=[CALL],
        additional_kwargs={
            "refusal": None,
            "tool_calls": [
                {
                    "id": "call_",
                    "function": {"arguments": '{"query":"', "name": ""},
                    "type": "function",
                }
            ],
        },
    ),
    ToolMessage("", tool_call_id="call_", name="search", id="", artifact=None, status="error"),
    HumanMessage("", name="user", id=""),
    AIMessage(
        "",
        id="",
        response_metadata={"finish_reason": "tool_calls", "model_name": ""},
        tool_calls=[CALL],
        usage_metadata={"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
    ),
    ToolMessage("", tool_call_id="call_", name="", id=""),
    HumanMessage("", id=""),
    AIMessage("", id="", response_metadata={"finish_reason": "stop", "model_name": ""}),
]
OTHERS: list[Any] = [
    Document("", metadata={"source": "", "title": "", "page": 1}),
    Send("", {}),
    Command(resume=""),
    Interrupt("", id=""),
    {
        "name": "",
        "description": "",
        "parameters": {"type": "object", "properties": {}, "required": []},
    },
    {"role": "system", "content": ""},
    {"role": "tool", "content": "", "tool_call_id": "call_"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call_",
                "type": "function",
                "function": {"name": "", "arguments": '{"query": "'},
            }
        ],
    },
    {"role": "assistant", "content": ""},
    {"role": "user", "content": ""},
]
CHECKPOINTS: list[Any] = [
    {
        "structured_response": None,
        "remaining_steps": 25,
        "documents": [],
        "question": "",
        "next": "",
    },
    {"agent": {"branch:to:agent": ""}, "tools": {"branch:to:tools": ""}, "__interrupt__": {}},
    {"__start__": {"__start__": ""}, "__input__": {}, "__pregel_tasks": "", "messages": ""},
    {
        "langgraph_version": "",
        "langgraph_plan": "",
        "user_id": "",
        "assistant_id": "",
        "run_id": "",
        "graph_id": "",
        "langgraph_api_version": "",
        "run_attempt": 1,
    },
    {"source": "update", "step": 0, "parents": {"": ""}},
    {"source": "input", "step": -1, "parents": {}},
    {"source": "loop", "step": 1, "parents": {}},
    {
        "v": 4,
        "ts": "2026-01-01T00:00:00.000000+00:00",
        "id": "1f0",
        "updated_channels": ["branch:to:agent", "messages"],
    },
]


def main() -> None:
    """Write the dictionary."""
    dumps = JsonPlusSerializer().dumps_typed
    values = [*OTHERS, *(message.model_dump() for message in MESSAGES), *MESSAGES, *CHECKPOINTS]
    sys.stdout.buffer.write(b"".join(dumps(value)[1] for value in values))


if __name__ == "__main__":
    main()
