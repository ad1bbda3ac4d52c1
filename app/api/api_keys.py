"""API keys. A key can make, see and revoke only keys that are no stronger than itself."""

from typing import Any
from uuid import UUID

from marshmallow import fields, validate

from app.api.kit.blueprint import Blueprint, JsonObject, changing, paged, principal, services
from app.api.kit.pagination import PageQuery, page_of
from app.api.kit.schemas import (
    Answer,
    Strict,
    choice,
    date_time,
    described,
    doc,
    line,
    nested,
    nullable_date_time,
    nullable_uuid,
    number,
    seconds,
    string,
    uuid,
)
from app.identity.api_keys import GRACE_SECONDS, GRACE_SECONDS_MAX
from app.identity.family_revocation import FamilySummary
from app.identity.scopes import Scope, from_bits
from app.store.models import ApiKey


def scope_list(description: str = "", **options: Any) -> fields.List[Any]:
    metadata = doc(["credentials:issue"], description)
    return fields.List(choice(Scope), metadata=metadata, **options)


_SOME = validate.Length(1, len(Scope))
_MAY_GIVE = "With `keys:delegate`: the scopes of the keys that it makes."
_SETS = "Credentials only for connections of these permission sets; null: of any."


class NewApiKey(Strict):
    EXAMPLE = {"name": "nightly worker", "scopes": ["credentials:issue"]}

    name = line(200, "nightly worker", required=True)
    scopes = scope_list(required=True, validate=_SOME)
    may_give = scope_list(_MAY_GIVE, allow_none=True, validate=_SOME)
    tenant_id = nullable_uuid("Bind the key to one tenant.")
    expires_at = nullable_date_time()
    permission_sets = fields.List(
        line(64, "inventory"),
        allow_none=True,
        validate=validate.Length(1, 100),
        metadata=described(_SETS),
    )


class ApiKeyOut(Answer):
    id = uuid()
    name = string("nightly worker")
    scopes = scope_list()
    may_give = scope_list(_MAY_GIVE, allow_none=True)
    tenant_id = nullable_uuid()
    permission_sets = fields.List(string("inventory"), allow_none=True)
    made_by = nullable_uuid("The key that made it; null: the command line.")
    expires_at = nullable_date_time()
    created_at = date_time()
    last_used_at = nullable_date_time(
        "The hour in which it was last used; null: never, as far as is known."
    )


class ApiKeyFamily(Answer):
    keys = number(2)
    links = number(1)
    registrations = number(
        1, "Of how many tenants it could read the registration token. These tokens stay valid."
    )


class ApiKeyDetails(ApiKeyOut):
    made = nested(
        ApiKeyFamily,
        "How many live keys and links are revoked with this key, and what it could read.",
    )


class CreatedApiKey(ApiKeyDetails):
    key = string(
        "dpk_<16 hex>_<43 characters>", "Shown only in this answer; Deputy keeps its hash."
    )


class ApiKeyReplacement(Strict):
    grace_seconds = seconds(
        GRACE_SECONDS,
        0,
        GRACE_SECONDS_MAX,
        f"How long the old key keeps working. Default {GRACE_SECONDS}.",
    )


_ABOUT = """Keys for programs and people, no stronger than the key that makes them.

A key with `keys:delegate` makes, reads, lists and revokes keys with the scopes in its `may_give`,
which are bound to tenants that its family made within the last 24 hours.
"""
bp = Blueprint("api_keys", _ABOUT, noun="api_key")
_ONE = "/v1/api-keys/<uuid:key_id>"
_EITHER = "keys:write keys:delegate"
_COLUMNS = ApiKeyOut().fields.keys() - {"scopes", "may_give"}


@bp.operation(
    "POST", "/v1/api-keys", _EITHER, CreatedApiKey, takes=NewApiKey, status=201, fails=[404]
)
def create_api_key(body: JsonObject) -> JsonObject:
    """Create an API key; only this answer shows it."""
    for name in ("scopes", "may_give"):
        body[name] = frozenset(body.get(name) or ())
    key, text = services.api_keys.create_key(changing(), **body)
    return _shown(key, FamilySummary(0, 0, [], 0, 0)) | {"key": text}


@bp.operation(
    "POST", f"{_ONE}/replace", "keys:write", CreatedApiKey, takes=ApiKeyReplacement, status=201
)
def replace_api_key(body: JsonObject, key_id: UUID) -> JsonObject:
    """Replace a key by a successor; the old key stops working after the grace period.

    The successor has the same name, scopes, `may_give`, tenant and permission sets. It inherits the
    keys and links that the old key made. Only this answer shows it.
    """
    key, family, text = services.api_keys.replace_key(changing(), key_id, **body)
    return _shown(key, family) | {"key": text}


@bp.operation("GET", "/v1/api-keys", _EITHER, page_of(ApiKeyOut), takes=PageQuery)
def list_api_keys(query: JsonObject) -> JsonObject:
    """List the live API keys that the calling key could make, newest first."""
    page = paged(query, services.api_keys.list_keys, principal())
    return page | {"items": map(_shown, page["items"])}


@bp.operation("GET", _ONE, _EITHER, ApiKeyDetails)
def get_api_key(key_id: UUID) -> JsonObject:
    """Read an API key, and how many live keys and links are revoked with it."""
    return _shown(*services.api_keys.get_key(principal(), key_id))


@bp.operation("DELETE", _ONE, _EITHER, status=204)
def revoke_api_key(key_id: UUID) -> None:
    """Revoke an API key: from this answer on, requests with it are refused.

    This also revokes the keys and onboarding links that the key made, and all that those keys made.
    To renew a key, replace it instead.
    """
    services.api_keys.revoke_key(principal(), key_id)


def _shown(key: ApiKey, family: FamilySummary | None = None) -> JsonObject:
    return {
        **{name: getattr(key, name) for name in _COLUMNS},
        "scopes": sorted(from_bits(key.scope_bits)),
        "may_give": sorted(from_bits(key.may_give_bits)) or None,
        "made": family,
    }
