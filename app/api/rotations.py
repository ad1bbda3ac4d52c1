"""Rotations: each replaces a tenant's External ID."""

from uuid import UUID

from app.api.kit.blueprint import Blueprint, JsonObject, principal, services
from app.api.kit.openapi import example_of
from app.api.kit.schemas import (
    EXTERNAL_ID,
    NEXT_EXTERNAL_ID,
    Answer,
    Empty,
    Reason,
    Truth,
    choice,
    date_time,
    doc,
    flag,
    nested,
    number,
    string,
)
from app.errors import NotFoundError
from app.idempotency.attempts import Effect
from app.rotation.status import RotationStatus
from app.store.models import RotationState

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
    state = choice(RotationState)
    emergency = flag()
    external_id = string(EXTERNAL_ID, "The one that is replaced.")
    next_external_id = string(NEXT_EXTERNAL_ID, "The one that takes its place.")
    started_at = date_time()
    connections = nested(RotationConnections)


_ABOUT = "A tenant's External ID is replaced by another."
bp = Blueprint("rotations", _ABOUT, noun="rotation")

_ROTATION = "/v1/tenants/<uuid:tenant_id>/external-id/rotation"


def _latest(tenant_id: UUID) -> RotationStatus:
    rotation = services.rotations.get(principal(), tenant_id)
    if rotation is None:
        raise NotFoundError
    return rotation


def _rotation(effect: Effect) -> RotationStatus:
    return _latest(effect.tenant)


def _started(effect: Effect) -> tuple[RotationStatus, int]:
    """Return the latest rotation, with 201 if it began after the request did."""
    rotation = _latest(effect.tenant)
    return rotation, 201 if rotation.started_at >= effect.began_at else 200


@bp.operation(
    "POST", _ROTATION, "tenants:write", RotationOut, takes=NewRotation, status=201, again=_started
)
@bp.alt_response(
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


@bp.operation("GET", _ROTATION, "tenants:read", RotationOut)
def get_rotation(tenant_id: UUID) -> RotationStatus:
    """Read a tenant's latest rotation, even if it has ended."""
    return _latest(tenant_id)


@bp.operation(
    "POST", f"{_ROTATION}/complete", "tenants:write", RotationOut, takes=Empty, again=_rotation
)
def complete_rotation(_: JsonObject, tenant_id: UUID) -> RotationStatus:
    """Make the next External ID current, once all verified connections have switched."""
    return services.rotations.complete(principal(), tenant_id)


@bp.operation("DELETE", _ROTATION, "tenants:write", status=204)
def abandon_rotation(tenant_id: UUID) -> None:
    """Abandon a rotation as long as no connection has switched."""
    services.rotations.abandon(principal(), tenant_id)
