"""Requests with an Idempotency-Key take effect once, however often they are sent.

The first writing transaction of a request adds a row. Each later transaction checks that the row
still belongs to this attempt. Each transaction also stores in the row what its audit event names,
such as a tenant and a connection. So a change and its row are committed together. The answer is
stored in the row afterwards.

A retry gets the stored answer. If an attempt is killed before it stores one, a retry takes the row
over when the row's lease has expired. If nothing was changed yet, the retry runs the request.
Otherwise it answers with the present state of what was changed.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import delete, event, func, select, text, update

from app.clock import now
from app.errors import IdempotencyKeyInUseError, IdempotencyKeyReusedError, NotFoundError
from app.identity.principals import ApiKeyPrincipal
from app.ids import new_id
from app.limits.limits import IDEMPOTENT_OF_TENANT, IDEMPOTENT_REQUESTS
from app.settings.setting_types import Limit
from app.store.database import SYSTEM, Database, Session
from app.store.models import ApiKey, IdempotentRequest

KEPT = timedelta(hours=24)
_LEASE = timedelta(seconds=60)
_BLIND: Any = {"synchronize_session": False}
_EFFECT = IdempotentRequest.created_at, IdempotentRequest.tenant_id, IdempotentRequest.thing_id
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(:number)")


class StoredAnswer(NamedTuple):
    """A stored answer: its status and its body."""

    status: int
    body: bytes


class Effect(NamedTuple):
    """The change that an earlier attempt made before it was cut off.

    `began_at`: when its first writing transaction began. `thing_id`: the connection, the endpoint
    or the test event that it was about.
    """

    began_at: datetime
    tenant_id: UUID | None
    thing_id: UUID | None

    @property
    def tenant(self) -> UUID:
        """The id of the tenant. Raises NotFoundError without one."""
        if self.tenant_id is None:
            raise NotFoundError
        return self.tenant_id

    @property
    def thing(self) -> UUID:
        """The id of what was made. Raises NotFoundError without one."""
        if self.thing_id is None:
            raise NotFoundError
        return self.thing_id

    @property
    def connection(self) -> tuple[UUID, UUID]:
        """The ids of the tenant and of its connection. Raises NotFoundError without them."""
        return self.tenant, self.thing


@dataclass
class Attempt:
    """An attempt of a request with an Idempotency-Key.

    `principal`: the key's, whose writing transactions call `note`. `earlier`: what an earlier
    attempt changed.
    """

    principal: ApiKeyPrincipal
    earlier: Effect | None
    _digest: bytes
    _body_digest: bytes
    _owner: UUID
    _stops: bool
    has_row: bool

    @property
    def row(self) -> Any:
        return (
            IdempotentRequest.api_key_id == self.principal.key_id,
            IdempotentRequest.digest == self._digest,
            IdempotentRequest.owner == self._owner,
        )

    def note(self, db: Session) -> None:
        """Add the row in this transaction, or check that this attempt still owns it.

        Raises IdempotencyKeyInUseError if another attempt owns it, and RateLimitedError if the
        key or its tenant has too many rows.
        """
        if not self.has_row:
            self._add(db)
        else:
            still = update(IdempotentRequest).where(*self.row)
            values = {"leased_until": now() + _LEASE}
            if not db.execute(still.values(values), execution_options=_BLIND).rowcount:  # type: ignore[attr-defined]
                raise IdempotencyKeyInUseError
        event.listen(db, "before_commit", self._note_effect)

    def _add(self, db: Session) -> None:
        # An INSERT would wait for the transaction of another attempt
        number = int.from_bytes(self._digest[:8], "big", signed=True)
        if not db.scalar(_TRY_LOCK, {"number": number}):
            raise IdempotencyKeyInUseError
        expired = *self.row[:2], IdempotentRequest.created_at <= now() - KEPT
        db.execute(delete(IdempotentRequest).where(*expired), execution_options=_BLIND)
        for limit, counted in self._counted():
            number, oldest = db.execute(counted).one()
            if number >= limit.amount:
                if self._stops:  # never refused, so it takes effect without a row
                    return
                raise limit.refuse((oldest + KEPT - now()).total_seconds())
        if db.scalar(select(IdempotentRequest.id).where(*self.row[:2])) is not None:
            raise IdempotencyKeyInUseError
        db.add(
            IdempotentRequest(
                api_key_id=self.principal.key_id,
                counted_for=self.principal.lock_id,
                digest=self._digest,
                body_digest=self._body_digest,
                owner=self._owner,
                leased_until=now() + _LEASE,
            )
        )
        db.flush()
        event.listen(db, "after_commit", self._note_row)

    def _counted(self) -> Iterator[tuple[Limit, Any]]:
        """Yield each limit with a query for the number of rows and the time of the oldest row.

        A revoked key's rows do not count for its tenant. Otherwise a thief could use up the
        tenant's limit for a day.
        """
        rows = select(func.count(), func.min(IdempotentRequest.created_at)).where(
            IdempotentRequest.counted_for == self.principal.lock_id,
            IdempotentRequest.created_at > now() - KEPT,
        )
        yield IDEMPOTENT_REQUESTS, rows.where(IdempotentRequest.api_key_id == self.principal.key_id)
        if tenant_id := self.principal.tenant_scope:
            live = select(ApiKey.id).where(
                ApiKey.tenant_id == tenant_id, ApiKey.revoked_at.is_(None)
            )
            yield IDEMPOTENT_OF_TENANT, rows.where(IdempotentRequest.api_key_id.in_(live))

    def _note_row(self, _: Session) -> None:
        self.has_row = True  # after the commit, because a rollback leaves no row

    def _note_effect(self, db: Session) -> None:
        """Store the tenant and the thing that the transaction's last audit event names."""
        if effect := db.info.get("effect"):
            noted = update(IdempotentRequest).where(*self.row)
            db.execute(noted.values(has_effect=True, **effect), execution_options=_BLIND)


