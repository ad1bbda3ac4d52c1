"""Registrations: receiving the messages of customers' stacks, and answering the stacks.

Nothing in a message is trusted (invariant 12 in docs/architecture.md). Its token names the tenant,
and the stack's account must be the role's account. app/onboarding/registration_store.py has what a
message may change. This module makes no call to AWS about the role: a background worker proves the
role later.

The stack is answered as soon as the message is stored. Otherwise a slow proof would make
CloudFormation roll the stack back.
"""

import math
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from cachetools import TTLCache
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.aws.errors import Unavailable
from app.aws.stack_messages import BATCH, Message, RegistrationQueue, Request, StackAnswers
from app.config import Config
from app.connections import allowed_roles
from app.errors import AppError, AwsUnavailableError, CallerFaultError
from app.health.heartbeats import QueueState
from app.ids import RoleArn
from app.limits.counting_in_memory import TokenBucket
from app.limits.limits import MESSAGES_AGAIN, MESSAGES_AT_ONCE
from app.log import logger
from app.onboarding.registration_store import CheckedMessage
from app.onboarding.registration_tokens import (
    RegistrationTokens,
    VoidMessage,
    VoidToken,
    deployment_of,
    tenant_of_token,
)
from app.permissions.permission_sets import PermissionSets
from app.store.database import SYSTEM, Database
from app.store.models.deployment import deployment_id

# The same text for every reason, so that it shows nobody whether a tenant exists. The
# customer's administrator reads it among the stack's events.
REFUSAL = (
    "The registration was not accepted. Launch the stack from the link that you were given, with"
    " its parameters as they are; if it still fails, ask for a new link."
)
_PUT_BACK_DELIVERIES = 3  # a message is put back up to this delivery; two are left for failures
# How much more of its tenant's rate a message uses with each delivery. In a simulation with these
# two numbers, none of a thousand that take two seconds each is lost, though five background workers
# are killed twice. If each delivery used as much as the first, half of them would be lost.
_COST_FACTOR = 4
# Messages that can't be put back any more and use the database. This process has 32 connections.
_LATE_AT_ONCE = 8
_JITTER_SECONDS = 2
_LONGEST_SECONDS = 600  # CloudFormation waits for half an hour
_THREADS = 2  # threads that answer refused stacks
_REFUSED_MAX = 200  # most messages that wait for such a thread

_Refused = queue.Queue[tuple[Message, Request, str | None]]


class LogLimit:
    """A limit on log lines about messages, because anybody may send any number of messages.

    It allows one line for each subject in a period, and at most `subjects` lines in all. Threads
    may share it.
    """

    def __init__(self, subjects: int, *, per_seconds: int) -> None:
        self._logged: TTLCache[Hashable, bool] = TTLCache(subjects, per_seconds)
        self._lock = threading.Lock()

    def acquire(self, subject: Hashable) -> bool:
        """Return whether to log a line about the subject now, and count it."""
        with self._lock:
            if subject in self._logged or len(self._logged) >= self._logged.maxsize:
                return False
            self._logged[subject] = True
            return True


class MessagePlaces:
    """The limit of a tenant's messages that a background worker handles concurrently.

    Messages above the limit are put back into the queue. Everybody who has one of a tenant's kits
    has a token. Without the limit, a thousand messages of one tenant would delay the next tenant's.

    A message that is put back is not refused: SQS delivers it again after a delay. SQS counts each
    delivery, and moves a message to the dead-letter queue after five. So a message uses four times
    as much of its tenant's rate with each delivery: if 20 a second come back for the first time,
    then 5 for the second, and 1.25 for the third. From the fourth delivery on a message is not put
    back. Such messages wait for one another instead (`late`).
    """

    def __init__(self) -> None:
        self._taken: Counter[UUID] = Counter()
        self._again = TokenBucket.of(MESSAGES_AGAIN)
        self._lock = threading.Lock()
        # Otherwise those of one tenant could use all database connections of this process while
        # they wait for the tenant's lock
        self._late = threading.Semaphore(_LATE_AT_ONCE)

    def late(self, deliveries: int) -> AbstractContextManager[Any]:
        """Return a context in which a message with so many deliveries may use the database."""
        return self._late if deliveries > _PUT_BACK_DELIVERIES else nullcontext()

    def take(self, tenant_id: UUID, *, deliveries: int) -> bool:
        """Take a place. Return False if the message must be put back."""
        may_wait = deliveries <= _PUT_BACK_DELIVERIES
        with self._lock:
            if may_wait and self._taken[tenant_id] >= MESSAGES_AT_ONCE.amount:
                return False
            self._taken[tenant_id] += 1
            return True

    def leave(self, tenant_id: UUID) -> None:
        with self._lock:
            self._taken -= Counter([tenant_id])  # leaves no counts of 0

    def seconds_until_next(self, tenant_id: UUID, *, deliveries: int) -> int:
        """Return for how many seconds a message of the tenant is put back."""
        cost = _COST_FACTOR ** (deliveries - 1)
        wait = self._again.reserve(tenant_id, patience=_LONGEST_SECONDS, cost=cost)
        if wait > _LONGEST_SECONDS:  # no slot was reserved
            return random.randint(1, _LONGEST_SECONDS)  # noqa: S311
        jitter = random.randint(1, _JITTER_SECONDS)  # noqa: S311
        return min(_LONGEST_SECONDS, math.ceil(wait) + jitter)


