"""Onboarding links, which the vendor sends to a customer's administrator.

The page itself is in app/web/onboarding.
"""

from uuid import UUID

from marshmallow import fields

from app.api.kit.blueprint import Blueprint, JsonObject, changing, paged, principal, services
from app.api.kit.schemas import (
    Answer,
    PageQuery,
    Strict,
    Time,
    line,
    matching,
    page_of,
    seconds,
    string,
)
from app.onboarding.page_links import LINK_DAYS, LINK_DAYS_MAX, LINK_SECONDS_MIN
from app.settings.checks import DAY, REGION

_EXPIRES_IN = f"Seconds until it stops working. Default {LINK_DAYS} days."


class LinkIn(Strict):
    permission_set = line(64, "inventory")
    region = matching(REGION, "eu-west-1", "The region that the page offers first.")
    expires_in = seconds(LINK_DAYS * DAY, LINK_SECONDS_MIN, LINK_DAYS_MAX * DAY, _EXPIRES_IN)


class LinkOut(Answer):
    id = fields.UUID()
    permission_set = string("inventory")
    region = string("eu-west-1")
    created_at = Time()
    expires_at = Time()
    revoked_at = Time(allow_none=True)


_SHOWN_ONCE = "For the customer. Shown only in this answer; Deputy keeps its hash."


class LinkCreated(Answer):
    id = fields.UUID()
    url = string("https://deputy.example.com/onboard/<43 characters>", _SHOWN_ONCE)
    expires_at = Time()


_ABOUT = "URLs of the onboarding page, for customers' administrators."
bp = Blueprint("onboarding_links", _ABOUT, noun="onboarding_link")

_ALL = "/v1/tenants/<uuid:tenant_id>/onboarding-links"


@bp.operation("POST", _ALL, "connections:write", LinkCreated, takes=LinkIn, status=201)
def create_onboarding_link(body: JsonObject, tenant_id: UUID) -> JsonObject:
    """Create an onboarding link; only this answer shows its URL.

    The URL alone opens the tenant's onboarding page and connects roles to the tenant: give it only
    to the customer's administrator. It stops working when it expires or is revoked, and while the
    tenant is suspended.
    """
    link, url = services.links.create(changing(), tenant_id, **body)
    return {"id": link.id, "url": url, "expires_at": link.expires_at}


@bp.operation("GET", _ALL, "connections:write", page_of(LinkOut), takes=PageQuery)
def list_onboarding_links(query: JsonObject, tenant_id: UUID) -> JsonObject:
    """List a tenant's onboarding links, newest first, without their URLs."""
    return paged(query, services.links.list, principal(), tenant_id)


@bp.operation("DELETE", f"{_ALL}/<uuid:link_id>", "connections:write", status=204)
def revoke_onboarding_link(tenant_id: UUID, link_id: UUID) -> None:
    """Revoke an onboarding link: from this answer on, its page is gone."""
    services.links.revoke(principal(), tenant_id, link_id)