class IdempotencyKeys:
    """The service that begins attempts, and stores their answers."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def begin(
        self, principal: ApiKeyPrincipal, request: str, key: str, body: bytes, *, stops: bool
    ) -> Attempt | StoredAnswer:
        """Return an attempt, or the answer of an earlier one.

        `request`: its method and path. `stops`: whether it revokes, suspends or deletes.

        Raises IdempotencyKeyReusedError if the key was sent with another body, and
        IdempotencyKeyInUseError while another attempt is running.
        """
        digest = hashlib.sha256(f"{principal.key_id} {request} {key}".encode()).digest()
        body_digest = hashlib.sha256(body).digest()
        query = select(IdempotentRequest).where(
            IdempotentRequest.api_key_id == principal.key_id,
            IdempotentRequest.digest == digest,
            IdempotentRequest.created_at > now() - KEPT,
        )
        with self._db.read() as db:
            row = db.scalars(query).one_or_none()
        owner, earlier = new_id(), None
        if row is not None:
            if row.body_digest != body_digest:
                raise IdempotencyKeyReusedError
            if row.status is not None and row.answer is not None:
                return StoredAnswer(row.status, row.answer)
            earlier = self._take_over(row, owner)
        attempt = Attempt(principal, earlier, digest, body_digest, owner, stops, row is not None)
        attempt.principal = principal.noting(attempt.note)
        return attempt

    def _take_over(self, row: IdempotentRequest, owner: UUID) -> Effect | None:
        """Take over a row whose lease has expired, and return what the earlier attempt changed."""
        taken = update(IdempotentRequest).where(
            IdempotentRequest.id == row.id,
            IdempotentRequest.owner == row.owner,
            IdempotentRequest.leased_until <= now(),
        )
        values = {"owner": owner, "leased_until": now() + _LEASE}
        with self._db.write(SYSTEM) as db:
            now_taken = taken.values(values).returning(IdempotentRequest.has_effect, *_EFFECT)
            earlier = db.execute(now_taken, execution_options=_BLIND).one_or_none()
        if earlier is None:
            raise IdempotencyKeyInUseError
        effect = Effect(earlier.created_at, earlier.tenant_id, earlier.thing_id)
        return effect if earlier.has_effect else None

    def end(self, attempt: Attempt, answer: StoredAnswer | None) -> None:
        """Store the answer of an attempt. `answer`: None if the request was refused.

        If a refused attempt changed nothing, its row is deleted. Otherwise its lease ends at once,
        so that a retry can answer with what was changed.
        """
        if not attempt.has_row:
            return
        with self._db.write(SYSTEM) as db:
            if answer is not None:
                stored = update(IdempotentRequest).where(*attempt.row)
                values = {"status": answer.status, "answer": answer.body}
                db.execute(stored.values(values), execution_options=_BLIND)
                return
            nothing = delete(IdempotentRequest).where(
                *attempt.row, IdempotentRequest.has_effect.is_(False)
            )
            db.execute(nothing, execution_options=_BLIND)
            given_back = update(IdempotentRequest).where(*attempt.row)
            db.execute(given_back.values(leased_until=now()), execution_options=_BLIND)
