"""Who may have credentials for what, from memory: API keys and connections as they were at some epoch.

Nothing here ages. What was taken away since has moved the configuration's epoch, and the statement that records an
issuance compares it (app/audit/batch.py); told of another one, memory reads again whatever it is asked for. Nothing
negative is kept: what is not there, or may not issue, is looked up each time.
"""

import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from cachetools import LRUCache
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access.callers import Caller, Scope, admitted, caller_of, digest_of, key_at, lookup_of
from app.access.tenancy import owned_at
from app.concurrency.gevent import beside
from app.errors import AppError, ConnectionNotVerifiedError, NotFoundError, StoreUnavailableError
from app.ids import Grant
from app.store.database import Database
from app.store.models import Connection, ConnectionStatus, Tenant, ensure_active
from app.store.models.states import AWAITING_APPROVAL

_KEYS = 10_000  # how many are kept, at about 1 kB each
_CONNECTIONS = 50_000
_READ_SECONDS = 1.5

_NOT_VERIFIED = "This connection is not verified; verify it, and see what its verification says."

Name = TypeVar("Name", bound=Hashable)
Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class VerifiedConnection:
    """A connection that may issue: what a session is made from."""

    tenant_id: UUID
    connection_id: UUID
    version: int
    grant: Grant
    role_unique_id: str | None
    permission_set: str

    @property
    def path(self) -> tuple[UUID, UUID]:
        return self.tenant_id, self.connection_id


