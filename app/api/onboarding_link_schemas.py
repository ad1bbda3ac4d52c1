"""Onboarding links, as they are asked for and answered."""

from marshmallow import fields, validate

from app.api.onboarding_schemas import REGION
from app.http.fields import Time, like, matching, string, text
from app.http.schemas import Answer, Strict
from app.onboarding.page_links import LINK_SECONDS, LINK_SECONDS_MAX, LINK_SECONDS_MIN


class LinkIn(Strict):
    permission_set = text(64, "inventory")
    region = matching(REGION, "eu-west-1", "The region that the page offers first.")
    expires_in = fields.Integer(
        strict=True,
        load_default=LINK_SECONDS,
        validate=validate.Range(LINK_SECONDS_MIN, LINK_SECONDS_MAX),
        metadata=like(LINK_SECONDS, "Seconds until it stops working. Default 30 days."),
    )


class LinkOut(Answer):
    id = fields.UUID()
    permission_set = string("inventory")
    region = string("eu-west-1")
    created_at = Time()
    expires_at = Time()
    revoked_at = Time(allow_none=True)


class LinkCreated(Answer):
    id = fields.UUID()
    url = string(
        "https://deputy.example.com/onboard/<43 characters>",
        "For the customer. Shown only in this answer; Deputy keeps its hash.",
    )
    expires_at = Time()
