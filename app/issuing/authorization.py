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
from app.identity.principals import (
    ApiKeyPrincipal,
    authenticated,
    digest_of,
    lookup_of,
    principal_at_counter,
)
from app.identity.scopes import Scope
from app.identity.tenancy import owned_at_counter
from app.ids import Grant
from app.issuing.proof_age import ShelfLife
from app.store.database import Database, Session
from app.store.models import ConnectionStatus, ensure_active, states
from app.store.revocation_log import RevocationLog

_KEYS = 10_000  # entries, at about 1 kB each
_CONNECTIONS = 50_000
_READ_SECONDS = 1.5

_NOT_VERIFIED = (
    "This connection is not verified. Call verify, and read `verification` in the answer."
)

Name = TypeVar("Name", bound=Hashable)
Thing = TypeVar("Thing", ApiKeyPrincipal, "VerifiedConnection")
Path = tuple[UUID, UUID]  # the ids of a tenant and its connection


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
    # Seconds since 1970, when this object was read: later proofs do not raise the revocation
    # counter. A connection that was proven again meanwhile is the same one, so an issuance under
    # locks does not compare it.
    proven_until: float = field(compare=False)

    @property
    def path(self) -> Path:
        return self.tenant_id, self.connection_id

    @property
    def row_ids(self) -> tuple[UUID, ...]:
        """Row ids that this object depends on. Revoking any of them invalidates it."""
        return self.connection_id, self.tenant_id, self.external_id_id


class _Memory(Generic[Name, Thing]):
    """A cache of entries with the revocation counter at which each was read, and its running reads.

    The least recently used entries are evicted.
    """

    def __init__(self, size: int) -> None:
        self.reads: SingleFlight[Name, tuple[int, Thing]] = SingleFlight()
        self._things: LRUCache[Name, tuple[int, Thing]] = LRUCache(size)
        self._lock = leaf_lock()

    def get(self, name: Name, history: RevocationLog) -> tuple[int, Thing] | None:
        """Return the entry and the last revocation counter at which it is known to be valid.

        The counter comes first.
        """
        with self._lock:
            found = self._things.get(name)
        if found is None or found[0] >= history.counter:
            return found
        counter = history.still_valid_at(found[0], found[1].row_ids)
        return None if counter is None else (counter, found[1])

    def put(self, name: Name, found: tuple[int, Thing]) -> None:
        with self._lock:
            self._things[name] = found

    def forget(self, name: Name) -> None:
        with self._lock:
            self._things.pop(name, None)

    def clear(self) -> None:
        with self._lock:
            self._things.clear()


