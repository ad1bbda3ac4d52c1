"""Tenants: the vendor's customers. Each is created with an External ID of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from app.audit import actions
from app.audit.details import TenantDescriptionChange
from app.clock import now
from app.errors import ConflictError
from app.identity import Maker, OperatorPrincipal, tenant_of
from app.identity.family_revocation import Ending
from app.ids import new_external_id
from app.store.database import Database, Session, until_committed
from app.store.keyset import Page, page, with_values
from app.store.models import (
    ApiKey,
    Connection,
    EndpointStatus,
    ExternalIdRow,
    ExternalIdState,
    Tenant,
    TenantStatus,
    WebhookEndpoint,
    deletion,
    folded,
    live_of,
)
from app.store.models.tenant import AFTER_ALL_LETTERS
from app.store.models.webhook import locked_endpoints
from app.tenants import suspension
from app.tenants.declared_accounts import count_accounts, declare, load_accounts

_REFERENCE_TAKEN = "Another tenant has this reference."


class TenantFilter(NamedTuple):
    """The filter of a list of tenants. None and () match any tenant.

    `name`: a prefix of the tenants' names. Case does not matter. `deleted`: deleted tenants instead
    of live ones.
    """

    tenant_id: UUID | None = None
    reference: str | None = None
    name: str | None = None
    statuses: tuple[TenantStatus, ...] = ()
    deleted: bool = False


def add_tenant(
    db: Session,
    principal: Maker,
    *,
    name: str,
    reference: str | None,
    accounts: Sequence[str] | None = None,
) -> Tenant:
    """Add a tenant with an External ID, and return it.

    Raises ConflictError if another tenant has the reference.
    """
    tenant = Tenant(name=name, reference=reference, made_by=principal.key_id)
    db.add(tenant)
    try:
        db.flush()
    except IntegrityError as error:
        raise ConflictError(_REFERENCE_TAKEN) from error
    db.add(
        ExternalIdRow(tenant_id=tenant.id, value=new_external_id(), state=ExternalIdState.CURRENT)
    )
    declare(db, tenant, accounts)
    actions.TENANT_CREATED.record(
        db,
        principal.actor,
        {"name": name, "reference": reference, "accounts": count_accounts(tenant)},
        tenant.id,
    )
    db.flush()
    db.refresh(tenant)
    return tenant


@dataclass
class Tenants:
    """The service that creates, reads, changes, suspends, resumes and offboards tenants."""

    _db: Database

    def create(
        self,
        principal: Maker,
        *,
        name: str,
        reference: str | None = None,
        accounts: Sequence[str] | None = None,
    ) -> Tenant:
        """Create a tenant with an External ID.

        `accounts`: the only accounts in which its roles may be; None allows any. Raises
        ForbiddenError for a bound key, and ConflictError if another tenant has the reference.
        """
        principal.require_vendor()
        with self._db.write(principal) as db:
            return add_tenant(db, principal, name=name, reference=reference, accounts=accounts)

    def list(
        self, principal: Maker, criteria: TenantFilter, *, limit: int, after: UUID | None
    ) -> Page[Tenant]:
        """Return tenants, newest first. A bound key sees only its own tenant."""
        deleted = Tenant.deleted_at.is_not(None)
        query = with_values(
            select(Tenant).where(deleted if criteria.deleted else ~deleted),
            id=principal.tenant_scope,
            reference=criteria.reference,
        )
        if criteria.tenant_id is not None:
            query = query.where(Tenant.id == criteria.tenant_id)
        if criteria.name is not None:
            # A range instead of LIKE: no character has to be escaped, and any index can be used.
            first = folded(criteria.name)
            query = query.where(Tenant.name_folded.between(first, first + AFTER_ALL_LETTERS))
        either = [Tenant.status == status for status in criteria.statuses]
        with self._db.read() as db:
            return page(db, query, Tenant.id, limit=limit, after=after, either=either)

    def get(self, principal: Maker, tenant_id: UUID) -> Tenant:
        with self._db.read() as db:
            return load_accounts(db, tenant_of(db, principal, tenant_id))

    def external_ids(self, tenant_id: UUID) -> Sequence[str]:
        """Return all External IDs that a tenant, live or deleted, ever had, newest first."""
        rows = select(ExternalIdRow.value).filter_by(tenant_id=tenant_id)
        with self._db.read() as db:
            return db.scalars(rows.order_by(ExternalIdRow.id.desc())).all()

    def change(self, principal: Maker, tenant_id: UUID, fields: dict[str, Any]) -> Tenant:
        """Change the given fields of a tenant: `name`, `reference` and `accounts`.

        Raises NotFoundError, and ForbiddenError for a bound key. Raises ConflictError if another
        tenant has the reference, or if the list of accounts lacks the account of a live connection.
        """
        try:
            with self._db.write(principal) as db:
                tenant = tenant_of(db, principal, tenant_id, lock=True)
                principal.require_vendor()  # only the vendor may change a tenant
                changes = dict[str, Any]()
                for field, value in fields.items():
                    if field == "accounts":
                        if declare(db, tenant, value):
                            changes["accounts"] = count_accounts(tenant)
                    elif value != getattr(tenant, field):
                        setattr(tenant, field, value)
                        changes[field] = value
                if changes:
                    details = cast("TenantDescriptionChange", changes)
                    actions.TENANT_CHANGED.record(db, principal.actor, details, tenant_id)
                return tenant if "accounts" in fields else load_accounts(db, tenant)
        except IntegrityError as error:
            raise ConflictError(_REFERENCE_TAKEN) from error

    @until_committed
    def suspend(self, principal: Maker, tenant_id: UUID, *, reason: str) -> Tenant:
        """Stop issuing for the whole tenant at once. Raises NotFoundError, ConflictError."""
        with self._db.read() as db:  # refuse an absent tenant before the wait for the lock
            tenant_of(db, principal, tenant_id)
        with self._db.write(principal) as db:
            tenant = tenant_of(db, principal, tenant_id, lock=True)
            was = tenant.status
            suspension.suspend(tenant, principal, reason=reason)
            actions.TENANT_SUSPENDED.record(
                db,
                principal.actor,
                {"was": was, "status": tenant.status, "reason": reason},
                tenant_id,
            )
            return load_accounts(db, tenant)

    def resume(self, principal: Maker, tenant_id: UUID, *, reason: str) -> Tenant:
        """Resume issuing for the tenant.

        Raises NotFoundError. Raises ConflictError if the tenant is not suspended, or if a bound key
        may not undo the suspension.
        """
        with self._db.write(principal) as db:
            tenant = tenant_of(db, principal, tenant_id, lock=True)
            suspension.ensure_may_undo(tenant, principal)
            was = tenant.status
            tenant.resume()
            actions.TENANT_RESUMED.record(
                db,
                principal.actor,
                {"was": was, "status": tenant.status, "reason": reason},
                tenant_id,
            )
            return load_accounts(db, tenant)

    @until_committed
    def delete(self, principal: Maker, tenant_id: UUID) -> None:
        """Offboard the tenant.

        Issuing stops, keys bound to the tenant are revoked, and its External IDs are retired and
        never reused.
        """
        with self._db.read() as db:
            tenant_of(db, principal, tenant_id)
            principal.require_vendor()  # a deletion can't be undone
        live = select(Tenant.id).filter_by(id=tenant_id, deleted_at=None)
        with self._db.write(Ending(principal, live)) as db:
            tenant = tenant_of(db, principal, tenant_id, lock=True)
            was, external_id, deleted_at = tenant.status, tenant.external_id, now()
            bound = update(ApiKey).filter_by(tenant_id=tenant_id, revoked_at=None)
            keys = db.execute(bound.values(revoked_at=deleted_at).returning(ApiKey.id)).all()
            tenant.status, tenant.deleted_at = TenantStatus.DELETED, deleted_at
            tombstones = update(Connection).where(live_of(tenant_id)).returning(Connection.id)
            ended = deletion(deleted_at, bound=False)
            connections = db.execute(
                tombstones.values(version=Connection.version + 1, **ended)
            ).all()
            own = WebhookEndpoint.tenant_id == tenant_id
            not_ended = WebhookEndpoint.status != EndpointStatus.DELETED
            for endpoint in db.scalars(locked_endpoints(own, not_ended)):
                endpoint.end()
            external_ids = update(ExternalIdRow).where(
                ExternalIdRow.tenant_id == tenant_id, ExternalIdRow.state != ExternalIdState.RETIRED
            )
            db.execute(external_ids.values(state=ExternalIdState.RETIRED, retired_at=deleted_at))
            actions.TENANT_DELETED.record(
                db,
                principal.actor,
                {
                    "name": tenant.name,
                    "reference": tenant.reference,
                    "external_id": cast("str", external_id),  # a live tenant has one
                    "was": was,
                    "status": tenant.status,
                    "connections_deleted": len(connections),
                    "api_keys_revoked": len(keys),
                },
                tenant_id,
            )

    @until_committed
    def void_registrations(self, operator: OperatorPrincipal, tenant_id: UUID) -> None:
        """Void all registration tokens that the tenant got so far. Raises NotFoundError.

        The connections that its stacks have registered stay.
        """
        with self._db.write(operator) as db:
            tenant = tenant_of(db, operator, tenant_id, lock=True)
            tenant.registration_generation += 1
            actions.TENANT_REGISTRATIONS_VOIDED.record(
                db, operator.actor, {"generation": tenant.registration_generation}, tenant_id
            )
