"""The table of all limits: rates, quotas, maximums of rows, and maximums of concurrent requests.

The code that enforces a limit takes its number and its message from here. `make format` writes this
table into docs/api.md. Limits are counted in three ways:

- rates in memory (app/limits/counting_in_memory.py), and also in the shared cache if there is one;
- in the database: quotas (app/limits/counting_in_database.py), and rows (`ensure_room` in
  app/identity/tenancy.py);
- concurrent requests in memory (app/concurrency/places.py).
"""

import math

from app.settings.setting_types import Limit

_KEY, _LINK, _TENANT = "API key", "onboarding link", "tenant"
_FOREVER, _ANY = math.inf, 1_000_000

# Credentials, and calls to STS. AWS allows an account about 600 calls to STS a second, which all
# tenants share.
CREDENTIALS_OF_KEY = Limit(
    "issue", "credential requests with this key", _KEY, "cache", "limits.issue_rate", "per second"
)
CREDENTIALS_OF_TENANT = Limit(
    "tenant",
    "credential requests for this tenant",
    _TENANT,
    "cache",
    "limits.tenant_issue_rate",
    "per second",
)
NEW_SESSIONS = Limit(
    "miss",
    "new sessions for this tenant",
    _TENANT,
    "cache",
    "limits.tenant_miss_rate",
    "per second",
    burst=5,  # a nightly run over a thousand accounts must not be refused
    patience=0.8,  # the whole request has about 1.5 s
    hint=". Sessions that were handed out can be used until they expire.",
)
# A 429 for one of the limits above counts too. Those beyond this limit are held (HELD_REFUSALS).
REFUSED_CREDENTIALS = Limit(
    "refused",
    "refused credential requests for this tenant",
    _TENANT,
    "process",
    50,  # they take about 15 % of a process's time, with the costliest short bodies 20 %
    "per second",
    burst=0.2,  # a burst of 250 would take a second of a process, and others would wait for it
    patience=1.0,
)
BACKGROUND_CALLS = Limit(
    "sts",
    "calls to STS for proofs in the background",
    "deployment",
    "cache",
    "proofs.sts_budget",
    "per second",
    patience=_FOREVER,
)
ROUTINE_SHARE = 0.5  # the part of the STS budget that routine proofs may use
ROUTINE_CALLS = BACKGROUND_CALLS._replace(
    name="routine", what="calls to STS for routine proofs", share=ROUTINE_SHARE
)

# A tenant's share of a web process, not counting requests for credentials
CPU_TIME = Limit(
    "cpu",
    "requests with this tenant's API keys",
    _TENANT,
    "process",
    70,  # 7 % of a process's time
    "ms of CPU time per second",
    burst=25,
    patience=1.0,
    hint=", besides those for credentials. A list costs more with each row.",
)
# Without this limit, other tenants would wait for a whole burst, which is seconds of CPU time.
PEAK_CPU_TIME = CPU_TIME._replace(
    what="requests with this tenant's API keys in a burst", most=100, burst=0.5, patience=2.0
)
REQUESTS = Limit(
    "requests",
    "requests with this tenant's API keys",
    _TENANT,
    "concurrent",
    2,
    patience=1.0,
    waiting=64,
)
STOPS = Limit(
    "stops",
    "requests of this tenant that stop something",
    f"{_KEY}, and {_TENANT}",
    "concurrent",
    1,
    patience=_FOREVER,
    waiting=_ANY,
    hint="; try again.",
)
VENDOR_STOPS = STOPS._replace(
    what="requests that stop something, with keys that are bound to no tenant",
    per="deployment",
    most=6,  # beside VENDOR_REQUESTS, a process has eight connections to the database
)
UNKNOWN_KEYS = VENDOR_STOPS._replace(
    name="unknown",
    what="look-ups of keys that are unknown, or bound to no tenant",
    most=8,
    beyond="waits; for credentials a second, then 429",
)
UNKNOWN_LINKS = UNKNOWN_KEYS._replace(
    name="unknown_links",
    what="look-ups of unknown onboarding links",
    most=4,
    patience=1.0,
    beyond="429",
)
# A refusal costs time too, and a client may retry at once. So refused requests are held for a
# second, 64 at a time, and the others wait for their turn.
HELD_REFUSALS = Limit(
    "held",
    "refused requests of this tenant that are held",
    _TENANT,
    "concurrent",
    64,
    patience=_FOREVER,
    waiting=_ANY,
    beyond="429 after a longer delay",
)
VENDOR_REQUESTS = STOPS._replace(
    name="vendor",
    what="requests with keys that are bound to no tenant",
    per="deployment",
    most=24,  # a process has 32 connections to the database
)

