"""Registrations: receiving the messages of customers' stacks, and answering the stacks.

Nothing in a message is trusted (invariant 12 in docs/architecture.md). Its token names the tenant,
and the stack's account must be the role's account. app/onboarding/registration_store.py has what a
message may change. This module makes no call to AWS about the role: a background worker proves the
role later.

The stack is answered as soon as the message is stored. Otherwise a slow proof would make
CloudFormation roll the stack back.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.aws.errors import Unavailable
from app.aws.stack_messages import Message, RegistrationQueue, Request, StackAnswers
from app.config import Config
from app.connections import allowed_roles
from app.errors import AppError, AwsUnavailableError, CallerFaultError
from app.health.heartbeats import QueueState
from app.log import logger
from app.onboarding.log_limit import LogLimit
from app.onboarding.message_places import MessagePlaces
from app.onboarding.refused_stacks import RefusedStacks
from app.onboarding.registration_store import (
    CheckedMessage,
    RegistrationStore,
    VoidMessage,
    VoidToken,
    tenant_of_token,
)
from app.onboarding.registration_token import RegistrationTokens, deployment_of
from app.permissions.permission_sets import PermissionSets
from app.store.database import SYSTEM, Database
from app.store.models.deployment import deployment_id

# The same text for every reason, so that it does not show a stranger whether a tenant exists. The
# customer's administrator reads it among the stack's events.
REFUSAL = (
    "The registration was not accepted. Launch the stack from the link that you were given, with"
    " its parameters as they are; if it still fails, ask for a new link."
)


@dataclass(eq=False)
class Registrations:
    """The handler of registrations. It receives messages, stores them, and answers the stacks.

    Threads may share it.
    """

    _db: Database
    _config: Config
    _sets: PermissionSets
    _queue: RegistrationQueue
    _answers: Callable[[], StackAnswers]
    # For this background worker's heartbeat
    queue_state: QueueState = field(default_factory=QueueState)
    # Limited, because a stranger may name any number of deployments
    _other_deployments: LogLimit = field(default_factory=lambda: LogLimit(20, per_seconds=3600))
    _void_messages: LogLimit = field(default_factory=lambda: LogLimit(100, per_seconds=60))
    _places: MessagePlaces = field(default_factory=MessagePlaces)

    @cached_property
    def refused(self) -> RefusedStacks:
        """The refused stacks that this process has not answered yet."""
        return RefusedStacks(self._queue, self._answers)

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
        self.queue_state.received(
            {message.id: message.sent_at for message in messages if message.deliveries == 1}
        )
        accepted = self._sort(messages)
        if accepted:
            with ThreadPoolExecutor(len(accepted)) as pool:
                answered = list(filter(None, pool.map(self._handle_accepted, accepted)))
            self._in_batch(self._queue.delete, answered)
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
                    self.refused.answer(message, request, self._refusal_for(request, void))
                else:
                    tenant_id = checked.token.tenant_id
                    if self._places.take(tenant_id, deliveries=message.deliveries):
                        accepted.append((message, checked))
                        continue
                    early.append((message, self._places.seconds_until_next(tenant_id)))
            elif request:
                others.append(message)
            # Anybody may publish these messages, so they must not degrade readiness.
            self.queue_state.handled(message.id, None)
        self._in_batch(self._queue.delete, others)
        self._in_batch(self._queue.put_back, early)
        return accepted

    def _in_batch(self, call: Callable[[list[Any]], None], messages: list[Any]) -> None:
        try:
            call(messages)
        except Unavailable as error:  # SQS delivers the messages again
            logger.warning("registration.postponed", error=type(error).__name__)

    def handle(self, body: str) -> bool | None:
        """Handle one message and answer its stack. Return True when the message can be deleted.

        Returns False when AWS did not take the answer. Returns None for a message that can't be
        answered, because it is unreadable or its response URL is not AWS's own. SQS delivers a
        message again a few times after False or None, and then moves it to the dead letters.

        A message for another deployment can be deleted unanswered. That deployment receives it
        through its own queue, and our FAILED would roll its customer's stack back. Raises
        StoreUnavailableError.
        """
        request = self._request(body)
        if not isinstance(request, Request):
            return request
        refusal = None
        try:
            self._register(self._check(request))
        except VoidMessage as void:
            refusal = self._refusal_for(request, void)
        return self._answers().send(request, refusal)

    def _request(self, body: str) -> Request | Literal[True] | None:
        """Return the request, or what `handle` returns for a message that gets no answer."""
        try:
            request = Request.parse(body, self._config.aws.registration_topic_arn or "")
        except ValueError:
            logger.warning("registration.unreadable")
            return None
        deployment = deployment_of(request.property("RegistrationToken"))
        if deployment not in {None, self._own_id}:
            if self._other_deployments.acquire(deployment):
                logger.warning("registration.other_deployment", deployment_id=str(deployment))
            return True
        if not self._answers().allows(request.response_url):
            logger.warning("registration.strange_response_url", account_id=request.account_id)
            return None
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
            self._register(checked)
            if self._answers().send(checked.request, None):
                answered, unanswered_since = message, None
        except VoidMessage as void:
            refusal = self._refusal_for(checked.request, void)
            self.refused.answer(message, checked.request, refusal)
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
            RegistrationStore(db, self._config, self._sets, *message).store()

    def _refusal_for(self, request: Request, void: VoidMessage) -> str | None:
        """Return the reason for an answer FAILED; None for a SUCCESS that changes nothing."""
        cause = str(void)
        if self._void_messages.acquire((cause, request.account_id)):
            logger.info("registration.void", cause=cause, account_id=request.account_id)
        if _must_pass(request, void):
            return None
        return REFUSAL

    def _check(self, request: Request) -> CheckedMessage:
        """Check the request without the database. Raises VoidMessage."""
        token = self._tokens.read(request.property("RegistrationToken"))
        if token is None:
            raise VoidToken("token")
        try:
            role = allowed_roles.allowed_role(self._config, request.property("RoleArn"))
        except CallerFaultError as error:
            raise VoidMessage("role") from error
        if (role.partition, role.account_id) != (request.partition, request.account_id):
            raise VoidMessage("account")
        return CheckedMessage(request, token, role)


def _must_pass(request: Request, void: VoidMessage) -> bool:
    """Return whether the stack is answered with SUCCESS although its message is ignored.

    A stack outlives tokens and tenants, so a Delete always succeeds. An Update also succeeds if its
    token is void and did not change. FAILED would roll the update back, and the rollback would send
    the same token.
    """
    if request.kind == "Update" and isinstance(void, VoidToken):
        token = request.property("RegistrationToken")
        return token != "" and token == request.old_properties.get("RegistrationToken")
    return request.kind == "Delete"
