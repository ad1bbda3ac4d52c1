"""API keys. A key can make, see and revoke only keys that are no stronger than itself."""

from functools import partial
from typing import Any
from uuid import UUID

from app.access.callers import Scope, from_bits
from app.access.families import Made
from app.api.api_key_schemas import KeyCreated, KeyIn, KeyOut, KeyShown, ReplaceIn
from app.http.authentication import requires
from app.http.blueprint import Blueprint
from app.http.current import caller, services
from app.http.cursors import paged
from app.http.schemas import PageQuery, page_of
from app.store.models import ApiKey

bp = Blueprint(
    "api_keys",
    __name__,
    noun="api_key",
    description="Keys for programs and people, no stronger than the key that makes them.",
)
_SHOWN = ("id", "name", "tenant_id", "permission_sets", "made_by", "expires_at", "created_at")


@bp.route("/v1/api-keys", methods=["POST"])
@requires(Scope.KEYS_WRITE, fails=[404, 429])
@bp.arguments(KeyIn)
@bp.response(201, KeyCreated)
def create_key(body: dict[str, Any]) -> dict[str, Any]:
    """Create an API key; only this answer shows it"""
    key, text = services().api_keys.create_key(caller(), **(body | {"scopes": frozenset(body["scopes"])}))
    return _shown(key, Made(0, 0, [])) | {"key": text}


@bp.route("/v1/api-keys/<uuid:key_id>/replace", methods=["POST"])
@requires(Scope.KEYS_WRITE, fails=[404, 409, 429])
@bp.arguments(ReplaceIn)
@bp.response(201, KeyCreated)
def replace_key(body: dict[str, Any], key_id: UUID) -> dict[str, Any]:
    """Replace a key by a successor; the old key ends after the grace period

    The successor has the same name, scopes and bounds, and inherits what the old key made. Only this answer shows it.
    """
    services().quotas.stop(caller())
    key, made, text = services().api_keys.replace_key(caller(), key_id, **body)
    return _shown(key, made) | {"key": text}


@bp.route("/v1/api-keys", methods=["GET"])
@requires(Scope.KEYS_WRITE)
@bp.arguments(PageQuery, location="query")
@bp.response(200, page_of(KeyOut))
def list_keys(query: dict[str, Any]) -> dict[str, Any]:
    """List live API keys that are no stronger than the one in use, newest first"""
    found = paged(query, partial(services().api_keys.list_keys, caller()))
    return found | {"items": [_shown(key) for key in found["items"]]}


@bp.route("/v1/api-keys/<uuid:key_id>", methods=["GET"])
@requires(Scope.KEYS_WRITE, fails=[404])
@bp.response(200, KeyShown)
def get_key(key_id: UUID) -> dict[str, Any]:
    """Read an API key, and how many live keys and links are revoked with it"""
    return _shown(*services().api_keys.get_key(caller(), key_id))


@bp.route("/v1/api-keys/<uuid:key_id>", methods=["DELETE"])
@requires(Scope.KEYS_WRITE, fails=[404, 429])
@bp.response(204)
def revoke_key(key_id: UUID) -> None:
    """Revoke an API key: from this answer on, requests with it are refused

    The keys and onboarding links that it made are revoked with it, and what those keys made. To renew a good key,
    replace it.
    """
    services().quotas.stop(caller())
    services().api_keys.revoke_key(caller(), key_id)


def _shown(key: ApiKey, made: Made | None = None) -> dict[str, Any]:
    shown = {name: getattr(key, name) for name in _SHOWN} | {"scopes": sorted(from_bits(key.scope_bits))}
    return shown if made is None else shown | {"made": made}
