"""The rows of threads: who may write to one, when it expires, and what is left of a deleted one.

A row is alive while its thread is there; one that is not keeps a tombstone or a lease. A thread
that is removed loses its row, and with it the key under which all else lies.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, cast

from holdfast.backends.base import (
    OPERATION_ID_BYTES,
    TOMBSTONE_SECONDS,
    Expire,
    Fence,
    Forget,
    Lease,
    Predecessor,
    Release,
)
from holdfast.backends.sqlite.reclaim import Reclaimer
from holdfast.backends.sqlite.tables import IS_VISIBLE, Tables, milliseconds, minute, to_column
from holdfast.errors import lease_lost, thread_deleted

# Operations that a thread remembers. Requests are answered in this process, where no
# reply is lost: few can ever be repeated.
_OPERATIONS = 32

_Lease: TypeAlias = tuple[int | None, float | None]
_NO_LEASE: _Lease = (None, None)
_Tombstone: TypeAlias = tuple[float | None, bytes | None]
_NO_TOMBSTONE: _Tombstone = (None, None)
# Old tombstones that go with each one that comes.
_TOMBSTONES = 4


class _Row(NamedTuple):
    """A thread's row; its fields are columns."""

    key: int
    epoch: int
    minute: int
    operations: bytes
    is_alive: int
    expires_at: float | None
    deleted_at: float | None
    deleted_by: bytes | None
    lease_token: int | None
    lease_until: float | None

    def is_visible(self, now: float) -> bool:
        return bool(self.is_alive) and (self.expires_at is None or self.expires_at > now)

    @property
    def tombstone(self) -> _Tombstone:
        return self.deleted_at, self.deleted_by

    def tombstone_at(self, now: float) -> _Tombstone:
        """The tombstone, unless it is too old."""
        is_old = self.deleted_at is None or self.deleted_at + TOMBSTONE_SECONDS <= now
        return _NO_TOMBSTONE if is_old else self.tombstone

    def lease(self, now: float) -> _Lease:
        """The lease, unless it is so old that it cannot matter: it will not be prolonged any more,
        and a new token is above its own."""
        last = max((self.lease_token or 0) / 1000, self.lease_until or 0.0)
        if last + TOMBSTONE_SECONDS <= now:
            return _NO_LEASE
        return self.lease_token, self.lease_until


