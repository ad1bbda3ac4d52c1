"""Tenants."""

import re
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID

from marshmallow import ValidationError, fields, validate

from app.api.kit.blueprint import Blueprint, Scope, caller, changing, paged, services
from app.api.kit.examples import ACCOUNT, EXTERNAL_ID
from app.api.kit.fields import Statuses, Time, doc, line, matching, status, string
from app.api.kit.schemas import Answer, AsStored, PageQuery, Strict, page_of
from app.api.suspension_schemas import SUSPENDED, Reason
from app.ids import ACCOUNT_ID_PATTERN
from app.store.models import Tenant, TenantStatus
from app.tenants.accounts import MOST
from app.tenants.tenants import TenantFilter

_ACCOUNTS = doc([ACCOUNT], "The AWS accounts that its roles may be in; null: any. See docs/api.md.")
_ACCOUNT = re.compile(ACCOUNT_ID_PATTERN, re.ASCII)
_BAD_ACCOUNTS = 20  # upper bound of the bad accounts in an answer


class Accounts(fields.List[str]):
    """Account ids, checked in one pass.

    For thousands of them it takes a tenth of the time that a field for each takes.
    """

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> list[str | None]:  # noqa: ARG002
        if not isinstance(value, list):
            raise self.make_error("invalid")
        bad = (
            place
            for place, one in enumerate(value)
            if not (isinstance(one, str) and _ACCOUNT.fullmatch(one))
        )
        if named := list(islice(bad, _BAD_ACCOUNTS)):
            raise ValidationError(
                {place: ["Must be an account id of 12 digits."] for place in named}
            )
        return value


class TenantChange(Strict):
    name = line(200, "Acme")
    reference = line(200, "customer-42", allow_none=True)
    accounts = Accounts(
        matching(ACCOUNT_ID_PATTERN, ACCOUNT),
        allow_none=True,
        validate=validate.Length(0, MOST),
        metadata=_ACCOUNTS,
    )


class TenantIn(TenantChange):
    name = line(200, "Acme", required=True)
    reference = line(200, "customer-42", "Your own id for it; unique.", allow_none=True)


class TenantQuery(PageQuery):
    reference = line(200, "customer-42")
    name = line(200, "acm", "The beginning of the name; case does not matter.")
    status = Statuses(TenantStatus, "suspended")


class TenantListed(Answer):
    id = fields.UUID()
    name = string("Acme")
    reference = string("customer-42", allow_none=True)
    status = status(TenantStatus, "active")
    suspended = SUSPENDED
    external_id = string(EXTERNAL_ID, "Made by Deputy, for this tenant alone; not a secret.")
    created_at = Time()


class TenantOut(TenantListed):
    accounts = AsStored(string(ACCOUNT), allow_none=True, metadata=_ACCOUNTS)


bp = Blueprint("tenants", __name__, noun="tenant", description="The vendor's customers.")

_ONE = "/v1/tenants/<uuid:tenant_id>"


@bp.operation("POST", "/v1/tenants", Scope.TENANTS_WRITE, TenantOut, takes=TenantIn, status=201)
def create_tenant(body: dict[str, Any]) -> Tenant:
    """Create a tenant, with an External ID of its own."""
    return services().tenants.create(caller(), **body)


@bp.operation("GET", "/v1/tenants", Scope.TENANTS_READ, page_of(TenantListed), takes=TenantQuery)
def list_tenants(query: dict[str, Any]) -> dict[str, Any]:
    """List tenants, newest first."""
    wanted = TenantFilter(query.get("reference"), query.get("name"), tuple(query.get("status", ())))
    return paged(query, partial(services().tenants.list, caller(), wanted))


@bp.operation("GET", _ONE, Scope.TENANTS_READ, TenantOut)
def get_tenant(tenant_id: UUID) -> Tenant:
    """Read a tenant."""
    return services().tenants.get(caller(), tenant_id)


@bp.operation("PATCH", _ONE, Scope.TENANTS_WRITE, TenantOut, takes=TenantChange)
def change_tenant(body: dict[str, Any], tenant_id: UUID) -> Tenant:
    """Change a tenant's name, reference or accounts."""
    return services().tenants.change(caller(), tenant_id, body)


@bp.operation("DELETE", _ONE, Scope.TENANTS_WRITE, status=204)
def delete_tenant(tenant_id: UUID) -> None:
    """Delete a tenant: issuing stops at once, and its External ID is never used again."""
    services().tenants.delete(caller(), tenant_id)


@bp.operation("POST", f"{_ONE}/suspend", Scope.TENANTS_WRITE, TenantOut, takes=Reason)
def suspend_tenant(body: dict[str, Any], tenant_id: UUID) -> Tenant:
    """Suspend a tenant: no credentials are issued for it until it is resumed."""
    return services().tenants.suspend(caller(), tenant_id, **body)


@bp.operation("POST", f"{_ONE}/resume", Scope.TENANTS_WRITE, TenantOut, takes=Reason)
def resume_tenant(body: dict[str, Any], tenant_id: UUID) -> Tenant:
    """Resume a suspended tenant."""
    return services().tenants.resume(changing(), tenant_id, **body)
