"""Rotations: a tenant's External ID is replaced by another."""

from typing import Any
from uuid import UUID

from marshmallow import fields

from app.api.kit.blueprint import Blueprint, Scope, caller, services
from app.api.kit.examples import EXTERNAL_ID, NEXT_EXTERNAL_ID
from app.api.kit.fields import Time, Truth, doc, number, string
from app.api.kit.schemas import Answer, Empty
from app.api.suspension_schemas import Reason
from app.errors import NotFoundError
from app.rotation.rotations import RotationStatus
from app.store.models.states import RotationState

_ABUSED = doc(False, "The External ID was abused: issue nothing with it any more, from now on.")


class RotationIn(Reason):
    emergency = Truth(load_default=False, metadata=_ABUSED)


class RotationConnections(Answer):
    total = number(20, "Verified connections; no others count.")
    switched = number(18, "Those that are paired with the next External ID.")
    waiting = number(2, "Those whose role has yet to accept it.")


class RotationOut(Answer):
    state = fields.Enum(RotationState, by_value=True, metadata=doc("open"))
    emergency = fields.Boolean(metadata=doc(False))
    external_id = string(EXTERNAL_ID, "The one that is replaced.")
    next_external_id = string(NEXT_EXTERNAL_ID, "The one that takes its place.")
    started_at = Time()
    connections = fields.Nested(RotationConnections)


bp = Blueprint(
    "rotations",
    __name__,
    noun="rotation",
    description="A tenant's External ID is replaced by another.",
)

_PATH = "/v1/tenants/<uuid:tenant_id>/external-id/rotation"


@bp.operation("POST", _PATH, Scope.TENANTS_WRITE, RotationOut, takes=RotationIn, status=201)
@bp.alt_response(
    200, schema=RotationOut, description="The rotation that was open already is an emergency now"
)
def start_rotation(body: dict[str, Any], tenant_id: UUID) -> tuple[RotationStatus, int]:
    """Make a tenant's next External ID, which takes the current one's place.

    With `emergency` a rotation that is open already becomes an emergency.
    """
    rotation, new = services().rotations.start(caller(), tenant_id, **body)
    return rotation, 201 if new else 200


@bp.operation("GET", _PATH, Scope.TENANTS_READ, RotationOut)
def get_rotation(tenant_id: UUID) -> RotationStatus:
    """Read a tenant's latest rotation, also when it has ended."""
    rotation = services().rotations.get(caller(), tenant_id)
    if rotation is None:
        raise NotFoundError
    return rotation


@bp.operation("POST", f"{_PATH}/complete", Scope.TENANTS_WRITE, RotationOut, takes=Empty)
def complete_rotation(_: dict[str, Any], tenant_id: UUID) -> RotationStatus:
    """Make the next External ID current, once all verified connections have switched."""
    return services().rotations.complete(caller(), tenant_id)


@bp.operation("DELETE", _PATH, Scope.TENANTS_WRITE, status=204)
def abandon_rotation(tenant_id: UUID) -> None:
    """Abandon a rotation as long as no connection has switched."""
    services().rotations.abandon(caller(), tenant_id)