@dataclass(eq=False)
class Registrations:
    """The handler of registrations. It receives messages, stores them, and answers the stacks.

    Threads may share it.
    """

    _db: Database
    _config: Config
    _sets: PermissionSets
    _queue: RegistrationQueue
    _answers: Callable[[str], StackAnswers]  # the argument is the topic's region
    # For this background worker's heartbeat
    queue_state: QueueState = field(default_factory=QueueState)
    # Limited, because anybody may name any number of deployments
    _other_deployments: LogLimit = field(default_factory=lambda: LogLimit(20, per_seconds=3600))
    _void_messages: LogLimit = field(default_factory=lambda: LogLimit(100, per_seconds=60))
    _places: MessagePlaces = field(default_factory=MessagePlaces)

    @cached_property
    def _refused(self) -> _Refused:
        """The refused messages that this process has not answered yet, with the refusals.

        Anybody can publish any number of such messages. Threads of their own answer the stacks, so
        they delay neither other answers nor the reading of the queue.
        """
        refused: _Refused = queue.Queue(_REFUSED_MAX)
        for _ in range(_THREADS):
            threading.Thread(
                target=self._answer_refused, args=[refused], name="refused-stacks", daemon=True
            ).start()
        return refused

    @cached_property
    def _tokens(self) -> RegistrationTokens:
        return RegistrationTokens(self._config.database.secret_keys)

    def receive(self, *, wait_seconds: int) -> int:
        """Poll the queue once, handle its messages in parallel, and return their number.

        The checks without the database run first, in this thread. They take tens of microseconds
        for a message. A bad message raises nothing. Raises AwsUnavailableError when the queue does
        not answer, and StoreUnavailableError when the database does not answer. After an error,
        wait a moment and call again.
        """
        # While the database is unavailable, messages stay in the queue, out of the dead letters.
        with self._db.read() as db:
            db.execute(select(1))
        try:
            messages = self._queue.receive(wait_seconds)
        except Unavailable as error:
            raise AwsUnavailableError("The registration queue does not answer.") from error
        # Not those that are delivered again: sent long ago, they would make the queue look late
        self.queue_state.received(
            {message.id: message.sent_at for message in messages if message.deliveries == 1}
        )
        accepted = self._sort(messages)
        if accepted:
            with ThreadPoolExecutor(len(accepted)) as pool:
                answered = list(filter(None, pool.map(self._handle_accepted, accepted)))
            self._queue.delete(answered)
        return len(messages)

    def _sort(self, messages: Sequence[Message]) -> list[tuple[Message, CheckedMessage]]:
        """Return the messages to register. Each has taken a place of its tenant.

        The other messages are deleted, put back, left in the queue, or refused.
        """
        accepted: list[tuple[Message, CheckedMessage]] = []
        others: list[Message] = []
        early: list[tuple[Message, int]] = []
        for message in messages:
            request = self._request(message.body)
            if isinstance(request, Request):
                try:
                    checked = self._check(request)
                except VoidMessage as void:
                    self._refuse(message, request, void)
                else:
                    tenant_id = checked.token.tenant_id
                    if self._places.take(tenant_id, deliveries=message.deliveries):
                        accepted.append((message, checked))
                        continue
                    wait = self._places.seconds_until_next(tenant_id, deliveries=message.deliveries)
                    early.append((message, wait))
            elif request:
                others.append(message)
            # Anybody may publish these messages, so they must not degrade readiness.
            self.queue_state.handled(message.id, None)
        self._queue.delete(others)
        self._queue.put_back(early)
        return accepted

    def _request(self, body: str) -> Request | bool:
        """Return the request. For a message that gets no answer, return True if it must be deleted.

        A message for another deployment is deleted. That deployment receives it through its own
        queue, and our FAILED would roll its customer's stack back. An unreadable message stays, and
        so does one whose response URL is not AWS's own in the topic's region. SQS delivers it again
        a few times, and then moves it to the dead letters.
        """
        try:
            request = Request.parse(body, self._config.aws.registration_topics)
        except ValueError:
            logger.warning("registration.unreadable")
            return False
        deployment = deployment_of(request.property("RegistrationToken"))
        if deployment not in {None, self._own_id}:
            if self._other_deployments.acquire(deployment):
                logger.warning("registration.other_deployment", deployment_id=str(deployment))
            return True
        if not self._answers(request.region).allows(request.response_url):
            logger.warning("registration.strange_response_url", account_id=request.account_id)
            return False
        return request

    @cached_property
    def _own_id(self) -> UUID:
        with self._db.read() as db:
            return deployment_id(db)

    def _handle_accepted(self, accepted: tuple[Message, CheckedMessage]) -> Message | None:
        """Register the role and answer its stack. Return the message if it is to be deleted."""
        message, checked = accepted
        answered: Message | None = None
        unanswered_since: datetime | None = message.sent_at
        try:
            with self._places.late(message.deliveries):
                self._register(checked)
            if self._answers(checked.request.region).send(checked.request, None):
                answered, unanswered_since = message, None
        except VoidMessage as void:
            self._refuse(message, checked.request, void)
            unanswered_since = None
        except (AppError, SQLAlchemyError) as error:  # SQS delivers the message again
            logger.warning("registration.postponed", error=type(error).__name__)
        finally:
            self._places.leave(checked.token.tenant_id)
        self.queue_state.handled(message.id, unanswered_since)
        return answered

    def _register(self, message: CheckedMessage) -> None:
        """Store what the message registers. Raises VoidMessage."""
        # Checked before the write lock, for which a void token must not wait
        with self._db.read() as db:
            tenant_of_token(db, message.token, lock=False)
        with self._db.write(SYSTEM) as db:
            message.store(db)

    def _refuse(self, message: Message, request: Request, void: VoidMessage) -> None:
        """Queue the answer of a refused stack.

        When the queue is full, the message stays with SQS, which delivers it again.
        """
        with suppress(queue.Full):
            self._refused.put_nowait((message, request, self._refusal_for(request, void)))

    def _answer_refused(self, refused: _Refused) -> None:
        while True:
            batch, answered = [refused.get()], []
            with suppress(queue.Empty):
                while len(batch) < BATCH:
                    batch.append(refused.get_nowait())
            try:
                for message, request, refusal in batch:
                    if self._answers(request.region).send(request, refusal):
                        answered.append(message)
                self._queue.delete(answered)
            except Exception as error:  # noqa: BLE001
                # SQS delivers the messages again. The thread must survive.
                logger.warning("registration.postponed", error=type(error).__name__)
            for _ in batch:
                refused.task_done()

    def _refusal_for(self, request: Request, void: VoidMessage) -> str | None:
        """Return the reason for an answer FAILED; None for a SUCCESS that changes nothing."""
        cause = str(void)
        if self._void_messages.acquire((cause, request.account_id)):
            logger.info("registration.void", cause=cause, account_id=request.account_id)
        # A stack outlives tokens and tenants, so a Delete always succeeds, and so does a registered
        # stack's Update with a void token: the earlier token may be void too.
        passes = request.kind == "Delete"
        if request.kind == "Update" and request.old_properties.get("RegistrationToken"):
            passes = isinstance(void, VoidToken) or self._would_get_stuck(request)
        return None if passes else REFUSAL

    def _would_get_stuck(self, request: Request) -> bool:
        """Return whether the rollback of this update would be refused too.

        FAILED would roll the update back, and the rollback sends the earlier properties.
        """
        before = request.old_properties
        texts = before.get("RegistrationToken", ""), request.property("RegistrationToken")
        tenants = {token and token.tenant_id for token in map(self._tokens.read, texts)}
        if len(tenants) == 1 and before.get("RoleArn") == request.property("RoleArn"):
            return True
        try:
            self._role(before.get("RoleArn", ""))
        except VoidMessage:
            return True
        return False

    def _check(self, request: Request) -> CheckedMessage:
        """Check the request without the database. Raises VoidMessage."""
        token = self._tokens.read(request.property("RegistrationToken"))
        if token is None:
            raise VoidToken("token")
        role = self._role(request.property("RoleArn"))
        if (role.partition, role.account_id) != (request.partition, request.account_id):
            raise VoidMessage("account")
        return CheckedMessage(self._config, self._sets, request, token, role)

    def _role(self, text: str) -> RoleArn:
        try:
            return allowed_roles.allowed_role(self._config, text)
        except CallerFaultError as error:
            raise VoidMessage("role") from error
