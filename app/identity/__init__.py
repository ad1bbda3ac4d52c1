"""Principals, scopes and tenancy, which every use case needs; API keys and their families."""

from app.identity.principals import (
    ApiKeyPrincipal,
    LinkPrincipal,
    Maker,
    OperatorPrincipal,
    Principal,
    SystemPrincipal,
    digest_of,
    live_links,
)
from app.identity.tenancy import ensure_room, one_or_not_found, owned, tenant_of
