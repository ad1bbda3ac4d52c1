"""Which API key may have credentials for which connection, answered from memory.

Memory holds keys and connections as they were at some revocation counter. Its entries do not
expire. A revocation raises the counter, and the statement that records an issuance compares it
(app/audit/insert.py). When that statement returns another counter, the entries that depend on
revoked rows are read again. Refusals are not kept: an absent key, or a connection that may not
issue, is read at each request.
"""

from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

from cachetools import LRUCache

from app import errors
from app.concurrency.gevent import leaf_lock
from app.concurrency.single_flight import SingleFlight
from app.identity.key_uses import KeyUses
from app.identity.principals import ApiKeyPrincipal, authenticated, lookup_of, principal_at_counter
from app.identity.scopes import Scope
from app.identity.tenancy import ConnectionKey, owned_at_counter
from app.ids import Grant
from app.store.database import Database, Session
from app.store.models.states import ensure_issues
from app.store.revocation_log import RevocationLog

_KEYS = 10_000  # entries, at about 1 kB each
_CONNECTIONS = 50_000
_READ_SECONDS = 1.5

Name = TypeVar("Name", bound=Hashable)
Content = TypeVar("Content", ApiKeyPrincipal, "VerifiedConnection")


@dataclass(frozen=True, slots=True)
class VerifiedConnection:
    """A connection that may issue, with all that a session is made from."""

    tenant_id: UUID
    connection_id: UUID
    version: int
    grant: Grant
    role_unique_id: str | None
    permission_sets: frozenset[str]
    external_id_id: UUID
    # Seconds since 1970, when this object was read. Later proofs do not raise the revocation
    # counter: a connection that was proven again is the same one, so it is not compared.
    proven_until: float = field(compare=False)

    @property
    def key(self) -> ConnectionKey:
        return self.tenant_id, self.connection_id

    @property
    def row_ids(self) -> tuple[UUID, ...]:
        """Row ids that this object depends on. Revoking any of them invalidates it."""
        return self.connection_id, self.tenant_id, self.external_id_id


class _Memory(Generic[Name, Content]):
    """A cache of entries with the revocation counter at which each was read, and its running reads.

    The least recently used entries are evicted.
    """

    def __init__(self, size: int) -> None:
        self.reads: SingleFlight[Name, tuple[int, Content]] = SingleFlight()
        self._entries: LRUCache[Name, tuple[int, Content]] = LRUCache(size)
        self._lock = leaf_lock()

    def get(self, name: Name, history: RevocationLog) -> tuple[int, Content] | None:
        """Return the entry and the last revocation counter at which it is known to be valid.

        The counter comes first.
        """
        with self._lock:
            entry = self._entries.get(name)
        if entry is None or entry[0] >= history.counter:
            return entry
        counter = history.still_valid_at(entry[0], entry[1].row_ids)
        return None if counter is None else (counter, entry[1])

    def put(self, name: Name, entry: tuple[int, Content]) -> None:
        with self._lock:
            self._entries[name] = entry

    def forget(self, name: Name) -> None:
        with self._lock:
            self._entries.pop(name, None)


