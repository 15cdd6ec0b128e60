"""Tables of one prefix in a Postgres database that threads, event loops and processes share."""

from holdfast.backends.postgres.backend import PostgresBackend
from holdfast.backends.postgres.clients import Clients, FromUrl
from holdfast.backends.postgres.given import given
from holdfast.backends.postgres.tables import Tables

__all__ = ["Clients", "FromUrl", "PostgresBackend", "Tables", "given"]
