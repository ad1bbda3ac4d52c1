"""Tenants."""

from typing import Any
from uuid import UUID

from marshmallow import ValidationError, fields, validate

from app.api.kit.blueprint import (
    Blueprint,
    JsonObject,
    changing,
    filters_of,
    paged,
    principal,
    services,
)
from app.api.kit.pagination import PageQuery, page_of
from app.api.kit.schemas import (
    ACCOUNT,
    EXTERNAL_ID,
    SUSPENDED,
    Answer,
    AsStored,
    Reason,
    Statuses,
    Strict,
    date_time,
    doc,
    line,
    matching,
    nullable_string,
    status,
    string,
    uuid,
)
from app.idempotency.attempts import Effect
from app.ids import ACCOUNT_ID
from app.store.models import Tenant, TenantStatus
from app.tenants.declared_accounts import ACCOUNTS_MAX, invalid_accounts
from app.tenants.tenants import TenantFilter

_ACCOUNTS = doc([ACCOUNT], "The AWS accounts that its roles may be in; null: any. See docs/api.md.")


class Accounts(fields.List[str]):
    """Account ids, checked in one pass.

    For thousands of ids this takes a tenth of the time that a marshmallow field for each takes.
    """

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[str | None]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        if invalid := invalid_accounts(value):
            message = "Must be an account id of 12 digits."
            raise ValidationError({index: [message] for index in invalid})
        return value


class TenantChange(Strict):
    name = line(200, "Acme")
    reference = line(200, "customer-42", "Your own id for it; unique.", allow_none=True)
    accounts = Accounts(
        matching(ACCOUNT_ID.pattern, ACCOUNT),
        allow_none=True,
        validate=validate.Length(0, ACCOUNTS_MAX),
        metadata=_ACCOUNTS,
    )


class NewTenant(TenantChange):
    name = line(200, "Acme", required=True)


class TenantQuery(PageQuery):
    reference = line(200, "customer-42")
    name = line(200, "acm", "The beginning of the name; case does not matter.")
    statuses = Statuses(TenantStatus, "suspended", data_key="status")


class TenantSummary(Answer):
    id = uuid()
    name = string("Acme")
    reference = nullable_string("customer-42")
    status = status(TenantStatus, "active")
    suspended = SUSPENDED
    external_id = string(EXTERNAL_ID, "Made by Deputy, for this tenant alone; not a secret.")
    created_at = date_time()


class TenantOut(TenantSummary):
    accounts = AsStored(string(ACCOUNT), allow_none=True, metadata=_ACCOUNTS)


bp = Blueprint("tenants", "The vendor's customers.", noun="tenant")

_ONE = "/v1/tenants/<uuid:tenant_id>"


def _as_it_is(effect: Effect) -> Tenant:
    return services.tenants.get(principal(), effect.tenant)


@bp.operation(
    "POST",
    "/v1/tenants",
    "tenants:write tenants:create",
    TenantOut,
    takes=NewTenant,
    status=201,
    again=_as_it_is,
)
def create_tenant(body: JsonObject) -> Tenant:
    """Create a tenant, with an External ID of its own."""
    return services.tenants.create(principal(), **body)


@bp.operation("GET", "/v1/tenants", "tenants:read", page_of(TenantSummary), takes=TenantQuery)
def list_tenants(query: JsonObject) -> JsonObject:
    """List tenants, newest first."""
    return paged(query, services.tenants.list, principal(), TenantFilter(**filters_of(query)))


@bp.operation("GET", _ONE, "tenants:read tenants:create", TenantOut)
def get_tenant(tenant_id: UUID) -> Tenant:
    """Read a tenant."""
    return services.tenants.get(principal(), tenant_id)


@bp.operation("PATCH", _ONE, "tenants:write", TenantOut, takes=TenantChange)
def change_tenant(body: JsonObject, tenant_id: UUID) -> Tenant:
    """Change a tenant's name, reference or accounts."""
    return services.tenants.change(principal(), tenant_id, body)


@bp.operation("DELETE", _ONE, "tenants:write", status=204)
def delete_tenant(tenant_id: UUID) -> None:
    """Delete a tenant: issuing stops at once, and its External ID is never used again."""
    services.tenants.delete(principal(), tenant_id)


@bp.operation("POST", f"{_ONE}/suspend", "tenants:write", TenantOut, takes=Reason, again=_as_it_is)
def suspend_tenant(body: JsonObject, tenant_id: UUID) -> Tenant:
    """Suspend a tenant: no credentials are issued for it until it is resumed."""
    return services.tenants.suspend(principal(), tenant_id, **body)


@bp.operation("POST", f"{_ONE}/resume", "tenants:write", TenantOut, takes=Reason, again=_as_it_is)
def resume_tenant(body: JsonObject, tenant_id: UUID) -> Tenant:
    """Resume a suspended tenant."""
    return services.tenants.resume(changing(), tenant_id, **body)
