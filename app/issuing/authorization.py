"""Decide from memory whether an API key may have credentials for a connection.

Memory contains keys and connections, each with the revocation counter at which it was read. The
entries do not expire. A revocation raises the counter, and the statement that records an issuance
compares it (app/audit/batch_insert.py). When the statement returns another counter, entries that
depend on revoked rows are read again. Refusals are not kept in memory. An absent key, or a
connection that may not issue, is read from the database at each request.

No credentials are issued on a proof that is older than PROOF_MAX_AGE, not even from the cache
(invariant 13 in docs/architecture.md). A request that needs a fresh proof makes one. Background
workers prove each connection far more often. So requests make proofs only while no background
worker runs, or while AWS gives no clear answer. `Connection.proven_until` says how long a proof
allows issuing.
"""

import math
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from cachetools import LRUCache

from app import errors
from app.audit import Actor
from app.clock import now
from app.concurrency.gevent import leaf_lock, spawn
from app.concurrency.single_flight import SingleFlight, result_of
from app.config import Config
from app.connections.allowed_roles import OWN_ACCOUNT
from app.identity.key_text import lookup_of
from app.identity.key_uses import KeyUses
from app.identity.principals import ApiKeyPrincipal, SystemPrincipal, principal_at_counter
from app.identity.scopes import Scope
from app.identity.tenancy import ConnectionKey, owned, owned_at_counter
from app.ids import Grant
from app.limits.counting_in_memory import Rates
from app.proofs.verification import Verification
from app.store.database import Database, Session
from app.store.models import Connection, Trigger
from app.store.revocation import RevocationLog

_KEYS = 10_000  # maximum of entries, at about 1 kB each
_CONNECTIONS = 50_000
_READ_SECONDS = 1.5
_CATCH_UP_SECONDS = 1.0
_PROVER = Actor("worker", None, "issuing")
_EXPIRED = (
    "The latest proof of this role is too old, and AWS gave no clear answer yet; ask again in a"
    " moment."
)

Name = TypeVar("Name", bound=Hashable)
Content = TypeVar("Content", ApiKeyPrincipal, "VerifiedConnection")


@dataclass(frozen=True, slots=True)
class VerifiedConnection:
    """A connection for which credentials may be issued, with all that a session depends on."""

    tenant_id: UUID
    connection_id: UUID
    version: int
    grant: Grant
    role_unique_id: str | None
    permission_sets: frozenset[str]
    external_id_id: UUID
    tenant_resumed_at: datetime | None
    # The proof that was latest when this object was read allows issuing until this time, in seconds
    # since 1970. A later proof only extends the time, so comparisons leave out this field.
    proven_until: float = field(compare=False)

    @property
    def key(self) -> ConnectionKey:
        return self.tenant_id, self.connection_id

    @property
    def row_ids(self) -> tuple[UUID, ...]:
        """Row ids that this object depends on. Revoking any of them invalidates it."""
        return self.connection_id, self.tenant_id, self.external_id_id