class ThreadRows:
    """The rows of threads, changed on the cursor of a transaction that may write.

    Args:
        ttl: Seconds after which a thread expires that is written now; None for never.
    """

    def __init__(self, tables: Tables, reclaimer: Reclaimer, ttl: float | None) -> None:
        self._tables = tables
        self._reclaimer = reclaimer
        self._ttl = ttl
        self._can_return = sqlite3.sqlite_version_info >= (3, 35)
        self._find = f"SELECT {', '.join(_Row._fields)} FROM {tables.threads} WHERE thread_id = ?"
        # A concatenation of blobs is text, which would end at a NUL.
        kept = f"substr(CAST(operations || ? AS BLOB), {-_OPERATIONS * OPERATION_ID_BYTES})"
        self._note = f"UPDATE {tables.threads} SET epoch = epoch + 1, operations = {kept}"
        self._change = (
            f"{self._note}, updated_at = ?, lease_until = ?, "
            "expires_at = CASE WHEN is_persistent THEN NULL ELSE ? END"
        )
        nothing_hinders = (
            f"WHERE thread_id = ? AND NOT instr(operations, ?) AND {IS_VISIBLE} "
            f"AND (deleted_at IS NULL OR deleted_at + {TOMBSTONE_SECONDS} <= ?)"
        )
        free = "(lease_until IS NULL OR lease_until <= ?)"
        held = "lease_token = ? AND lease_until IS NOT NULL"
        self._change_free = f"{self._change} {nothing_hinders} AND {free}"
        self._change_fenced = f"{self._change} {nothing_hinders} AND {held}"

    def begin(
        self,
        cursor: sqlite3.Cursor,
        thread_id: str,
        operation: bytes,
        now: float,
        fence: Fence | None,
        follows: Sequence[Predecessor],
    ) -> int | None:
        """The key of a thread that is written now; None where the operation was done before.

        Raises:
            ThreadDeleted: As `Commit` says.
            LeaseLost: As `Commit` says.
        """
        until = None if fence is None else now + fence.seconds
        changes = (operation, now, until, self._expiry(now))
        id = to_column(thread_id)
        update, holder = (
            (self._change_free, now) if fence is None else (self._change_fenced, fence.token)
        )
        found = self._returned(cursor, update, (*changes, id, operation, now, now, holder), id)
        if found is None:
            row = self._row(cursor, thread_id)
            if row is not None and operation in row.operations:
                return None
            _check_fence(thread_id, row, fence, now)
            if row is not None:
                self._check_deleted(cursor, thread_id, row, follows, now)
            if row is None or not row.is_visible(now):
                return self._begin_anew(cursor, thread_id, row, operation, until, now)
            cursor.execute(f"{self._change} WHERE key = ?", (*changes, row.key))
            found = (row.key, row.minute)
        key, last = found
        current = minute(milliseconds(now))
        if last != current:
            cursor.execute(
                f"UPDATE {self._tables.threads} SET minute = ? WHERE key = ?", (current, key)
            )
        return key

    def refresh(self, cursor: sqlite3.Cursor, thread_id: str, now: float) -> None:
        """Count a read as a write, for a thread that expires at all."""
        cursor.execute(
            f"UPDATE {self._tables.threads} SET expires_at = ? "
            "WHERE thread_id = ? AND is_alive AND expires_at > ?",
            (self._expiry(now), to_column(thread_id), now),
        )

    def remembers(self, cursor: sqlite3.Cursor, key: int, operation: bytes) -> bool:
        """Whether the operation was done before."""
        found = cursor.execute(
            f"SELECT instr(operations, ?) FROM {self._tables.threads} WHERE key = ?",
            (operation, key),
        ).fetchone()
        return bool(found[0])

    def note(self, cursor: sqlite3.Cursor, key: int, operation: bytes) -> None:
        """Raise the epoch for an operation that does not count as a write."""
        cursor.execute(f"{self._note} WHERE key = ?", (operation, key))

    def end(self, cursor: sqlite3.Cursor, thread_id: str, now: float) -> None:
        """Remove a thread of which nothing remains; a tombstone and a lease stay."""
        row = self._row(cursor, thread_id)
        if row is not None:
            self._take_key(cursor, row)
            self._leave(cursor, thread_id, row, row.tombstone, now)
            self._reclaimer.reclaim(cursor)

    def forget(self, cursor: sqlite3.Cursor, request: Forget, now: float) -> bool:
        row = self._row(cursor, request.thread_id)
        if row is not None:
            if row.deleted_by == request.operation:
                return True
            if row.is_alive and request.epoch not in (None, row.epoch):
                return False
            is_leased = row.lease_until is not None and row.lease_until > now
            if request.is_tidying and is_leased:
                return False
            self._take_key(cursor, row)
        tombstone = _NO_TOMBSTONE if row is None else row.tombstone_at(now)
        if request.leaves_tombstone:
            tombstone = now, request.operation
        self._leave(cursor, request.thread_id, row, tombstone, now)
        self._drop_old_tombstones(cursor, now)
        self._reclaimer.reclaim(cursor)
        return True

    def expire(self, cursor: sqlite3.Cursor, request: Expire, now: float) -> bool:
        ttl = request.ttl
        changed = cursor.execute(
            f"UPDATE {self._tables.threads} SET expires_at = ?, is_persistent = ? "
            f"WHERE thread_id = ? AND {IS_VISIBLE}",
            (
                None if ttl is None else now + ttl,
                ttl is None,
                to_column(request.thread_id),
                now,
            ),
        )
        return changed.rowcount > 0

    def lease(self, cursor: sqlite3.Cursor, request: Lease, now: float) -> tuple[int | None, float]:
        row = self._row(cursor, request.thread_id)
        last, until = _NO_LEASE if row is None else (row.lease_token, row.lease_until)
        if request.token is not None:
            if until is None or last != request.token:
                return None, 0.0
            token = request.token
        elif until is not None and until > now:
            return None, until - now
        else:
            # A time, so that it is greater also when the last one is not known any more.
            token = max((last or 0) + 1, milliseconds(now))
        until = now + request.seconds
        if row is None:
            self._insert(cursor, request.thread_id, now, is_alive=False, lease=(token, until))
        else:
            cursor.execute(
                f"UPDATE {self._tables.threads} SET lease_token = ?, lease_until = ? WHERE key = ?",
                (token, until, row.key),
            )
        return token, request.seconds

    def release(self, cursor: sqlite3.Cursor, request: Release, _: float) -> None:
        cursor.execute(
            f"UPDATE {self._tables.threads} SET lease_until = NULL "
            "WHERE thread_id = ? AND lease_token = ?",
            (to_column(request.thread_id), request.token),
        )

    def _expiry(self, now: float) -> float | None:
        return None if self._ttl is None else now + self._ttl

    def _row(self, cursor: sqlite3.Cursor, thread_id: str) -> _Row | None:
        row = cursor.execute(self._find, (to_column(thread_id),)).fetchone()
        return None if row is None else _Row(*row)

    def _returned(
        self, cursor: sqlite3.Cursor, update: str, values: Sequence[object], id: str | bytes
    ) -> tuple[int, int] | None:
        """Key and minute of the one row that is updated; None where there is none."""
        if self._can_return:
            found: tuple[int, int] | None = cursor.execute(
                f"{update} RETURNING key, minute", values
            ).fetchone()
            return found
        if not cursor.execute(update, values).rowcount:
            return None
        select = f"SELECT key, minute FROM {self._tables.threads} WHERE thread_id = ?"
        found = cursor.execute(select, (id,)).fetchone()
        return found

    def _begin_anew(
        self,
        cursor: sqlite3.Cursor,
        thread_id: str,
        row: _Row | None,
        operation: bytes,
        lease_until: float | None,
        now: float,
    ) -> int:
        """The key of a thread that was not there; what is left of an expired one goes."""
        if row is None:
            return self._insert(cursor, thread_id, now, operation=operation)
        self._take_key(cursor, row)
        return self._insert(
            cursor,
            thread_id,
            now,
            operation=operation,
            tombstone=row.tombstone,
            lease=(row.lease_token, lease_until),
        )

    def _take_key(self, cursor: sqlite3.Cursor, row: _Row) -> None:
        """Remove a row; what lies under its key is invisible at once, and deleted by and by."""
        if row.is_alive:
            self._reclaimer.bury(cursor, row.key)
        cursor.execute(f"DELETE FROM {self._tables.threads} WHERE key = ?", (row.key,))

    def _leave(
        self,
        cursor: sqlite3.Cursor,
        thread_id: str,
        row: _Row | None,
        tombstone: _Tombstone,
        now: float,
    ) -> None:
        """Insert what is to be remembered of a thread that is gone, if there is anything."""
        lease = _NO_LEASE if row is None else row.lease(now)
        if tombstone != _NO_TOMBSTONE or lease != _NO_LEASE:
            self._insert(cursor, thread_id, now, is_alive=False, tombstone=tombstone, lease=lease)

    def _insert(
        self,
        cursor: sqlite3.Cursor,
        thread_id: str,
        now: float,
        *,
        is_alive: bool = True,
        operation: bytes = b"",
        tombstone: _Tombstone = _NO_TOMBSTONE,
        lease: _Lease = _NO_LEASE,
    ) -> int:
        """The new row's key. A row that is not alive has the time of its tombstone."""
        at = now if is_alive or tombstone[0] is None else tombstone[0]
        cursor.execute(
            f"INSERT INTO {self._tables.threads} (thread_id, epoch, created_at, updated_at, "
            "operations, is_alive, minute, expires_at, deleted_at, deleted_by, lease_token, "
            "lease_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                to_column(thread_id),
                # Not from zero: a mark made of an earlier thread must not fit this one.
                secrets.randbits(48),
                at,
                at,
                operation,
                is_alive,
                minute(milliseconds(at)),
                self._expiry(now) if is_alive else None,
                *tombstone,
                *lease,
            ),
        )
        return cast(int, cursor.lastrowid)

    def _check_deleted(
        self,
        cursor: sqlite3.Cursor,
        thread_id: str,
        row: _Row,
        follows: Sequence[Predecessor],
        now: float,
    ) -> None:
        if row.deleted_at is None or row.deleted_at + TOMBSTONE_SECONDS <= now:
            return
        is_visible = row.is_visible(now)
        for one in follows:
            if is_visible and self._tables.has(
                cursor, row.key, one.checkpoint_ns, one.checkpoint_id
            ):
                continue
            if one.made <= milliseconds(row.deleted_at) or (one.is_parent and not is_visible):
                raise thread_deleted(thread_id)

    def _drop_old_tombstones(self, cursor: sqlite3.Cursor, now: float) -> None:
        """Forget some deletions that are not remembered any longer."""
        since = now - TOMBSTONE_SECONDS
        cursor.execute(
            f"DELETE FROM {self._tables.threads} WHERE key IN (SELECT key "
            f"FROM {self._tables.threads} WHERE is_alive = 0 AND minute < ? "
            "AND coalesce(lease_token < ?, 1) AND coalesce(lease_until < ?, 1) LIMIT ?)",
            (minute(milliseconds(since)), milliseconds(since), since, _TOMBSTONES),
        )


def _check_fence(thread_id: str, row: _Row | None, fence: Fence | None, now: float) -> None:
    token, until = _NO_LEASE if row is None else (row.lease_token, row.lease_until)
    if fence is not None:
        if until is None or token != fence.token:
            raise lease_lost(thread_id)
    elif until is not None and until > now:
        raise lease_lost(thread_id)
