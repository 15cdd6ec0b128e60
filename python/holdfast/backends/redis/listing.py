"""Requests that go through all threads, or all of one, as commands: batches of bounded work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from holdfast._core import IntegrityError
from holdfast.backends.base import ChunkIds, Row, ThreadRow, Threads, Visit, Visited, Weigh
from holdfast.backends.redis.changing import Changing
from holdfast.backends.redis.names import (
    Names,
    decode,
    encode,
    members_of,
    number,
    pairs,
    place_of,
    row,
)
from holdfast.backends.redis.reads import chunk_page
from holdfast.backends.redis.scripts import Command, Trips, call

# Threads, or checkpoints, that one round trip looks at.
_BATCH = 500
# Ids and sizes of chunks that one round trip brings.
_SIZES = 2000
_VISITED = (b"life", b"epoch", b"expires", b"deleted", b"lease_until", b"lease_token")

Reply = Trips[Any]


class Listing:
    """How each of these requests is answered.

    Args:
        names: The keys.
        changing: Finishes removals that were cut short.
    """

    def __init__(self, names: Names, changing: Changing) -> None:
        self._names = names
        self._changing = changing
        self.answers: dict[type, Callable[[Any], Reply]] = {
            Threads: self._threads,
            Visit: self._visit,
            Weigh: self._weigh,
        }

    # --- a listing

    def _threads(self, request: Threads) -> Reply:
        rows: list[ThreadRow] = []
        last = request.after
        bound = request.until
        if last is not None:
            bound = last[0] if bound is None else min(bound, last[0])
        seen = 0
        while len(rows) < request.limit:
            # No more than are wanted, so that a short page does not read hundreds of threads.
            count = min(max(request.limit - len(rows), 16), _BATCH)
            (reply,) = yield [
                (
                    "ZREVRANGEBYSCORE",
                    self._names.threads(""),
                    "+inf" if bound is None else bound,
                    "-inf",
                    "WITHSCORES",
                    "LIMIT",
                    seen,
                    count,
                )
            ]
            members = members_of(reply)
            wanted = [
                (thread_id, updated)
                for thread_id, updated in members
                if thread_id.startswith(request.prefix)
                and (last is None or (updated, thread_id) < last)
            ]
            rows += yield from self._rows(wanted)
            if len(members) < count:
                break
            # Those of the same time come again, and are left out by their number.
            earliest = members[-1][1]
            ties = sum(updated == earliest for _, updated in members)
            seen = seen + ties if bound == earliest else ties
            bound = earliest
        return rows[: request.limit]

    def _rows(self, threads: Sequence[tuple[str, int]]) -> Trips[list[ThreadRow]]:
        """The rows of threads with the times of their last writes."""
        names = self._names
        if not threads:
            return []
        replies = yield [
            call(
                "thread_row",
                [names.meta(thread_id), names.blobs(thread_id)],
                *names.bases(thread_id),
            )
            for thread_id, _ in threads
        ]
        rows: list[ThreadRow] = []
        gone: list[str] = []
        for (thread_id, updated), reply in zip(threads, replies, strict=True):
            if not reply:
                if reply is None:
                    gone.append(thread_id)
                continue
            try:
                rows.append(_listed(thread_id, updated, reply))
            except IntegrityError as error:
                head = Row(thread_id, "", "", b"")
                damaged = ThreadRow(thread_id, 0, updated, updated, None, {}, head, str(error))
                rows.append(damaged)
        yield from self._tidy(gone)
        return rows

    # --- a sweep

    def _visit(self, request: Visit) -> Reply:
        cursor = request.cursor or b"0"
        (scanned,) = yield [("ZSCAN", self._names.threads(""), cursor, "COUNT", request.limit)]
        members = members_of(scanned[1])
        visited: list[Visited] = []
        gone: list[str] = []
        for start in range(0, len(members), _BATCH):
            some = members[start : start + _BATCH]
            states = yield from self._states(some)
            dying = [one for one, state in zip(some, states, strict=True) if _is_dying(state)]
            for thread_id, _ in dying:
                yield from self._changing.finish(thread_id)
            if dying:
                states = yield from self._states(some)
            for (thread_id, updated), state in zip(some, states, strict=True):
                if any(value is not None for value in state[:-1]):
                    visited.append(_visited(thread_id, updated, state))
                else:
                    gone.append(thread_id)
        yield from self._tidy(gone)
        following = bytes(str(int(scanned[0])), "ascii")
        return visited, None if following == b"0" else following

    def _states(self, threads: Sequence[tuple[str, int]]) -> Trips[list[list[Any]]]:
        """What is to be known of threads, and the server's time (ms) behind each."""
        commands: list[Command] = [("TIME",)]
        commands += [("HMGET", self._names.meta(id), *_VISITED) for id, _ in threads]
        (seconds, micros), *states = yield commands
        now = int(seconds) * 1000 + int(micros) // 1000
        return [[*state, now] for state in states]

    def _tidy(self, threads: Sequence[str]) -> Trips[None]:
        """Take threads out of the registry of which nothing is left."""
        if threads:
            keys = [self._names.threads(""), *map(self._names.meta, threads)]
            yield [call("tidy", keys, *map(encode, threads))]

    # --- a weight

    def _weigh(self, request: Weigh) -> Reply:
        names, thread_id = self._names, request.thread_id
        meta = names.meta(thread_id)
        (fields,) = yield [("HKEYS", meta)]
        if b"life" not in fields:
            return 0, 0
        places = [place_of(field) for field in fields if field.startswith(b"w:")]
        checkpoints = 0
        for ns in [decode(field[3:]) for field in fields if field.startswith(b"ns:")]:
            (ids,) = yield [("LRANGE", names.index(thread_id, ns), 0, -1)]
            checkpoints += len(ids)
            places += [(ns, decode(id)) for id in ids]
        size = 0
        for start in range(0, len(places), _BATCH):
            some = places[start : start + _BATCH]
            keys = [
                key
                for place in some
                for key in (names.checkpoint(thread_id, *place), names.writes(thread_id, *place))
            ]
            (of_them,) = yield [call("weigh", [meta, *keys])]
            size += of_them
        sizes: dict[bytes, int] = {}
        cursor: bytes | None = None
        while True:
            page, cursor = yield from chunk_page(names, ChunkIds(thread_id, cursor, _SIZES))
            sizes.update((id, length) for id, _, length in page)
            if cursor is None:
                return checkpoints, size + sum(sizes.values())


def _listed(thread_id: str, updated: int, reply: Any) -> ThreadRow:
    epoch, created, expires, counts, ns, id, stored, writes, chunks = reply
    return ThreadRow(
        thread_id,
        number(epoch),
        number(created),
        updated,
        number(expires) if expires else None,
        dict(sorted((decode(of), int(count)) for of, count in pairs(counts))),
        row(thread_id, decode(ns), id, stored, writes, chunks),
    )


def _is_dying(state: Sequence[Any]) -> bool:
    life, epoch, *_ = state
    return life is None and epoch is not None


def _visited(thread_id: str, updated: int, state: Sequence[Any]) -> Visited:
    life, epoch, expires, deleted, held, _, now = state
    try:
        return Visited(
            thread_id,
            number(epoch or b"0"),
            updated if life is not None or deleted is None else number(deleted),
            is_expired=life is not None and expires is not None and number(expires) <= now,
            is_deleted=life is None,
            is_leased=held is not None and number(held) > now,
        )
    except IntegrityError as error:
        return Visited(thread_id, 0, updated, False, False, False, str(error))
