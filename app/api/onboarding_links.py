"""Onboarding links, which the vendor sends to a customer's administrator. The page itself is in app/web/onboarding."""

from functools import partial
from typing import Any
from uuid import UUID

from app.access.callers import Scope
from app.api.onboarding_link_schemas import LinkCreated, LinkIn, LinkOut
from app.http.authentication import requires
from app.http.blueprint import Blueprint
from app.http.current import caller, services
from app.http.cursors import paged
from app.http.schemas import PageQuery, page_of

bp = Blueprint(
    "onboarding_links",
    __name__,
    noun="onboarding_link",
    description="URLs of the onboarding page, for customers' administrators.",
)

_ALL = "/v1/tenants/<uuid:tenant_id>/onboarding-links"


@bp.route(_ALL, methods=["POST"])
@requires(Scope.CONNECTIONS_WRITE, fails=[404, 409])
@bp.arguments(LinkIn)
@bp.response(201, LinkCreated)
def create_onboarding_link(body: dict[str, Any], tenant_id: UUID) -> dict[str, Any]:
    """Create an onboarding link; only this answer shows its URL

    The URL alone opens the tenant's onboarding page and connects roles to the tenant: give it only to the customer's
    administrator. It stops working when it expires or is revoked, and while the tenant is suspended.
    """
    link, url = services().links.create(caller(), tenant_id, **body)
    return {"id": link.id, "url": url, "expires_at": link.expires_at}


@bp.route(_ALL, methods=["GET"])
@requires(Scope.CONNECTIONS_WRITE, fails=[404])
@bp.arguments(PageQuery, location="query")
@bp.response(200, page_of(LinkOut))
def list_onboarding_links(query: dict[str, Any], tenant_id: UUID) -> dict[str, Any]:
    """List a tenant's onboarding links, newest first, without their URLs"""
    return paged(query, partial(services().links.list, caller(), tenant_id))


@bp.route(f"{_ALL}/<uuid:link_id>", methods=["DELETE"])
@requires(Scope.CONNECTIONS_WRITE, fails=[404])
@bp.response(204)
def revoke_onboarding_link(tenant_id: UUID, link_id: UUID) -> None:
    """Revoke an onboarding link: from this answer on, its page is gone"""
    services().links.revoke(caller(), tenant_id, link_id)