class Authorization:
    """Answers from memory, unless a revocation that this process knows invalidates the answer.

    `max_age`: PROOF_MAX_AGE.
    """

    def __init__(self, db: Database, max_age: int, key_uses: KeyUses) -> None:
        self._db = db
        self._max_age = max_age
        self._key_uses = key_uses
        self._history = RevocationLog()
        self._principals: _Memory[str, ApiKeyPrincipal] = _Memory(_KEYS)
        self._connections: _Memory[ConnectionKey, VerifiedConnection] = _Memory(_CONNECTIONS)

    def authenticate(
        self, text: str, request_id: str | None, client_address: str | None = None
    ) -> ApiKeyPrincipal:
        """Authenticate a key from memory, as ApiKeys.authenticate does with the database.

        Use it only if the revocation counter is compared before the result counts.
        """
        _, principal = self._principal(lookup_of(text))
        return self._key_uses.use(principal, text, request_id, client_address)

    def authenticate_from_memory(
        self, text: str, request_id: str, client_address: str | None
    ) -> ApiKeyPrincipal | None:
        """Return the principal if memory has its key and the key is valid, without the database."""
        try:
            entry = self._principals.get(lookup_of(text), self._history)
            return entry and self._key_uses.use(entry[1], text, request_id, client_address)
        except errors.UnauthenticatedError:
            return None

    def authorize_issuance(
        self, principal: ApiKeyPrincipal, connection_key: ConnectionKey
    ) -> tuple[int, VerifiedConnection]:
        """Return the connection if this principal may have credentials for it.

        The revocation counter comes first: at that counter the key and the connection were valid.
        Raises UnauthenticatedError, ForbiddenError, NotFoundError, SuspendedError,
        ConnectionNotVerifiedError, ExternalIdWithdrawnError.
        """
        key_counter, current = self._principal(principal.lookup)
        # The key is checked before a connection is looked up, because another key's request may
        # have put the connection into memory.
        authenticated(current, principal.digest).require(Scope.CREDENTIALS_ISSUE)
        if current.tenant_scope not in {None, connection_key[0]}:
            raise errors.NotFoundError
        counter, connection = self._connection(current, connection_key)
        if not current.covers(connection.permission_sets):
            # It may be from memory, which no commit has compared
            self._connections.forget(connection_key)
            counter, connection = self._connection(current, connection_key)
            with refused_about(connection_key):
                current.require_sets(connection.permission_sets)
        return min(key_counter, counter), connection

    def set_history(self, history: RevocationLog) -> None:
        """Set the revocations up to the counter that the last commit returned."""
        if history.rollbacks != self._history.rollbacks:
            self._principals = _Memory(_KEYS)
            self._connections = _Memory(_CONNECTIONS)
        self._history = history

    def forget(self, connection: VerifiedConnection) -> None:
        """Read this connection again at the next request.

        AWS refused its session, or it was proven again.
        """
        self._connections.forget(connection.key)

    def _connection(
        self, principal: ApiKeyPrincipal, connection_key: ConnectionKey
    ) -> tuple[int, VerifiedConnection]:
        return self._entry(
            self._connections,
            connection_key,
            lambda db: _verified_at_counter(db, principal, connection_key, self._max_age),
        )

    def _principal(self, lookup: str) -> tuple[int, ApiKeyPrincipal]:
        return self._entry(self._principals, lookup, lambda db: principal_at_counter(db, lookup))

    def _entry(
        self,
        memory: _Memory[Name, Content],
        name: Name,
        read: Callable[[Session], tuple[int, Content]],
    ) -> tuple[int, Content]:
        """Return the entry and its revocation counter, from memory or by a read.

        Requests that need the same entry at the same time share one read.
        """
        if (entry := memory.get(name, self._history)) is not None:
            return entry

        def load() -> tuple[int, Content]:
            if (entry := memory.get(name, self._history)) is None:
                with self._db.read() as db:
                    entry = read(db)
                memory.put(name, entry)
            return entry

        began_later = False
        while True:
            call, started = memory.reads.join(name, load)
            try:
                return call.result(timeout=_READ_SECONDS)
            except FutureTimeoutError as error:
                # A server that hangs keeps its connection: the next request tries another one.
                memory.reads.abandon(name, call)
                raise errors.StoreUnavailableError(
                    "The database can't be reached right now; try again."
                ) from error
            except (errors.CallerFaultError, errors.CustomerSetupError):
                # A refusal is not checked against the revocation counter, and a read that this
                # request joined may have begun before it. So the request joins the next read, which
                # began later.
                if started or began_later:
                    raise
                began_later = True


@contextmanager
def refused_about(connection_key: ConnectionKey) -> Iterator[None]:
    """Name the connection in a refusal that is raised in here, for the audit log.

    The principal can see that connection.
    """
    try:
        yield
    except errors.AppError as error:
        error.tenant_id, error.connection_id = connection_key
        raise


def _verified_at_counter(
    db: Session, principal: ApiKeyPrincipal, connection_key: ConnectionKey, max_age: int
) -> tuple[int, VerifiedConnection]:
    """Return the revocation counter, and the connection if it may issue at that counter.

    Raises NotFoundError, SuspendedError, ConnectionNotVerifiedError, ExternalIdWithdrawnError.
    """
    counter, connection, tenant_status = owned_at_counter(db, principal, *connection_key)
    with refused_about(connection_key):
        ensure_issues(connection, tenant_status)
    until = connection.proven_until(max_age)
    return counter, VerifiedConnection(
        tenant_id=connection.tenant_id,
        connection_id=connection.id,
        version=connection.version,
        grant=connection.grant,
        role_unique_id=connection.role_unique_id,
        permission_sets=connection.permission_sets,
        proven_until=until.timestamp() if until else 0.0,
        external_id_id=connection.external_id_id,
    )
