"""Every route, as an attacker sees the list of them. A test fails when one is missing here."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from app.clock import now

_TENANT = "/v1/tenants/{tenant_id}"
_CONNECTION = f"{_TENANT}/connections/{{connection_id}}"
_ENDPOINT = "/v1/webhook-endpoints/{endpoint_id}"

_IDS = ("link_id", "key_id", "endpoint_id", "delivery_id")


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    scope: str
    body: dict[str, Any] | None = None  # a good one, for routes that take a body

    def __str__(self):
        return f"{self.method} {self.path}"

    def at(self, **ids):
        nobodys = "01890000-0000-7000-8000-000000000000"
        others = dict.fromkeys(_IDS, nobodys) | {"name": "inventory"}
        return self.path.format(**others | ids)

    def send(self, api, path, **options):
        """Request it at this path, with its good body unless `body` is another."""
        if self.body is None:
            options.pop("body", None)
        else:
            options.setdefault("body", self.body)
        return api.raw(self.method, path, **options)


ROUTES = (
    Route("POST", "/v1/tenants", "tenants:write", {"name": "Mallory Ltd"}),
    Route("GET", "/v1/tenants", "tenants:read"),
    Route("GET", _TENANT, "tenants:read"),
    Route("PATCH", _TENANT, "tenants:write", {"name": "Mallory Ltd"}),
    Route("DELETE", _TENANT, "tenants:write"),
    Route("POST", f"{_TENANT}/suspend", "tenants:write", {"reason": "mischief"}),
    Route("POST", f"{_TENANT}/resume", "tenants:write", {"reason": "mischief"}),
    Route(
        "POST",
        f"{_TENANT}/external-id/rotation",
        "tenants:write",
        {"reason": "mischief", "emergency": True},
    ),
    Route("GET", f"{_TENANT}/external-id/rotation", "tenants:read"),
    Route("POST", f"{_TENANT}/external-id/rotation/complete", "tenants:write", {}),
    Route("DELETE", f"{_TENANT}/external-id/rotation", "tenants:write"),
    Route("GET", f"{_TENANT}/onboarding", "connections:read"),
    Route("POST", f"{_TENANT}/onboarding-links", "connections:write", {"expires_in": 3600}),
    Route("GET", f"{_TENANT}/onboarding-links", "connections:write"),
    Route("GET", f"{_TENANT}/onboarding-links/{{link_id}}", "connections:write"),
    Route("DELETE", f"{_TENANT}/onboarding-links/{{link_id}}", "connections:write"),
    Route(
        "POST",
        f"{_TENANT}/connections",
        "connections:write",
        {"role_arn": "arn:aws:iam::123456789012:role/deputy-mallory"},
    ),
    Route("GET", f"{_TENANT}/connections", "connections:read"),
    Route("GET", f"{_TENANT}/connections/summary", "connections:read"),
    Route("GET", _CONNECTION, "connections:read"),
    Route("PATCH", _CONNECTION, "connections:write", {"permission_set": "bucket-sync"}),
    Route("DELETE", _CONNECTION, "connections:write"),
    Route("POST", f"{_CONNECTION}/verify", "connections:write", {}),
    Route("POST", f"{_CONNECTION}/diagnose", "connections:write", {}),
    Route("GET", f"{_CONNECTION}/proofs", "connections:read"),
    Route("POST", f"{_CONNECTION}/suspend", "connections:write", {"reason": "mischief"}),
    Route("POST", f"{_CONNECTION}/resume", "connections:write", {"reason": "mischief"}),
    Route("POST", f"{_CONNECTION}/credentials", "credentials:issue", {"reason": "mischief"}),
    Route("GET", f"{_CONNECTION}/container-credentials", "credentials:issue"),
    Route("POST", f"{_CONNECTION}/report-refused", "credentials:issue", {}),
    Route("POST", f"{_CONNECTION}/approve", "connections:write", {}),
    Route("GET", "/v1/connections", "connections:read"),
    Route("POST", "/v1/api-keys", "keys:write", {"name": "spare", "scopes": ["keys:write"]}),
    Route("GET", "/v1/api-keys", "keys:write"),
    Route("GET", "/v1/api-keys/{key_id}", "keys:write"),
    Route("DELETE", "/v1/api-keys/{key_id}", "keys:write"),
    Route("POST", "/v1/api-keys/{key_id}/replace", "keys:write", {"grace_seconds": 60}),
    Route("GET", "/v1/audit-events", "audit:read"),
    Route(
        "POST",
        "/v1/webhook-endpoints",
        "webhooks:write",
        {"url": "https://93.184.215.14/webhooks", "types": ["*"]},
    ),
    Route("GET", "/v1/webhook-endpoints", "webhooks:write"),
    Route("GET", _ENDPOINT, "webhooks:write"),
    Route("PATCH", _ENDPOINT, "webhooks:write", {"description": "mischief"}),
    Route("DELETE", _ENDPOINT, "webhooks:write"),
    Route("POST", f"{_ENDPOINT}/rotate-secret", "webhooks:write", {"grace_seconds": 60}),
    Route("POST", f"{_ENDPOINT}/test", "webhooks:write", {}),
    Route(
        "POST",
        f"{_ENDPOINT}/recover",
        "webhooks:write",
        {"since": f"{now() - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"},
    ),
    Route("GET", f"{_ENDPOINT}/deliveries", "webhooks:write"),
    Route("POST", f"{_ENDPOINT}/deliveries/{{delivery_id}}/redeliver", "webhooks:write", {}),
    Route("GET", "/v1/event-types", "webhooks:write"),
    Route("GET", "/v1/permission-sets", "connections:read"),
    Route("GET", "/v1/permission-sets/{name}/versions", "connections:read"),
    Route("GET", "/v1/permission-sets/{name}/difference", "connections:read"),
)
PUBLIC = (
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/v1/templates/customer-role.yaml",
    "/v1/templates/customer-org.yaml",
    "/onboard",
)

OF_A_TENANT = [route for route in ROUTES if "{tenant_id}" in route.path]
OF_A_CONNECTION = [route for route in ROUTES if "{connection_id}" in route.path]
WITH_BODY = [route for route in ROUTES if route.body is not None]
LISTS = [
    "/v1/tenants",
    "/v1/tenants/{tenant_id}/connections",
    "/v1/tenants/{tenant_id}/onboarding-links",
    "/v1/connections",
    "/v1/api-keys",
    "/v1/audit-events",
]


def routes_of(app):
    """What the application really serves and does not serve to everybody."""
    found = set()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:uuid:)?(\w+)>", r"{\1}", rule.rule)
        if not path.startswith(PUBLIC):
            found |= {f"{method} {path}" for method in rule.methods - {"HEAD", "OPTIONS"}}
    return found
