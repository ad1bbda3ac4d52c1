"""Principals, scopes and tenancy for every use case, and API keys with their families."""

from app.identity.family_revocation import was_revoked
from app.identity.key_text import digest_of
from app.identity.principals import (
    WORKER,
    ApiKeyPrincipal,
    LinkPrincipal,
    Maker,
    OperatorPrincipal,
    Principal,
    SystemPrincipal,
    live_links,
)
from app.identity.tenancy import ensure_room, lock_owned, one_or_not_found, owned, tenant_of
