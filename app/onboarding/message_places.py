"""The limit of a tenant's messages that a background worker handles concurrently.

Messages above the limit are put back into the queue. Everybody who has one of a tenant's kits has a
token. Without the limit, a thousand messages of one tenant would delay the next tenant's.

A message that is put back is not refused: SQS delivers it again after a delay. SQS counts each
delivery, and moves a message to the dead-letter queue after five. So from the fourth delivery on,
the limit is twice as high.
"""

import math
import random
import threading
from collections import Counter
from uuid import UUID

from app.limits.table import MESSAGES_AGAIN, MESSAGES_AT_ONCE
from app.limits.token_bucket import TokenBucket

_PUT_BACK_DELIVERIES = 3  # a message is put back up to this delivery; two are left for failures
_JITTER = 2.0  # seconds
_LONGEST = 600  # seconds; CloudFormation waits for half an hour


class MessagePlaces:
    """The places that tenants' messages use, and the schedule for those that are put back."""

    def __init__(self) -> None:
        self._taken: Counter[UUID] = Counter()
        self._again = TokenBucket.of(MESSAGES_AGAIN)
        self._lock = threading.Lock()

    def take(self, tenant_id: UUID, *, deliveries: int) -> bool:
        """Take a place. Return False if the message must be put back."""
        with self._lock:
            places = MESSAGES_AT_ONCE.amount
            if deliveries > _PUT_BACK_DELIVERIES:
                places *= 2
            if self._taken[tenant_id] >= places:
                return False
            self._taken[tenant_id] += 1
            return True

    def leave(self, tenant_id: UUID) -> None:
        with self._lock:
            self._taken[tenant_id] -= 1
            if not self._taken[tenant_id]:
                del self._taken[tenant_id]

    def seconds_until_next(self, tenant_id: UUID) -> int:
        """Return for how many seconds the tenant's next message is put back."""
        wait = self._again.reserve(tenant_id, patience=_LONGEST)
        if wait > _LONGEST:  # no slot was reserved
            return random.randint(1, _LONGEST)  # noqa: S311
        return max(1, min(_LONGEST, math.ceil(wait + random.uniform(0, _JITTER))))  # noqa: S311
