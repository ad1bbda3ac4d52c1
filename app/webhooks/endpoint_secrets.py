"""The secrets of webhook endpoints: sealed in the database, and replaced with a grace."""

import base64
import secrets
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select

from app.cache.sealing import Sealer
from app.clock import now
from app.errors import ConflictError
from app.health.checks import HealthFinding, failed, ok, warning
from app.identity import was_revoked
from app.settings.valid_values import DAY, WEEK
from app.store.database import SYSTEM, Database, Session
from app.store.models import EndpointStatus, WebhookEndpoint

GRACE_SECONDS = DAY  # how long a replaced secret still signs, by default
GRACE_SECONDS_MAX = WEEK

_PREFIX = "whsec_"
_BYTES = 32  # length of a secret; the specification asks for 24 to 64


class Secrets(Sealer):
    """Makes endpoints' secrets, and seals them for the database under SECRET_KEYS.

    A sealed secret is bound to its endpoint's id: `about` is the id's bytes.
    """

    def __init__(self, secret_keys: tuple[str, ...]) -> None:
        super().__init__(secret_keys, "webhook secret")

    def make(self, endpoint_id: UUID) -> tuple[str, bytes]:
        """Return a new secret as its owner sees it, and the same secret sealed."""
        secret = secrets.token_bytes(_BYTES)
        shown = _PREFIX + base64.b64encode(secret).decode()
        return shown, self.seal(secret, endpoint_id.bytes)


def retire_secret(db: Session, endpoint: WebhookEndpoint, grace_seconds: int) -> None:
    """Let the present secret sign during the grace only, beside the one that replaces it.

    If the grace is 0, or the key that set the present secret was revoked, all old secrets stop
    signing at once. Otherwise this raises ConflictError while an earlier secret still signs.
    """
    if grace_seconds == 0 or was_revoked(db, endpoint.secret_by):
        endpoint.old_secret = endpoint.old_secret_ends_at = None
    elif endpoint.old_secret_ends_at is not None and endpoint.old_secret_ends_at > now():
        raise ConflictError(
            "The secret is being replaced already. Wait until the old one ends, at"
            f" {endpoint.old_secret_ends_at:%Y-%m-%dT%H:%M:%SZ}, or let it end now, with"
            " a grace_seconds of 0."
        )
    else:
        endpoint.old_secret, endpoint.old_secret_by = endpoint.secret, endpoint.secret_by
        endpoint.old_secret_ends_at = now() + timedelta(seconds=grace_seconds)


def seal_again(database: Database, secrets: Secrets) -> None:
    """Seal secrets under the first of SECRET_KEYS that another of them sealed."""
    for endpoint_id in [each.id for each in _live(database) if _is_old(each, secrets)]:
        with database.write(SYSTEM) as db:
            endpoint = db.get(WebhookEndpoint, endpoint_id, with_for_update=True)
            if endpoint is None or endpoint.status == EndpointStatus.DELETED:
                continue
            for name in ("secret", "old_secret"):
                secret = secrets.open(getattr(endpoint, name) or b"", endpoint.id.bytes)
                if secret is not None:
                    setattr(endpoint, name, secrets.seal(secret, endpoint.id.bytes))


def check_secrets(database: Database, secrets: Secrets) -> HealthFinding:
    """Report secrets that SECRET_KEYS does not open, or not its first key. Reads all endpoints."""
    endpoints = _live(database)
    closed = [each for each in endpoints if secrets.open(each.secret, each.id.bytes) is None]
    if closed:
        return failed(
            f"{len(closed)} webhook endpoints have a secret that none of DEPUTY_SECRET_KEYS opens.",
            "Put the key back that DEPUTY_SECRET_KEYS lacks, or give the endpoints new secrets.",
        )
    if old := sum(_is_old(each, secrets) for each in endpoints):
        return warning(
            f"{old} webhook endpoints have a secret that the first of DEPUTY_SECRET_KEYS does not"
            " open.",
            "Keep the other keys: a background worker seals these secrets again within 15 minutes.",
        )
    return ok(f"Webhook endpoints whose secrets can be opened: {len(endpoints)}.")


def _is_old(endpoint: WebhookEndpoint, secrets: Secrets) -> bool:
    sealed, ends = [endpoint.secret], endpoint.old_secret_ends_at
    if endpoint.old_secret and ends is not None and ends > now():
        sealed.append(endpoint.old_secret)
    return not all(map(secrets.is_current, sealed))


def _live(database: Database) -> list[WebhookEndpoint]:
    live = WebhookEndpoint.status != EndpointStatus.DELETED
    with database.read() as db:
        return list(db.scalars(select(WebhookEndpoint).where(live)))
