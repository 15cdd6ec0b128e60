"""The serializer beside `JsonPlusSerializer`: the same values, dumped and loaded in turn."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
from holdfast.serde import Serializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from benches.harness import Mismatch, Timer
from benches.options import Benchmark, Options, parser, run
from benches.report import Figure, Target, milliseconds
from benches.words import Writer
from benches.workloads import SEED, messages

DUMP, AGAIN, LOAD = "dump", "dump again", "load"
HOLDFAST, OFFICIAL = "holdfast Serializer", "JsonPlusSerializer"
SERIALIZERS = {HOLDFAST: Serializer(), OFFICIAL: JsonPlusSerializer()}
SMALL, LARGE = 1_000, 20
"""How often to repeat what takes microseconds, and what takes milliseconds."""


def document(writer: Writer, depth: int) -> dict[str, Any]:
    """Make a document of nested sections, as JSON could hold it."""
    if depth == 0:
        return {
            "id": writer.uuid(),
            "number": writer.random.randint(0, 10**6),
            "score": writer.random.random(),
            "tags": [writer.text(6), writer.text(9)],
            "text": writer.text(60),
            "is_open": True,
            "parent": None,
        }
    sections = [document(writer, depth - 1) for _ in range(8)]
    return {"kind": "section", "title": writer.text(20), "sections": sections}


def cases() -> Iterator[tuple[str, Any, int]]:
    """Give what is measured: a name, the value, and how often."""
    mixed = messages(1000)
    plain = [each.model_dump() for each in mixed]
    for count, rounds in ((10, SMALL), (100, SMALL // 4), (1000, LARGE * 2)):
        yield f"{count:,} mixed messages", mixed[:count], rounds
        yield f"{count:,} plain dicts", plain[:count], rounds
    writer = Writer(SEED)
    yield "1 MB of text", writer.text(1_000_000), LARGE * 10
    yield "1 MB of nested sections", [document(writer, 3) for _ in range(11)], LARGE * 2
    numbers = np.random.default_rng(SEED).random((250, 500))
    yield "1 MB numpy array", numbers, LARGE * 10
    yield "1 MB numpy array, transposed", numbers.T, LARGE * 10


def is_equal(one: Any, other: Any) -> bool:
    """Compare what was read with what was put."""
    if isinstance(other, np.ndarray):
        return bool(one.dtype == other.dtype and np.array_equal(one, other))
    return bool(type(one) is type(other) and one == other)


def turns(
    work: dict[str, Callable[[Any], Any]], given: Callable[[], Any], rounds: int
) -> dict[str, list[float]]:
    """Time each in turn, another one first each time; what they are given is made, and what
    they return goes, in between."""
    seconds: dict[str, list[float]] = defaultdict(list)
    names = list(work)
    gc.collect()
    for number in range(rounds):
        for name in names if number % 2 else reversed(names):
            value = given()
            with Timer(seconds[name]):
                result = work[name](value)
            del result
    return seconds


def measure_case(name: str, value: Any, rounds: int) -> list[Figure]:
    """Compare the bytes and the values, then dump and load."""
    packed = SERIALIZERS[OFFICIAL].dumps_typed(value)
    for each in SERIALIZERS.values():
        # Twice: the first of its kind may be made in another way than those after it.
        for _ in range(2):
            if each.dumps_typed(value) != packed or not is_equal(each.loads_typed(packed), value):
                raise Mismatch(f"{name}: the bytes, or the value read from them, are others")
    dumps = {key: each.dumps_typed for key, each in SERIALIZERS.items()}
    loads = {key: each.loads_typed for key, each in SERIALIZERS.items()}
    measures = (
        # Objects that no serializer has seen, and those that it has.
        (DUMP, dumps, lambda: deepcopy(value)),
        (AGAIN, dumps, lambda: value),
        (LOAD, loads, lambda: packed),
    )
    return [
        Figure(name, serializer, measure, milliseconds(seconds), "ms")
        for measure, work, given in measures
        for serializer, seconds in turns(work, given, rounds).items()
    ]


async def measure(options: Options) -> list[Figure]:
    """Measure every case."""
    figures = []
    for name, value, rounds in cases():
        figures += measure_case(name, value, options.repetitions or rounds)
    return figures


MANY = "1,000 mixed messages"

BENCHMARK = Benchmark(
    "The serializer: milliseconds to dump and load a value",
    measure,
    (
        Target(DUMP, HOLDFAST, 0.2, against=OFFICIAL, case=MANY),
        Target(LOAD, HOLDFAST, 0.2, against=OFFICIAL, case=MANY),
        Target(DUMP, HOLDFAST, 1.0, against=OFFICIAL),
        Target(AGAIN, HOLDFAST, 1.0, against=OFFICIAL),
        Target(LOAD, HOLDFAST, 1.0, against=OFFICIAL),
    ),
)

if __name__ == "__main__":
    run([BENCHMARK], parser(__doc__))
