"""The table of limits: how much, how many and how many at once, by key, tenant and link.

The code that counts takes its numbers and its refusals from here, and `make format` writes the
table of docs/api.md. There are three ways to count:

- rates in memory (app/limits/token_bucket.py), and with a shared cache in all processes together;
- quotas and rows in the database (app/limits/quotas.py, `ensure_room` in app/access/tenancy.py);
- concurrent work (app/concurrency/places.py).
"""

from app.config import ROUTINE_SHARE
from app.settings.declarations import Counted, Limit

_KEY, _LINK, _TENANT = "API key", "onboarding link", "tenant"
_WAITS = "waits"

# Credentials, and calls to STS. AWS gives an account some 600 calls to STS a second, for all
# tenants together.
CREDENTIALS_OF_KEY = Limit(
    "issue",
    "credential requests with this key",
    _KEY,
    Counted.CACHE,
    period="second",
    setting="issue_rate",
)
CREDENTIALS_OF_TENANT = Limit(
    "tenant",
    "credential requests for this tenant",
    _TENANT,
    Counted.CACHE,
    period="second",
    setting="tenant_issue_rate",
)
NEW_SESSIONS = Limit(
    "miss",
    "new sessions for this tenant",
    _TENANT,
    Counted.CACHE,
    period="second",
    setting="tenant_miss_rate",
    burst=5,  # a nightly run over a thousand accounts must not be refused
    patience=0.8,  # its request has about 1.5 s
    waiting=64,
    hint=". Sessions that were handed out can be used until they expire.",
)
REFUSED_CREDENTIALS = Limit(
    "refused",
    "refused credential requests for this tenant",
    _TENANT,
    Counted.PROCESS,
    50,  # some 8 % of a process
    "second",
    burst=5,
    patience=1.0,
)
BACKGROUND_CALLS = Limit(
    "sts",
    "calls to STS for proofs in the background",
    "deployment",
    Counted.CACHE,
    period="second",
    setting="sts_budget",
    beyond=_WAITS,
)
ROUTINE_CALLS = BACKGROUND_CALLS._replace(
    name="routine", what="calls to STS for routine proofs", share=ROUTINE_SHARE
)

# A tenant's share of a web process, besides credentials
CPU_TIME = Limit(
    "cpu",
    "requests with this tenant's API keys",
    _TENANT,
    Counted.PROCESS,
    70,  # 7 % of a process's time
    "second",
    burst=25,
    unit=" ms of CPU time",
    patience=1.0,
    hint=", besides those for credentials. A list costs more with each row.",
)
# Without it, others would wait for a whole burst, which is seconds of CPU time.
PEAK_CPU_TIME = CPU_TIME._replace(
    name="peak",
    what="requests with this tenant's API keys in a burst",
    amount=140,
    burst=0.5,
    patience=2.0,
)
REQUESTS = Limit(
    "requests",
    "requests with this tenant's API keys",
    _TENANT,
    Counted.AT_ONCE,
    2,
    patience=1.0,
    waiting=64,
)
STOPS = Limit(
    "stops",
    "requests of this tenant that stop something",
    f"{_KEY}, and {_TENANT}",
    Counted.AT_ONCE,
    1,
    beyond=_WAITS,
    hint="; try again.",
)
VENDOR_REQUESTS = Limit(
    "vendor",
    "requests with keys that are bound to no tenant",
    "deployment",
    Counted.AT_ONCE,
    24,  # a process has 32 connections to the database
    beyond=_WAITS,
    hint="; try again.",
)

# Refusals in the audit log
REFUSALS = Limit("refusals", "refused requests with this key", _KEY, Counted.PROCESS, 200, "second")
REFUSALS_OF_KEY = Limit(
    "single refusals",
    "refusals of this key that are recorded singly",
    _KEY,
    Counted.PROCESS,
    10,
    "second",
    beyond="recorded with their number",
)
REFUSALS_OF_TENANT = REFUSALS_OF_KEY._replace(
    what="refusals of this tenant's keys that are recorded singly", per=_TENANT, amount=20
)

# Onboarding pages. A request takes up to 20 ms of a web process, and an open page sends one every
# three seconds. So thirty open pages of a tenant are within the limit, and they take a fifth of a
# process.
PAGE = Limit("page", "requests for this page", _LINK, Counted.CACHE, 5, "second", burst=2)
PAGES = Limit(
    "pages",
    "requests for your pages",
    _TENANT,
    Counted.CACHE,
    10,
    "second",
    patience=NEW_SESSIONS.patience,
    waiting=32,
)
ROLES_ENTERED = Limit(
    "paste",
    "roles entered through this link",
    _LINK,
    Counted.DATABASE,
    period="hour",
    setting="link_rate",
)
CHECKS = ROLES_ENTERED._replace(name="again", what="checks through this link")
SEARCHES_ENDED = ROLES_ENTERED._replace(name="end_search", what="searches ended through this link")

# Changes
ATTEMPTS = Limit(
    "attempt",
    "checks of this tenant's roles",
    _TENANT,
    Counted.DATABASE,
    period="minute",
    setting="connection_rate",
)
CHANGES = Limit(
    "change",
    "changes of keys, links and suspensions, with this tenant's keys",
    _TENANT,
    Counted.DATABASE,
    period="second",
    setting="tenant_revokes",
    burst=4,
)
# No External ID's row is ever deleted.
ROTATIONS = Limit(
    "rotation", "rotations started with this tenant's keys", _TENANT, Counted.DATABASE, 20, "day"
)
# Each report that takes effect raises the revocation counter: other tenants' in-flight issuances
# check and commit again.
REPORTS = Limit(
    "report",
    "reports of refusals for this tenant",
    _TENANT,
    Counted.DATABASE,
    60,
    "minute",
    beyond="202, without effect",
)

# Rows
KEYS = Limit(
    "keys",
    "live API keys of this tenant",
    _TENANT,
    Counted.DATABASE,
    setting="tenant_keys",
    hint="; revoke one first.",
)
LINKS = Limit(
    "links",
    "live onboarding links of this tenant",
    _TENANT,
    Counted.DATABASE,
    setting="tenant_links",
    hint="; revoke one first.",
)
CONNECTIONS = Limit(
    "connections",
    "connections of this tenant",
    _TENANT,
    Counted.DATABASE,
    setting="max_connections",
    hint="; delete one first.",
)
SEARCHES = Limit(
    "searches",
    "searches for this tenant's roles by account",
    _TENANT,
    Counted.DATABASE,
    50,
    hint="; delete one that is pending, or give the ARN of a role that is there.",
)

# Messages of stacks. A stack sends one when it is created, changed or deleted. More messages than
# these would only fill the audit log.
MESSAGES = Limit(
    "registration",
    "messages of stacks about this role",
    "connection",
    Counted.DATABASE,
    20,
    "hour",
    beyond="not recorded",
)
MESSAGES_AT_ONCE = Limit(
    "messages",
    "messages of this tenant's stacks that are handled",
    _TENANT,
    Counted.AT_ONCE,
    20,
    beyond="delivered again later",
)
MESSAGES_AGAIN = Limit(
    "redelivery",
    "messages of this tenant's stacks that are delivered again",
    _TENANT,
    Counted.PROCESS,
    30,  # about one background worker's rate
    "second",
    burst=0,
    beyond="a longer delay",
)