class _Memory(Generic[Name, Content]):
    """A cache of entries, each with the revocation counter at which it was read.

    The least recently used entries are evicted. `reads`: the reads that are running now.
    """

    def __init__(self, size: int) -> None:
        self.reads: SingleFlight[Name, tuple[int, Content]] = SingleFlight()
        self._entries: LRUCache[Name, tuple[int, Content]] = LRUCache(size)
        self._lock = leaf_lock()

    def get(self, name: Name, history: RevocationLog) -> tuple[int, Content] | None:
        """Return the last revocation counter at which an entry is known to be valid, and the entry.

        Return None if there is no entry, or if it may be invalid.
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


@dataclass
class Authorization:
    """Authenticates keys and authorizes issuances from memory, which it fills from the database."""

    _db: Database
    _key_uses: KeyUses
    _verification: Verification
    _rates: Rates
    _config: Config
    _proofs: SingleFlight[ConnectionKey, None] = field(default_factory=SingleFlight)
    _history: RevocationLog = field(default_factory=RevocationLog)
    _next_catch_up: float = 0.0
    _principals: _Memory[str, ApiKeyPrincipal] = field(default_factory=lambda: _Memory(_KEYS))
    _connections: _Memory[ConnectionKey, VerifiedConnection] = field(
        default_factory=lambda: _Memory(_CONNECTIONS)
    )

    def authenticate(
        self, text: str, request_id: str | None, client_address: str | None = None
    ) -> ApiKeyPrincipal:
        """Authenticate a key from memory, as ApiKeys.authenticate does with the database.

        Use the result only where the revocation counter is compared before anything takes effect.
        """
        _, principal = self._principal(lookup_of(text))
        return self._key_uses.use(principal, text, request_id, client_address)

    def authenticate_from_memory(
        self, text: str, request_id: str, client_address: str | None
    ) -> ApiKeyPrincipal | None:
        """Return the principal from memory alone; None if its key is not there, or is not valid."""
        try:
            entry = self._principals.get(lookup_of(text), self._history)
            return entry and self._key_uses.use(entry[1], text, request_id, client_address)
        except errors.UnauthenticatedError:
            return None

    def authorize_issuance(
        self, principal: ApiKeyPrincipal, connection_key: ConnectionKey
    ) -> tuple[int, VerifiedConnection]:
        """Return the connection if this principal may have credentials for it.

        The first element is a revocation counter at which the key and the connection were valid.
        Raises UnauthenticatedError, ForbiddenError, NotFoundError, SuspendedError,
        ConnectionNotVerifiedError or ExternalIdWithdrawnError.
        """
        key_counter, current = self._principal(principal.lookup)
        # The key is checked before the connection is looked up: the connection may be in memory
        # because of another key's request.
        current.ensure_valid(principal.digest)
        current.require(Scope.CREDENTIALS_ISSUE)
        if current.tenant_scope not in {None, connection_key[0]}:
            raise errors.NotFoundError
        counter, connection = self._connection(current, connection_key)
        if not current.covers(connection.permission_sets):
            # The connection may be from memory and out of date. A refusal is not compared with the
            # revocation counter, so the connection is read again before it is refused.
            self._connections.forget(connection_key)
            counter, connection = self._connection(current, connection_key)
            with refused_about(connection_key):
                current.require_sets(connection.permission_sets)
        return min(key_counter, counter), connection

    def set_history(self, history: RevocationLog) -> None:
        """Set the revocation log, up to the counter that the last commit returned."""
        if history.rollbacks != self._history.rollbacks:
            self._principals = _Memory(_KEYS)
            self._connections = _Memory(_CONNECTIONS)
        self._history = history

    def catch_up(self) -> None:
        """Learn of revocations in the background, at most once a second.

        A process learns of them with its commits. Call this for a request that ends without a
        commit, or calls AWS before one. Otherwise a revoked key could make it call AWS for as long
        as AWS refuses.
        """
        if time.monotonic() >= self._next_catch_up:
            self._next_catch_up = time.monotonic() + _CATCH_UP_SECONDS
            spawn(self._catch_up)

    def _catch_up(self) -> None:
        self._next_catch_up = math.inf  # while this read takes long, no other one begins
        before = self._history
        try:
            with suppress(errors.StoreUnavailableError), self._db.read() as db:
                after = before.caught_up(db)
                if self._history is before:  # else a commit has advanced it meanwhile
                    self.set_history(after)
        finally:
            self._next_catch_up = time.monotonic() + _CATCH_UP_SECONDS

    def forget(self, connection: VerifiedConnection) -> None:
        """Remove a connection from memory, so that the next request reads it again.

        Call it when AWS refused the role's session.
        """
        self._connections.forget(connection.key)

    def renew_proof(self, connection_key: ConnectionKey, patience: float) -> None:
        """Wait until a fresh proof of the connection is stored. Only one runs per connection.

        The proof continues after the requests stop waiting. Raises ProofExpiredError when it takes
        longer than `patience` seconds or is inconclusive. Raises RateLimitedError when the tenant
        has used up its calls to STS.
        """
        self.catch_up()
        call, _ = self._proofs.join(connection_key, lambda: self._prove(connection_key))
        with refused_about(connection_key):
            try:
                result_of(call, patience)
            except TimeoutError as error:
                raise errors.ProofExpiredError(_EXPIRED) from error
        self._connections.forget(connection_key)

    def _prove(self, connection_key: ConnectionKey) -> None:
        tenant_id, _ = connection_key
        principal = SystemPrincipal(_PROVER, tenant_id)
        # Look first, because the connection in memory may be older than the latest proof. A proof
        # with the same result does not raise the revocation counter.
        with self._db.read() as db:
            connection = owned(db, principal, *connection_key)
        if not self._has_expired(connection):
            return
        for _ in range(self._config.proofs.routine_calls):
            self._rates.acquire_session(tenant_id)
        try:
            connection = self._verification.verify(
                principal, *connection_key, trigger=Trigger.ISSUING
            )
        except errors.ConflictError as error:
            raise errors.ProofExpiredError(_EXPIRED) from error
        if self._has_expired(connection):
            raise errors.ProofExpiredError(_EXPIRED)

    def _has_expired(self, connection: Connection) -> bool:
        """Return whether the connection is verified, and its proof is too old.

        For a connection that is not verified, issuing raises another refusal.
        """
        until = connection.proven_until(self._config.proofs.proof_max_age)
        return until is not None and until <= now()

    def _connection(
        self, principal: ApiKeyPrincipal, connection_key: ConnectionKey
    ) -> tuple[int, VerifiedConnection]:
        """Return the revocation counter, and the connection if credentials may be issued for it.

        Raises NotFoundError, SuspendedError, ConnectionNotVerifiedError or
        ExternalIdWithdrawnError.
        """

        def read(db: Session) -> tuple[int, VerifiedConnection]:
            counter, connection, status, resumed_at = owned_at_counter(
                db, principal, *connection_key
            )
            with refused_about(connection_key):
                connection.ensure_issues(status)
                if connection.account_id in self._config.own_accounts:  # since it was connected
                    raise errors.ConnectionNotVerifiedError(OWN_ACCOUNT)
            until = connection.proven_until(self._config.proofs.proof_max_age)
            return counter, VerifiedConnection(
                tenant_id=connection.tenant_id,
                connection_id=connection.id,
                version=connection.version,
                grant=connection.grant,
                role_unique_id=connection.role_unique_id,
                permission_sets=connection.permission_sets,
                proven_until=until.timestamp() if until else 0.0,
                external_id_id=connection.external_id_id,
                tenant_resumed_at=resumed_at,
            )

        return self._entry(self._connections, connection_key, read)

    def _principal(self, lookup: str) -> tuple[int, ApiKeyPrincipal]:
        return self._entry(self._principals, lookup, lambda db: principal_at_counter(db, lookup))

    def _entry(
        self,
        memory: _Memory[Name, Content],
        name: Name,
        read: Callable[[Session], tuple[int, Content]],
    ) -> tuple[int, Content]:
        """Return an entry's revocation counter and the entry, from memory or from the database.

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
            except TimeoutError as error:
                # The database server may hang on this connection. The next request starts a read
                # of its own, over another connection.
                memory.reads.abandon(name, call)
                raise errors.StoreUnavailableError(
                    "The database can't be reached right now; try again."
                ) from error
            except (errors.CallerFaultError, errors.CustomerSetupError):
                # A refusal is never compared with the revocation counter. If this request joined a
                # read that was running already, the read may be older than a change that the caller
                # has made since. So the request tries once more, with a read that begins later.
                if started or began_later:
                    raise
                began_later = True


@contextmanager
def refused_about(connection_key: ConnectionKey) -> Iterator[None]:
    """Add the ids of tenant and connection to a refusal raised inside the `with` block.

    The audit log needs them. Use it only for a connection that the principal can see.
    """
    try:
        yield
    except errors.AppError as error:
        error.tenant_id, error.connection_id = connection_key
        raise
