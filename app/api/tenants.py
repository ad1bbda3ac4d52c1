"""Tenants, and the rotations of their External IDs."""

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
from app.api.kit.openapi import example_of
from app.api.kit.pages import PageQuery, page_of
from app.api.kit.schemas import (
    ACCOUNT,
    EXTERNAL_ID,
    NEXT_EXTERNAL_ID,
    SUSPENDED,
    Answer,
    AsStored,
    Empty,
    Reason,
    Statuses,
    Strict,
    Truth,
    date_time,
    doc,
    flag,
    line,
    matching,
    nested,
    nullable_string,
    number,
    status,
    string,
    uuid,
)
from app.errors import NotFoundError
from app.idempotency.attempts import Effect
from app.ids import ACCOUNT_ID
from app.rotation.rotations import RotationStatus
from app.store.models import RotationState, Tenant, TenantStatus
from app.tenants.declared_accounts import ACCOUNTS_MAX
from app.tenants.tenants import TenantFilter

_ACCOUNTS = doc([ACCOUNT], "The AWS accounts that its roles may be in; null: any. See docs/api.md.")
_BAD_ACCOUNTS = 20  # most invalid accounts that an answer names


class Accounts(fields.List[str]):
    """Account ids, checked in one pass.

    For thousands of ids this takes a tenth of the time that a marshmallow field for each takes.
    """

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[str | None]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        problems = {}
        for index, account_id in enumerate(value):
            if not (isinstance(account_id, str) and ACCOUNT_ID.fullmatch(account_id)):
                problems[index] = ["Must be an account id of 12 digits."]
            if len(problems) == _BAD_ACCOUNTS:
                break
        if problems:
            raise ValidationError(problems)
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
    "POST", "/v1/tenants", "tenants:write", TenantOut, takes=NewTenant, status=201, again=_as_it_is
)
def create_tenant(body: JsonObject) -> Tenant:
    """Create a tenant, with an External ID of its own."""
    return services.tenants.create(principal(), **body)


@bp.operation("GET", "/v1/tenants", "tenants:read", page_of(TenantSummary), takes=TenantQuery)
def list_tenants(query: JsonObject) -> JsonObject:
    """List tenants, newest first."""
    return paged(query, services.tenants.list, principal(), TenantFilter(**filters_of(query)))


@bp.operation("GET", _ONE, "tenants:read", TenantOut)
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


_ABUSED = doc(
    False, "The External ID was abused: issue nothing with it any more, from now on. Default false."
)


class NewRotation(Reason):
    emergency = Truth(load_default=False, metadata=_ABUSED)


class RotationConnections(Answer):
    total = number(20, "Verified connections; no others count.")
    switched = number(18, "Those that are paired with the next External ID.")
    waiting = number(2, "Those whose role has yet to accept it.")


class RotationOut(Answer):
    state = fields.Enum(RotationState, by_value=True)
    emergency = flag()
    external_id = string(EXTERNAL_ID, "The one that is replaced.")
    next_external_id = string(NEXT_EXTERNAL_ID, "The one that takes its place.")
    started_at = date_time()
    connections = nested(RotationConnections)


_ABOUT = "A tenant's External ID is replaced by another."
rotations = Blueprint("rotations", _ABOUT, noun="rotation")

_ROTATION = "/v1/tenants/<uuid:tenant_id>/external-id/rotation"


def _latest(tenant_id: UUID) -> RotationStatus:
    rotation = services.rotations.get(principal(), tenant_id)
    if rotation is None:
        raise NotFoundError
    return rotation


def _rotation(effect: Effect) -> RotationStatus:
    return _latest(effect.tenant)


def _started(effect: Effect) -> tuple[RotationStatus, int]:
    rotation = _latest(effect.tenant)
    return rotation, 201 if rotation.started_at >= effect.began_at else 200


@rotations.operation(
    "POST", _ROTATION, "tenants:write", RotationOut, takes=NewRotation, status=201, again=_started
)
@rotations.alt_response(
    200,
    schema=RotationOut,
    description="The rotation that was open already is an emergency now",
    example=example_of(RotationOut()),
)
def start_rotation(body: JsonObject, tenant_id: UUID) -> tuple[RotationStatus, int]:
    """Start a rotation: make the External ID that will replace the current one.

    With `emergency`, a rotation that is already open becomes an emergency.
    """
    rotation, is_new = services.rotations.start(principal(), tenant_id, **body)
    return rotation, 201 if is_new else 200


@rotations.operation("GET", _ROTATION, "tenants:read", RotationOut)
def get_rotation(tenant_id: UUID) -> RotationStatus:
    """Read a tenant's latest rotation, even if it has ended."""
    return _latest(tenant_id)


@rotations.operation(
    "POST", f"{_ROTATION}/complete", "tenants:write", RotationOut, takes=Empty, again=_rotation
)
def complete_rotation(_: JsonObject, tenant_id: UUID) -> RotationStatus:
    """Make the next External ID current, once all verified connections have switched."""
    return services.rotations.complete(principal(), tenant_id)


@rotations.operation("DELETE", _ROTATION, "tenants:write", status=204)
def abandon_rotation(tenant_id: UUID) -> None:
    """Abandon a rotation as long as no connection has switched."""
    services.rotations.abandon(principal(), tenant_id)
