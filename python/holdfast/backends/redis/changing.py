"""Scripts that change a thread, run until they are done: what hinders them is done before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.backends.base import new_operation_id
from holdfast.backends.redis.names import Names, decode, encode, milliseconds, place_of
from holdfast.backends.redis.scripts import Afterwards, Command, Groups, Trips, call
from holdfast.errors import checkpoint_removed, lease_lost, thread_deleted

# Checkpoints that one script removes: some milliseconds.
REMOVED = 1000
# Keys that one script renews: half a millisecond.
_RENEWED = 500
# What scripts reply, as lua/thread.lua names it.
DYING, MOVED, DELETED, FENCED, RENEW, ORPHANED = -1, -2, -3, -4, -5, -6
SOON = 2


class Changing:
    """Runs scripts that change a thread.

    Args:
        names: The keys.
        keep: Seconds for which a thread remembers an operation, at least.
        ttl: Seconds after which a thread expires that is written to.
    """

    def __init__(self, names: Names, keep: int, ttl: float | None) -> None:
        self._names = names
        self.keep = keep
        self.ttl = milliseconds(ttl)
        self._under_way: set[str] = set()

    def change(self, thread_id: str, command: Command, ttl: bytes | None = None) -> Trips[Any]:
        """The reply of a script, once what is left of a removed thread is gone and the keys of
        this one live long enough; `ttl` is the one that the script was given.

        Raises:
            ThreadDeleted, CheckpointRemoved, LeaseLost: It was refused.
        """
        ttl = self.ttl if ttl is None else ttl
        while True:
            (reply,) = yield [command]
            if isinstance(command, Groups) and isinstance(reply, list):
                (reply,) = reply
            if reply == DYING:
                yield from self.finish(thread_id)
            elif reply == RENEW:
                yield from self._renew(thread_id, ttl, list)
            else:
                break
        if reply == DELETED:
            raise thread_deleted(thread_id)
        if reply == ORPHANED:
            raise checkpoint_removed(thread_id)
        if reply == FENCED:
            raise lease_lost(thread_id)
        if reply == SOON:
            yield from self._renew_afterwards(thread_id, ttl)
        return reply

    def finish(self, thread_id: str) -> Trips[None]:
        """Remove what is left of a thread that expired, or whose removal has begun."""
        command = self.forgetting(thread_id)
        while (yield [command]) != [0]:
            pass

    def forgetting(self, thread_id: str, *beginning: Any) -> Command:
        """The script that removes a thread, or some of it; with four arguments more it begins."""
        names = self._names
        return call(
            "forget",
            [names.meta(thread_id), names.blobs(thread_id), names.threads(thread_id)],
            encode(thread_id),
            *names.bases(thread_id),
            names.runs,
            REMOVED,
            *beginning,
        )

    # --- threads that are read

    def touch(self, thread_id: str) -> Command:
        """Has a thread that expires do so later. Its reply is for `touched`."""
        names = self._names
        keys = [names.meta(thread_id), names.blobs(thread_id), names.threads(thread_id)]
        return call("touch", keys, self.ttl)

    def touched(self, thread_id: str, replies: Sequence[Any]) -> Trips[None]:
        """Renew the lease of the thread's keys where `touch` asked for it."""
        if not replies or replies[0] == 0:
            return
        is_done = yield from self._renew_afterwards(thread_id, self.ttl)
        if is_done and replies[0] == RENEW:
            yield Afterwards([self.touch(thread_id)])

    # --- the lease of keys

    def _renew_afterwards(self, thread_id: str, ttl: bytes) -> Trips[bool]:
        """Renew the lease of the thread's keys, unless another call here is doing it. What was
        asked for is done: the next change tries again if this fails."""
        if thread_id in self._under_way:
            return False
        self._under_way.add(thread_id)
        try:
            return (yield from self._renew(thread_id, ttl, Afterwards))
        finally:
            self._under_way.discard(thread_id)

    def _renew(self, thread_id: str, ttl: bytes, how: type[list[Command]]) -> Trips[bool]:
        """Give all keys of a thread a lease that is long enough for `ttl`, or none, in batches.
        False where another has ended it, or it failed. One that is under way is ended instead."""
        names = self._names
        meta = names.meta(thread_id)
        token = new_operation_id().hex()
        replies = yield how([call("begin_renewal", [meta], token, ttl)])
        if replies is None or not replies[0]:
            return False
        token, fields = replies[0]
        keys = yield from self._keys(thread_id, fields, how)
        if keys is None:
            return False
        runs = sum(field.startswith(b"run:") for field in fields)
        starts = range(0, max(len(keys), 1), _RENEWED)
        for start in starts:
            some = keys[start : start + _RENEWED]
            runs_of_them = min(max(runs - start, 0), len(some))
            is_last = int(start == starts[-1])
            replies = yield how([call("renew", [meta, *some], token, runs_of_them, is_last)])
            if replies != [1]:
                return False
        return True

    def _keys(
        self, thread_id: str, fields: Sequence[bytes], how: type[list[Command]]
    ) -> Trips[list[bytes] | None]:
        """All keys that the fields of a thread's hash name, those of runs first; None where it
        failed."""
        names = self._names
        keys = [names.run(decode(field[4:])) for field in fields if field.startswith(b"run:")]
        for field in fields:
            if field.startswith(b"w:"):
                keys.append(names.writes(thread_id, *place_of(field)))
        namespaces = [decode(field[3:]) for field in fields if field.startswith(b"ns:")]
        for ns in namespaces:
            index = names.index(thread_id, ns)
            keys.append(index)
            replies = yield how([("LRANGE", index, 0, -1)])
            if replies is None:
                return None
            for id in map(decode, replies[0]):
                keys += [names.checkpoint(thread_id, ns, id), names.writes(thread_id, ns, id)]
        return keys
