"""Fresh proofs on request, for connections whose latest proof is older than PROOF_MAX_AGE.

No credentials are issued on such an old proof, not even from the cache (invariant 13 in
docs/architecture.md). Background workers prove each connection far more often. So this module is
needed only while no background worker runs, or while AWS gives no clear answer.
`Connection.proven_until` says how long a proof allows issuing.
"""

from dataclasses import dataclass, field

from app.audit import Actor
from app.clock import now
from app.concurrency.single_flight import SingleFlight
from app.errors import ConflictError, ProofExpiredError
from app.identity import SystemPrincipal, owned
from app.identity.principals import ConnectionKey
from app.limits.rates import Rates
from app.proofs.verification import Verification
from app.store.database import Database
from app.store.models import Connection, Trigger

_ISSUING = Actor("worker", None, "issuing")
_CALLS = 3  # calls to STS that one proof counts as, for the tenant's rate limit
_EXPIRED = (
    "The latest proof of this role is too old, and AWS gave no clear answer yet; ask again in a"
    " moment."
)


@dataclass(eq=False)
class FreshProofs:
    """Proves connections for requests that need a fresh proof. It runs one proof per connection."""

    _db: Database
    _verification: Verification
    _rates: Rates
    _max_age: int  # PROOF_MAX_AGE in seconds
    _running: SingleFlight[ConnectionKey, None] = field(default_factory=SingleFlight)

    def renew(self, connection_key: ConnectionKey, patience: float) -> None:
        """Wait until a fresh proof of the connection is stored.

        The proof continues after the requests stop waiting. Raises ProofExpiredError when it takes
        longer than `patience` seconds or is inconclusive. Raises RateLimitedError when the tenant
        has used up its calls to STS.
        """
        call, _ = self._running.join(connection_key, lambda: self._prove(connection_key))
        try:
            call.result(timeout=max(0.0, patience))
        except TimeoutError as error:
            raise ProofExpiredError(_EXPIRED) from error

    def _prove(self, connection_key: ConnectionKey) -> None:
        tenant_id, _ = connection_key
        principal = SystemPrincipal(_ISSUING, tenant_id)
        # Look first, because the connection in memory may be older than the latest proof. A proof
        # with the same result does not raise the revocation counter.
        with self._db.read() as db:
            connection = owned(db, principal, *connection_key)
        if not self._has_expired(connection):
            return
        for _ in range(_CALLS):
            self._rates.acquire_session(tenant_id)
        try:
            connection = self._verification.verify(
                principal, *connection_key, trigger=Trigger.ISSUING
            )
        except ConflictError as error:
            raise ProofExpiredError(_EXPIRED) from error
        if self._has_expired(connection):
            raise ProofExpiredError(_EXPIRED)

    def _has_expired(self, connection: Connection) -> bool:
        """Return whether the connection is verified, and its proof is too old.

        For a connection that is not verified, issuing raises another refusal.
        """
        until = connection.proven_until(self._max_age)
        return until is not None and until <= now()
