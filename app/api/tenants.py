"""Tenants."""

from functools import partial
from typing import Any
from uuid import UUID

from marshmallow import fields, validate

from app.access.callers import Scope
from app.api.suspension_schemas import SUSPENDED, Reason
from app.http.authentication import requires
from app.http.blueprint import Blueprint
from app.http.current import caller, services
from app.http.cursors import paged
from app.http.examples import ACCOUNT, EXTERNAL_ID
from app.http.fields import Matches, Statuses, Time, doc, line, status, string
from app.http.schemas import Answer, PageQuery, Strict, page_of
from app.ids import ACCOUNT_ID_PATTERN
from app.store.models import Tenant, TenantStatus
from app.tenants.accounts import MOST
from app.tenants.tenants import TenantFilter

_ACCOUNTS = doc([ACCOUNT], "The AWS accounts that its roles may be in; null: any. See docs/api.md.")


class TenantChange(Strict):
    name = line(200, "Acme")
    reference = line(200, "customer-42", allow_none=True)
    accounts = fields.List(
        string(ACCOUNT, validate=Matches(ACCOUNT_ID_PATTERN)),
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
    accounts = fields.List(string(ACCOUNT), allow_none=True, metadata=_ACCOUNTS)


bp = Blueprint("tenants", __name__, noun="tenant", description="The vendor's customers.")


@bp.route("/v1/tenants", methods=["POST"])
@requires(Scope.TENANTS_WRITE, fails=[409])
@bp.arguments(TenantIn)
@bp.response(201, TenantOut)
def create_tenant(body: dict[str, Any]) -> Tenant:
    """Create a tenant, with an External ID of its own"""
    return services().tenants.create(caller(), **body)


@bp.route("/v1/tenants", methods=["GET"])
@requires(Scope.TENANTS_READ)
@bp.arguments(TenantQuery, location="query")
@bp.response(200, page_of(TenantListed))
def list_tenants(query: dict[str, Any]) -> dict[str, Any]:
    """List tenants, newest first"""
    wanted = TenantFilter(query.get("reference"), query.get("name"), tuple(query.get("status", ())))
    return paged(query, partial(services().tenants.list, caller(), wanted))


@bp.route("/v1/tenants/<uuid:tenant_id>", methods=["GET"])
@requires(Scope.TENANTS_READ, fails=[404])
@bp.response(200, TenantOut)
def get_tenant(tenant_id: UUID) -> Tenant:
    """Read a tenant"""
    return services().tenants.get(caller(), tenant_id)


@bp.route("/v1/tenants/<uuid:tenant_id>", methods=["PATCH"])
@requires(Scope.TENANTS_WRITE, fails=[404, 409])
@bp.arguments(TenantChange)
@bp.response(200, TenantOut)
def change_tenant(body: dict[str, Any], tenant_id: UUID) -> Tenant:
    """Change a tenant's name, reference or accounts"""
    return services().tenants.change(caller(), tenant_id, body)


@bp.route("/v1/tenants/<uuid:tenant_id>", methods=["DELETE"])
@requires(Scope.TENANTS_WRITE, fails=[404])
@bp.response(204)
def delete_tenant(tenant_id: UUID) -> None:
    """Delete a tenant: issuing stops at once, and its External ID is never used again"""
    services().tenants.delete(caller(), tenant_id)


@bp.route("/v1/tenants/<uuid:tenant_id>/suspend", methods=["POST"])
@requires(Scope.TENANTS_WRITE, fails=[404, 409, 429])
@bp.arguments(Reason)
@bp.response(200, TenantOut)
def suspend_tenant(body: dict[str, Any], tenant_id: UUID) -> Tenant:
    """Suspend a tenant: no credentials are issued for it until it is resumed"""
    counted = services().quotas.counting_stops(caller())
    return services().tenants.suspend(counted, tenant_id, **body)


@bp.route("/v1/tenants/<uuid:tenant_id>/resume", methods=["POST"])
@requires(Scope.TENANTS_WRITE, fails=[404, 409])
@bp.arguments(Reason)
@bp.response(200, TenantOut)
def resume_tenant(body: dict[str, Any], tenant_id: UUID) -> Tenant:
    """Resume a suspended tenant"""
    return services().tenants.resume(caller(), tenant_id, **body)
