"""The prices of requests, bodies and a list's rows.

Prices are charged to the tenant's share (app/limits/tenant_share.py). A view's price is the CPU
time in milliseconds of the route's costliest request, as `make bench ARGS="--only costly"` measures
it, with a short body. Routes without a price of their own cost 3 to 15 ms.
"""

MS_PER_ROW = 0.25  # price of a row in a list
# A body up to this size has no price. A session policy has 2 KiB at most, and a refusal of 4 KiB of
# empty objects takes about 1 ms more than one of a short body.
_FREE_KIB = 4
_MS_PER_KIB = 0.15  # ten thousand account ids, or as many escaped characters, take this time
STOP = 0.0  # the view revokes, suspends or deletes
ORDINARY = 7.0
_PRICES = {
    "create_connection": 30.0,
    "delete_connection": STOP,
    "delete_tenant": STOP,
    "delete_webhook_endpoint": STOP,
    "diagnose_connection": 26.0,
    "replace_api_key": 20.0,
    "resume_connection": 39.0,
    "revoke_api_key": STOP,
    "revoke_onboarding_link": STOP,
    "suspend_connection": STOP,
    "suspend_tenant": STOP,
    "verify_connection": 34.0,
}


def price_of_body(size: int) -> float:
    """Return the price of a request's body. `size`: in bytes."""
    return max(0.0, size / 1024 - _FREE_KIB) * _MS_PER_KIB


def price_of(view_name: str) -> float:
    return _PRICES.get(view_name, ORDINARY)
