"""Rate limits: how often a key may ask for credentials, and a tenant may have roles tried.

They keep one caller from using up what all share: AWS gives an account some 600 STS calls a second and doesn't raise
that. Counted in this process, so a deployment of N processes admits up to N times as much; what is exact is that no
caller can starve the others.
"""

import math
import time
from uuid import UUID

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from app.access import Caller
from app.config import Config
from app.errors import RateLimitedError


class Rates:
    """Each method counts one attempt, or raises RateLimitedError and counts nothing."""

    def __init__(self, config: Config) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._issue = RateLimitItemPerSecond(config.issue_rate, namespace="issue")
        self._attempt = RateLimitItemPerMinute(config.connection_rate, namespace="attempt")

    def issue(self, caller: Caller) -> None:
        """One request for credentials with this key, ISSUE_RATE a second at most."""
        self._count(self._issue, caller.key_id.hex, "This API key asks for credentials too often")

    def attempt(self, caller: Caller, tenant_id: UUID) -> None:
        """One role to be tried for this tenant, CONNECTION_RATE a minute at most: it costs AWS calls, and a scanner many."""
        if caller.tenant_id not in {None, tenant_id}:
            return  # it will be told that there is no such tenant, and must not use up what that tenant has
        self._count(self._attempt, tenant_id.hex, "Roles of this tenant are tried too often")

    def _count(self, limit: RateLimitItem, who: str, what: str) -> None:
        if self._limiter.hit(limit, who):
            return
        wait = self._limiter.get_window_stats(limit, who).reset_time - time.time()
        raise RateLimitedError(
            f"{what}: {limit.amount} per {limit.GRANULARITY.name} at most.",
            retry_after=max(1, math.ceil(wait)),
        )
