"""Onboarding links, as they are asked for and answered."""

from marshmallow import fields, validate

from app.api.onboarding_schemas import REGION
from app.http.fields import Matches, like, text, time
from app.http.schemas import Answer, Strict
from app.onboarding.page_links import LINK_SECONDS, LINK_SECONDS_MAX, LINK_SECONDS_MIN


class LinkIn(Strict):
    permission_set = text(64, "inventory")
    region = fields.String(validate=Matches(REGION), metadata=like("eu-west-1", "The one that the page begins with."))
    expires_in = fields.Integer(
        strict=True,
        load_default=LINK_SECONDS,
        validate=validate.Range(LINK_SECONDS_MIN, LINK_SECONDS_MAX),
        metadata=like(LINK_SECONDS, "Seconds until it stops working; 30 days unless given."),
    )


class LinkOut(Answer):
    id = fields.UUID()
    permission_set = fields.String(metadata=like("inventory"))
    region = fields.String(metadata=like("eu-west-1"))
    created_at = time()
    expires_at = time()
    revoked_at = time(allow_none=True)


class LinkCreated(Answer):
    id = fields.UUID()
    url = fields.String(
        metadata=like(
            "https://deputy.example.com/onboard/<43 characters>",
            "For the customer; shown this once, as only its hash is kept.",
        )
    )
    expires_at = time()