class Authorization:
    """Answers from memory what the database said at the epoch that memory believes in."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._epoch = 0
        self._callers: _Memory[str, Caller | None] = _Memory(_KEYS)
        self._connections: _Memory[tuple[UUID, UUID], VerifiedConnection] = _Memory(_CONNECTIONS)

    def authenticate(self, text: str, request_id: str | None, client_address: str | None = None) -> Caller:
        """As ApiKeys.authenticate, from memory: only for what is compared with the epoch before it counts."""
        _, caller = self._caller(lookup_of(text))
        return admitted(caller, digest_of(text)).of(request_id, client_address)

    def authorize_issuance(
        self, caller: Caller, tenant_id: UUID, connection_id: UUID
    ) -> tuple[int, VerifiedConnection]:
        """The connection, if this caller may have credentials for it, and the epoch at which all of that held.

        Raises UnauthenticatedError, ForbiddenError, NotFoundError, SuspendedError, ConnectionNotVerifiedError.
        """
        key_epoch, known = self._caller(caller.lookup)
        known = _may_issue(known, caller.digest, tenant_id)
        epoch, connection = self._connection(known, (tenant_id, connection_id))
        return min(key_epoch, epoch), _for(known, connection)

    def set_epoch(self, epoch: int) -> None:
        """The database says that this is the epoch: what was read at any other one is read again."""
        if epoch < self._epoch:  # a backup was restored: the same number will come again, with another meaning
            self._callers.clear()
            self._connections.clear()
        self._epoch = epoch

    def forget(self, connection: VerifiedConnection) -> None:
        """AWS says otherwise: read this connection again when it is next asked for."""
        self._connections.forget(connection.path)

    def _caller(self, lookup: str) -> tuple[int, Caller | None]:
        return self._known(self._callers, lookup, lambda db: _caller_at(db, lookup))

    def _connection(self, caller: Caller, path: tuple[UUID, UUID]) -> tuple[int, VerifiedConnection]:
        return self._known(self._connections, path, lambda db: verified_connection_at(db, caller, path))

    def _known(
        self, memory: "_Memory[Name, Thing]", name: Name, read: Callable[[Session], tuple[int, Thing]]
    ) -> tuple[int, Thing]:
        known = memory.get(name)
        if known is not None and known[0] == self._epoch:
            return known
        # One look for everybody who wants the same just now: a new process has many, and so has each move of the epoch.
        under_way = memory.look(name, known, lambda: beside(self._look, memory, name, read))
        if under_way is None:  # one has ended since
            return self._known(memory, name, read)
        look, mine = under_way
        try:
            found = _awaited(look, memory, name)
        except StoreUnavailableError as error:  # nobody has the time to wait twice
            raise StoreUnavailableError(error.detail) from error
        except AppError:
            if mine:
                raise
        else:
            if mine or found[1] is not None:
                return found
        # Good news may be a little older than the request that hears it, as the commit compares the epoch. Nothing
        # compares bad news, so whoever did not begin that look looks again.
        return _awaited(beside(self._look, memory, name, read), memory, name)

    def _look(
        self, memory: "_Memory[Name, Thing]", name: Name, read: Callable[[Session], tuple[int, Thing]]
    ) -> tuple[int, Thing]:
        try:
            with self._db.read() as db:
                found = read(db)
            if found[1] is not None:
                # Before it is there to be found, or it would look old to whoever finds it in between.
                if found[0] > self._epoch:  # a lower one may only have been read slowly; a commit will tell
                    self.set_epoch(found[0])
                memory.put(name, found)
            return found
        finally:
            memory.over(name)


def _awaited(look: "Future[tuple[int, Thing]]", memory: "_Memory[Name, Thing]", name: Name) -> tuple[int, Thing]:
    try:
        return look.result(timeout=_READ_SECONDS)
    except FutureTimeoutError as error:  # a server that hangs keeps its connections, and answers nothing
        memory.over(name)  # the next one tries anew, over another connection
        raise StoreUnavailableError("The database can't be reached right now; try again.") from error


def _may_issue(known: Caller | None, digest: bytes, tenant_id: UUID) -> Caller:
    """The caller, if it has that digest, is live, and may have credentials of that tenant's.

    Asked before a connection is looked up: another key's request may have brought it into memory.
    """
    known = admitted(known, digest)
    known.require(Scope.CREDENTIALS_ISSUE)
    if known.tenant_id is not None and known.tenant_id != tenant_id:
        raise NotFoundError
    return known


def _caller_at(db: Session, lookup: str) -> tuple[int, Caller | None]:
    found = key_at(db, lookup)
    return (0, None) if found is None else (found[1], caller_of(found[0]))


class _Memory(Generic[Name, Thing]):
    """The things last asked for, each with the epoch at which it was read; and the looks that are under way."""

    def __init__(self, size: int) -> None:
        self._things: LRUCache[Name, tuple[int, Thing]] = LRUCache(size)
        self._looks: dict[Name, Future[tuple[int, Thing]]] = {}
        self._lock = threading.Lock()  # around the two above

    def look(
        self, name: Name, seen: tuple[int, Thing] | None, begin: "Callable[[], Future[tuple[int, Thing]]]"
    ) -> "tuple[Future[tuple[int, Thing]], bool] | None":
        """The look that is under way for this, or one that is begun now, and whether it was; None if something else was
        put here since `seen` was got.
        """
        with self._lock:
            look = self._looks.get(name)
            if look is not None:
                return look, False
            if self._things.get(name) is not seen:
                return None
            look = self._looks[name] = begin()
            return look, True

    def over(self, name: Name) -> None:
        """Whoever asks from here on begins another look."""
        with self._lock:
            self._looks.pop(name, None)

    def get(self, name: Name) -> tuple[int, Thing] | None:
        with self._lock:
            return self._things.get(name)

    def clear(self) -> None:
        with self._lock:
            self._things.clear()

    def forget(self, name: Name) -> None:
        with self._lock:
            self._things.pop(name, None)

    def put(self, name: Name, known: tuple[int, Thing]) -> None:
        with self._lock:
            self._things[name] = known


@contextmanager
def _about(tenant_id: UUID, connection_id: UUID) -> Iterator[None]:
    """A refusal in here is about that connection, which the caller can see: the audit log says so."""
    try:
        yield
    except AppError as error:
        error.tenant_id, error.connection_id = tenant_id, connection_id
        raise


def _for(caller: Caller, connection: VerifiedConnection) -> VerifiedConnection:
    """The connection, if its permission set is one that this key is for. Raises ForbiddenError."""
    with _about(connection.tenant_id, connection.connection_id):
        caller.require_set(connection.permission_set)
    return connection


def verified_connection_at(db: Session, caller: Caller, path: tuple[UUID, UUID]) -> tuple[int, VerifiedConnection]:
    """The epoch, and the connection if it may issue at it.

    Raises NotFoundError, SuspendedError, ConnectionNotVerifiedError.
    """
    connection, tenant_status, epoch = owned_at(db, caller, *path)
    with _about(*path):
        ensure_active(tenant_status)
        connection.ensure_not_suspended()
        if connection.status is not ConnectionStatus.VERIFIED:
            raise ConnectionNotVerifiedError(AWAITING_APPROVAL if connection.awaiting_approval else _NOT_VERIFIED)
    return epoch, VerifiedConnection(
        tenant_id=connection.tenant_id,
        connection_id=connection.id,
        version=connection.version,
        grant=connection.grant,
        role_unique_id=connection.role_unique_id,
        permission_set=connection.permission_set,
    )


def lock_verified_connection(db: Session, caller: Caller, path: tuple[UUID, UUID]) -> VerifiedConnection:
    """As `Authorization.authorize_issuance`, from the rows, and it stays so until the transaction ends: what stops it waits, and
    issuances share the locks.

    The caller's own row is locked by the transaction's beginning (`Caller.admit`). Raises as it does.
    """
    tenant_id, connection_id = path
    known = _may_issue(_caller_at(db, caller.lookup)[1], caller.digest, tenant_id)
    # The tenant before its connection, as everywhere, or two could wait for each other.
    db.execute(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(read=True))
    db.execute(select(Connection.id).where(Connection.id == connection_id).with_for_update(read=True))
    return _for(known, verified_connection_at(db, caller, path)[1])
