"""Makes the dictionary that objects of format 3 are compressed with: words, then what messages,
their dicts and checkpoints have in common, as LangGraph's serializer writes it. The rarest stands
first: zstd refers to what is near in fewer bits. In front are the frequencies that zstd counts when
it compresses `samples.txt` with it.

usage: python rust/store/dictionary/make.py > rust/store/dictionary/format-3

Needs libzstd. What is released stays as it is, whatever this makes with newer libraries: objects
that were stored with it could not be read without it. So does `format-2`, which has no words and no
frequencies.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
import uuid
from pathlib import Path
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


HERE = Path(__file__).parent
# Of zstd's format: between levels the strategy differs, and with it what is frequent.
LEVEL, DICTIONARY_ID, LARGEST_HEADER = 3, 3, 1024


class Parameters(ctypes.Structure):
    """ZDICT_params_t of zdict.h."""

    _fields_ = (
        ("level", ctypes.c_int),
        ("verbosity", ctypes.c_uint),
        ("dictionary_id", ctypes.c_uint),
    )


def finalize(content: bytes, samples: list[bytes]) -> bytes:
    """The dictionary of a content, with the frequencies of samples (ZDICT_finalizeDictionary)."""
    zstd = ctypes.CDLL(ctypes.util.find_library("zstd"))
    zstd.ZDICT_finalizeDictionary.restype = ctypes.c_size_t
    size = ctypes.c_size_t
    made = ctypes.create_string_buffer(len(content) + LARGEST_HEADER)
    length = zstd.ZDICT_finalizeDictionary(
        made,
        size(len(made)),
        content,
        size(len(content)),
        b"".join(samples),
        (size * len(samples))(*map(len, samples)),
        ctypes.c_uint(len(samples)),
        Parameters(LEVEL, 0, DICTIONARY_ID),
    )
    if zstd.ZDICT_isError(size(length)):
        raise RuntimeError("zstd made no dictionary")
    return made.raw[:length]


def main() -> None:
    """Write the dictionary."""
    dumps = JsonPlusSerializer().dumps_typed
    words = " ".join((HERE / "words.txt").read_text("utf-8").splitlines())
    values = [*OTHERS, *(message.model_dump() for message in MESSAGES), *MESSAGES, *CHECKPOINTS]
    content = words.encode() + b"".join(dumps(value)[1] for value in values)
    samples: list[bytes] = []
    for number, text in enumerate((HERE / "samples.txt").read_text("utf-8").split("\n---\n")):
        id = str(uuid.uuid5(uuid.NAMESPACE_URL, text))
        made = (
            HumanMessage(text, id=id),
            AIMessage(text, id=id, response_metadata={"finish_reason": "stop"}),
            ToolMessage(text, tool_call_id=f"call_{id[:24]}", name="search", id=id),
        )[number % 3]
        samples += (dumps(made)[1], dumps(made.model_dump())[1])
    sys.stdout.buffer.write(finalize(content, samples))


if __name__ == "__main__":
    main()
