"""What a request costs its tenant's share (app/limits/tenant_share.py), by the name of its view.

The prices are milliseconds of CPU time of the costliest request, as `make bench ARGS="--only costly"` measures them.
"""

STOP = 0.0  # the view revokes, suspends or deletes
_OTHERS = 7.0
_PRICES = {
    "delete_connection": STOP,
    "delete_tenant": STOP,
    "revoke_key": STOP,
    "revoke_onboarding_link": STOP,
    "suspend_connection": STOP,
    "suspend_tenant": STOP,
}


def price_of(view_name: str) -> float:
    return _PRICES.get(view_name, _OTHERS)