class Authorization:
    """Answers from memory, unless a revocation that this process knows invalidates the answer."""

    def __init__(self, db: Database, shelf_life: ShelfLife, key_uses: KeyUses) -> None:
        self._db = db
        self._key_uses = key_uses
        self._shelf_life = shelf_life
        self._history = RevocationLog()
        self._callers: _Memory[str, ApiKeyPrincipal] = _Memory(_KEYS)
        self._connections: _Memory[Path, VerifiedConnection] = _Memory(_CONNECTIONS)

    def authenticate(
        self, text: str, request_id: str | None, client_address: str | None = None
    ) -> ApiKeyPrincipal:
        """Authenticate a key from memory, as ApiKeys.authenticate does with the database.

        Use it only if the revocation counter is compared before the result counts.
        """
        return self._use(self._caller(lookup_of(text))[1], text, request_id, client_address)

    def authenticate_from_memory(
        self, text: str, request_id: str, client_address: str | None
    ) -> ApiKeyPrincipal | None:
        """Return the caller if memory has its key and the key is valid, without the database."""
        try:
            remembered = self._callers.get(lookup_of(text), self._history)
            return remembered and self._use(remembered[1], text, request_id, client_address)
        except errors.UnauthenticatedError:
            return None

    def _use(
        self, known: ApiKeyPrincipal, text: str, request_id: str | None, client_address: str | None
    ) -> ApiKeyPrincipal:
        caller = authenticated(known, digest_of(text))
        self._key_uses.note(caller.lookup)
        return caller.for_request(request_id, client_address)

    def authorize_issuance(
        self, caller: ApiKeyPrincipal, path: Path
    ) -> tuple[int, VerifiedConnection]:
        """Return the connection if this caller may have credentials for it.

        The revocation counter comes first: at that counter the key and the connection were valid.
        Raises UnauthenticatedError, ForbiddenError, NotFoundError, SuspendedError,
        ConnectionNotVerifiedError, ExternalIdWithdrawnError.
        """
        key_counter, known = self._caller(caller.lookup)
        _ensure_may_issue(known, caller.digest, path[0])
        counter, connection = self._connection(known, path)
        if not known.covers(
            connection.permission_sets
        ):  # it may be from memory, which no commit has compared
            self._connections.forget(path)
            counter, connection = self._connection(known, path)
            _ensure_permission_sets(known, connection)
        return min(key_counter, counter), connection

    def ensure_fresh_proof(
        self, connection: VerifiedConnection, at: float, patience: float
    ) -> bool:
        """Return True if the connection's proof still allows issuing.

        Otherwise wait for a fresh proof and return False: authorize the connection again. Raises
        ProofExpiredError when there is none after so many seconds, and RateLimitedError.
        """
        if at < connection.proven_until:
            return True
        with refused_about(connection.path):
            self._shelf_life.renew(connection.path, patience)
        self.forget(connection)
        return False

    def set_history(self, history: RevocationLog) -> None:
        """Set the revocations up to the counter that the last commit returned."""
        if history.rollbacks != self._history.rollbacks:
            self._callers.clear()
            self._connections.clear()
        self._history = history

    def forget(self, connection: VerifiedConnection) -> None:
        """Read this connection again at the next request.

        AWS refused its session, or it was proven again.
        """
        self._connections.forget(connection.path)

    def _connection(self, known: ApiKeyPrincipal, path: Path) -> tuple[int, VerifiedConnection]:
        max_age = self._shelf_life.seconds
        return self._known(
            self._connections, path, lambda db: _verified_at(db, known, path, max_age)
        )

    def _caller(self, lookup: str) -> tuple[int, ApiKeyPrincipal]:
        return self._known(self._callers, lookup, lambda db: principal_at_counter(db, lookup))

    def _known(
        self, memory: _Memory[Name, Thing], name: Name, read: Callable[[Session], tuple[int, Thing]]
    ) -> tuple[int, Thing]:
        """Return the entry and its revocation counter, from memory or by a read.

        Requests that need the same entry at the same time share one read.
        """
        if (known := memory.get(name, self._history)) is not None:
            return known

        def look() -> tuple[int, Thing]:
            if (found := memory.get(name, self._history)) is None:
                with self._db.read() as db:
                    found = read(db)
                memory.put(name, found)
            return found

        began_later = False
        while True:
            call, started = memory.reads.join(name, look)
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
def refused_about(path: Path) -> Iterator[None]:
    """Name the connection in a refusal that is raised in here, for the audit log.

    The caller can see that connection.
    """
    try:
        yield
    except errors.AppError as error:
        error.tenant_id, error.connection_id = path
        raise


def _ensure_may_issue(known: ApiKeyPrincipal, digest: bytes, tenant_id: UUID) -> None:
    """Raise an AppError unless the key may have credentials for that tenant's connections.

    The key must have that digest and be live. This is checked before a connection is looked up,
    because another key's request may have put the connection into memory.
    """
    authenticated(known, digest).require(Scope.CREDENTIALS_ISSUE)
    if known.tenant_scope not in {None, tenant_id}:
        raise errors.NotFoundError


def _ensure_permission_sets(caller: ApiKeyPrincipal, connection: VerifiedConnection) -> None:
    with refused_about(connection.path):
        caller.require_sets(connection.permission_sets)


def _verified_at(
    db: Session, caller: ApiKeyPrincipal, path: Path, max_age: int
) -> tuple[int, VerifiedConnection]:
    """Return the revocation counter, and the connection if it may issue at that counter.

    Raises NotFoundError, SuspendedError, ConnectionNotVerifiedError, ExternalIdWithdrawnError.
    """
    counter, connection, tenant_status = owned_at_counter(db, caller, *path)
    with refused_about(path):
        ensure_active(tenant_status)
        connection.ensure_not_suspended()
        if connection.status is not ConnectionStatus.VERIFIED:
            why = states.AWAITING_APPROVAL if connection.awaiting_approval else _NOT_VERIFIED
            raise errors.ConnectionNotVerifiedError(why)
        if connection.external_id_row.is_withdrawn:
            raise errors.ExternalIdWithdrawnError(states.WITHDRAWN)
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
