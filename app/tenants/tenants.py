"""Tenants: the vendor's customers. Each is created with an External ID of its own."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from app.audit import actions
from app.audit.details import TenantDescriptionChange
from app.clock import now
from app.errors import ConflictError
from app.identity import Maker, OperatorPrincipal, tenant_of
from app.identity.families import Ending
from app.ids import new_external_id
from app.store.database import Database, Session, until_committed
from app.store.models import (
    ApiKey,
    Connection,
    ExternalIdRow,
    Tenant,
    TenantStatus,
    folded,
    live_of,
    states,
)
from app.store.models.tenant import AFTER_ALL_LETTERS
from app.store.pages import Page, page, with_values
from app.tenants.accounts import accounts_of, declare

_REFERENCE_TAKEN = "Another tenant has this reference."


class TenantFilter(NamedTuple):
    """The filter of a list of tenants. None and () mean any.

    `name`: a prefix of their names, in any case.
    """

    reference: str | None = None
    name: str | None = None
    statuses: tuple[TenantStatus, ...] = ()


def _whole(db: Session, tenant: Tenant) -> Tenant:
    """Return the tenant with its accounts, which a list of tenants lacks."""
    db.flush()
    tenant.accounts = accounts_of(db, tenant)
    return tenant


def _sorted(accounts: Sequence[str] | None) -> list[str] | None:
    """Return the list without duplicates."""
    return None if accounts is None else sorted(set(accounts))


def _count(accounts: Sequence[str] | None) -> int | None:
    """Return the number of accounts, for an audit event. Thousands of ids would be too long."""
    return None if accounts is None else len(accounts)


class Tenants:
    """The service that creates, reads, changes, suspends, resumes and offboards tenants."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def create(
        self,
        caller: Maker,
        *,
        name: str,
        reference: str | None = None,
        accounts: Sequence[str] | None = None,
    ) -> Tenant:
        """Create a tenant with an External ID.

        `accounts`: the only accounts that its roles may be in; None: any. Raises ForbiddenError for
        a bound key, and ConflictError if another tenant has the reference.
        """
        caller.require_vendor()
        try:
            with self._db.write(caller) as db:
                tenant = Tenant(name=name, reference=reference, made_by=caller.key_id)
                db.add(tenant)
                db.flush()
                own = new_external_id()
                db.add(
                    ExternalIdRow(
                        tenant_id=tenant.id, value=own, state=states.ExternalIdState.CURRENT
                    )
                )
                accounts = _sorted(accounts)
                declare(db, tenant, accounts)
                actions.TENANT_CREATED.record(
                    db,
                    caller.actor,
                    {"name": name, "reference": reference, "accounts": _count(accounts)},
                    tenant_id=tenant.id,
                )
                db.flush()
                db.refresh(tenant)
                return tenant
        except IntegrityError as error:
            raise ConflictError(_REFERENCE_TAKEN) from error

    def list(
        self, caller: Maker, wanted: TenantFilter, *, limit: int, after: UUID | None
    ) -> Page[Tenant]:
        """Return live tenants, newest first. A bound key sees its own."""
        live = select(Tenant).where(Tenant.deleted_at.is_(None))
        query = with_values(live, id=caller.tenant_scope, reference=wanted.reference)
        if wanted.name is not None:
            # A range instead of LIKE: no character is special, and any index serves it
            first = folded(wanted.name)
            query = query.where(
                Tenant.name_folded >= first, Tenant.name_folded < first + AFTER_ALL_LETTERS
            )
        either = [Tenant.status == status for status in wanted.statuses]
        with self._db.read() as db:
            return page(db, query, Tenant.id, limit=limit, after=after, either=either)

    def get(self, caller: Maker, tenant_id: UUID) -> Tenant:
        with self._db.read() as db:
            return _whole(db, tenant_of(db, caller, tenant_id))

    def change(self, caller: Maker, tenant_id: UUID, fields: dict[str, Any]) -> Tenant:
        """Change those of `name`, `reference` and `accounts` that are given.

        Raises NotFoundError, ForbiddenError for a bound key, and ConflictError for a taken
        reference, or for a list of accounts that lacks the account of a live connection.
        """
        try:
            with self._db.write(caller) as db:
                tenant = _whole(db, tenant_of(db, caller, tenant_id, lock=True))
                caller.require_vendor()  # only the vendor describes its customers
                words = {name: value for name, value in fields.items() if name != "accounts"}
                changes = {
                    name: value for name, value in words.items() if getattr(tenant, name) != value
                }
                for name, value in changes.items():
                    setattr(tenant, name, value)
                accounts = _sorted(fields.get("accounts", tenant.accounts))
                if accounts != tenant.accounts:
                    declare(db, tenant, accounts)
                    changes["accounts"] = _count(accounts)
                if changes:
                    details = cast("TenantDescriptionChange", changes)
                    actions.TENANT_CHANGED.record(db, caller.actor, details, tenant_id=tenant.id)
                return tenant
        except IntegrityError as error:
            raise ConflictError(_REFERENCE_TAKEN) from error

    @until_committed
    def suspend(self, caller: Maker, tenant_id: UUID, *, reason: str) -> Tenant:
        """Stop issuing for the whole tenant at once. Raises NotFoundError, ConflictError."""
        with self._db.read() as db:  # a tenant that does not exist must not wait for the lock
            tenant_of(db, caller, tenant_id)
        with self._db.write(caller) as db:
            tenant = tenant_of(db, caller, tenant_id, lock=True)
            was = tenant.status
            tenant.suspend(caller.suspension(reason))
            actions.TENANT_SUSPENDED.record(
                db, caller.actor, {"was": was, "reason": reason}, tenant_id=tenant.id
            )
            return _whole(db, tenant)

    def resume(self, caller: Maker, tenant_id: UUID, *, reason: str) -> Tenant:
        """Resume issuing for the tenant.

        Raises NotFoundError, and ConflictError if it is not suspended or a bound key may not undo
        the suspension.
        """
        with self._db.write(caller) as db:
            tenant = tenant_of(db, caller, tenant_id, lock=True)
            tenant.ensure_may_undo(bound=not caller.is_vendor)
            was = tenant.status
            tenant.resume()
            actions.TENANT_RESUMED.record(
                db, caller.actor, {"was": was, "reason": reason}, tenant_id=tenant.id
            )
            return _whole(db, tenant)

    @until_committed
    def delete(self, caller: Maker, tenant_id: UUID) -> None:
        """Offboard the tenant.

        Issuing stops, keys bound to the tenant are revoked, and its External IDs are retired and
        never reused.
        """
        with self._db.read() as db:
            tenant_of(db, caller, tenant_id)
            caller.require_vendor()  # it cannot be undone
        live = Tenant.id == tenant_id, Tenant.deleted_at.is_(None)
        with self._db.write(Ending(caller, select(Tenant.id).where(*live))) as db:
            tenant = tenant_of(db, caller, tenant_id, lock=True)
            was, at = tenant.status, now()
            bound = ApiKey.tenant_id == tenant_id, ApiKey.revoked_at.is_(None)
            keys = db.execute(
                update(ApiKey).where(*bound).values(revoked_at=at).returning(ApiKey.id)
            ).all()
            tenant.status, tenant.deleted_at = TenantStatus.DELETED, at
            gone = {"status": states.ConnectionStatus.DELETED, "deleted_at": at, "due_at": None}
            deleted = (
                update(Connection)
                .where(live_of(tenant_id))
                .values(version=Connection.version + 1, **gone)
            )
            connections = db.execute(deleted.returning(Connection.id)).all()
            own = (
                ExternalIdRow.tenant_id == tenant_id,
                ExternalIdRow.state != states.ExternalIdState.RETIRED,
            )
            db.execute(
                update(ExternalIdRow)
                .where(*own)
                .values(state=states.ExternalIdState.RETIRED, retired_at=at)
            )
            actions.TENANT_DELETED.record(
                db,
                caller.actor,
                {
                    "was": was,
                    "connections_deleted": len(connections),
                    "api_keys_revoked": len(keys),
                },
                tenant_id=tenant.id,
            )

    @until_committed
    def void_registrations(self, operator: OperatorPrincipal, tenant_id: UUID) -> None:
        """Void the registration tokens that were issued so far. Raises NotFoundError.

        What the tenant's stacks have registered stays.
        """
        with self._db.write(operator) as db:
            tenant = tenant_of(db, operator, tenant_id, lock=True)
            tenant.registration_generation += 1
            actions.TENANT_REGISTRATIONS_VOIDED.record(
                db,
                operator.actor,
                {"generation": tenant.registration_generation},
                tenant_id=tenant.id,
            )