# Refusals and the audit log
REFUSALS = Limit("refusals", "refused requests with this key", _KEY, "process", 200, "per second")
REFUSALS_OF_KEY = Limit(
    "single refusals",
    "refusals of this key that are recorded singly",
    _KEY,
    "process",
    10,
    "per second",
    beyond="recorded with their number",
)
REFUSALS_OF_TENANT = REFUSALS_OF_KEY._replace(
    what="refusals of this tenant's keys that are recorded singly", per=_TENANT, most=20
)

# Onboarding pages. A request takes up to 20 ms of a web process's time, and an open page sends one
# request every three seconds. So a tenant can have thirty open pages, which take a fifth of a
# process's time.
PAGE = Limit("page", "requests for this page", _LINK, "cache", 5, "per second", burst=2)
PAGES = Limit(
    "pages",
    "requests for your pages",
    _TENANT,
    "cache",
    10,
    "per second",
    patience=NEW_SESSIONS.patience,
)
ROLES_ENTERED = Limit(
    "paste", "roles entered through this link", _LINK, "database", "limits.link_rate", "per hour"
)
CHECKS = ROLES_ENTERED._replace(name="again", what="checks through this link")
SEARCHES_ENDED = ROLES_ENTERED._replace(name="end_search", what="searches ended through this link")

# Proofs on request, and changes
ATTEMPTS = Limit(
    "attempt",
    "checks of this tenant's roles",
    _TENANT,
    "database",
    "limits.connection_rate",
    "per minute",
)
CHANGES = Limit(
    "change",
    "changes of keys, links and suspensions, with this tenant's keys",
    _TENANT,
    "database",
    "limits.tenant_revokes",
    "per second",
    burst=4,
)
# A rotation adds an External ID, whose row is never deleted.
ROTATIONS = Limit(
    "rotation", "rotations started with this tenant's keys", _TENANT, "database", 20, "per day"
)
# A report that takes effect raises the revocation counter. Other tenants' in-flight issuances then
# check and commit again.
REPORTS = Limit(
    "report",
    "reports of refusals for this tenant",
    _TENANT,
    "database",
    60,
    "per minute",
    beyond="202, without effect",
)

# Maximums of rows
KEYS = Limit(
    "keys",
    "live API keys of this tenant",
    _TENANT,
    "database",
    "limits.tenant_keys",
    hint="; revoke one first.",
)
LINKS = KEYS._replace(
    name="links", what="live onboarding links of this tenant", most="limits.tenant_links"
)
CONNECTIONS = Limit(
    "connections",
    "connections of this tenant",
    _TENANT,
    "database",
    "limits.max_connections",
    hint="; delete one first.",
)
SEARCHES = Limit(
    "searches",
    "searches for this tenant's roles by account",
    _TENANT,
    "database",
    50,
    hint="; delete one that is pending, or give the ARN of a role that is there.",
)

# Webhooks
ENDPOINTS_OF_VENDOR = Limit(
    "endpoints",
    "webhook endpoints of the vendor's",
    "deployment",
    "database",
    50,
    hint="; delete one first.",
)
ENDPOINTS_OF_TENANT = ENDPOINTS_OF_VENDOR._replace(
    name="own_endpoints", what="webhook endpoints of this tenant", per=_TENANT, most=5
)
DELIVERIES_ASKED = Limit(
    "deliver",
    "tests and repeated deliveries",
    f"{_KEY}, or {_TENANT}",
    "database",
    30,
    "per minute",
)
RECOVERIES = DELIVERIES_ASKED._replace(name="recover", what="recovered times", most=4)
NAMES_RESOLVED = Limit(
    "resolve",
    "URLs of webhook endpoints that are checked",
    _TENANT,
    "concurrent",
    1,
    patience=2.0,
    waiting=8,
)
IDEMPOTENT_REQUESTS = Limit(
    "idempotency", "requests with an Idempotency-Key in 24 hours", _KEY, "database", 10_000
)
IDEMPOTENT_OF_TENANT = IDEMPOTENT_REQUESTS._replace(
    name="idempotency_all", per=_TENANT, most=20_000
)

# Messages of stacks. A stack sends one when it is created, changed or deleted. Messages beyond
# these limits would only fill the audit log.
MESSAGES = Limit(
    "registration",
    "messages of stacks about this role",
    "connection",
    "database",
    20,
    "per hour",
    beyond="not recorded",
)
MESSAGES_AT_ONCE = Limit(
    "messages",
    "messages of this tenant's stacks that are handled",
    _TENANT,
    "concurrent",
    4,  # more would wait for the tenant's lock on PostgreSQL, and delay the rest of their batch
    beyond="delivered again later",
)
MESSAGES_AGAIN = Limit(
    "redelivery",
    "messages of this tenant's stacks that are delivered again",
    _TENANT,
    "process",
    20,  # about as many as one background worker handles for a tenant
    "per second",
    burst=0,
    beyond="a longer delay",
)
