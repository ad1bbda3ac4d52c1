"""Registrations: what the message of a customer's stack may do (invariant 12).

docs/architecture.md lists the invariants by number. Nothing in a message is trusted. Its token
names the tenant, and the stack's account must be the role's account. A message then adds a pending
connection, or makes an existing one due. The background worker proves it later. A message never
verifies, moves, suspends, resumes, removes or revives a connection. No call to AWS about its role
is made here.

The stack is answered as soon as the message is stored, so a slow proof does not roll the stack
back.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal, NamedTuple
from uuid import UUID

from cachetools import TTLCache
from sqlalchemy import Select, select
from sqlalchemy.exc import SQLAlchemyError

from app.approvals.requests import SetRequests
from app.audit import Actor, actions
from app.audit.details import StackMessage
from app.audit.events import Action
from app.aws.errors import Unavailable
from app.aws.stack_answers import StackAnswers
from app.aws.stack_messages import Message, RegistrationQueue, Request
from app.clock import now
from app.config import Config
from app.connections import allowed_roles, connections
from app.errors import (
    AppError,
    AwsUnavailableError,
    CallerFaultError,
    ConflictError,
    RateLimitedError,
    RoleNotAllowedError,
)
from app.health.heartbeats import QueueState
from app.ids import RoleArn
from app.limits import quotas
from app.limits.table import MESSAGES
from app.log import logger
from app.onboarding.message_places import MessagePlaces
from app.onboarding.refused_stacks import RefusedStacks
from app.onboarding.registration_token import RegistrationTokens, TokenIds, deployment_of
from app.permissions.permission_sets import PermissionSets, read_label
from app.proofs.trust_checks import end_of
from app.store import locks
from app.store.database import SYSTEM, Database, Session
from app.store.locks import Lock
from app.store.models import (
    Connection,
    ConnectionStatus,
    OnboardingLink,
    Registration,
    Tenant,
    TenantStatus,
    Trigger,
)
from app.store.models.deployment import deployment_id
from app.store.models.states import StackState

# The same text for every reason. So it does not show a stranger whether a tenant exists. The
# customer's administrator reads it among the stack's events.
REFUSAL = (
    "The registration was not accepted. Launch the stack from the link that you were given, with"
    " its parameters as they are; if it still fails, ask for a new link."
)
_OTHERS, _HOUR = 20, 3600  # log limit: 20 other deployments per hour (seconds)
_VOIDS, _MINUTE = 100, 60  # log limit: 100 accounts per minute with void messages
# Upper bound for a stack's creation; its registration may wait for half of it
_CREATION = timedelta(hours=1)
_AT_REST = frozenset({ConnectionStatus.SUSPENDED, ConnectionStatus.DELETED})


class _CheckedMessage(NamedTuple):
    """A message that passed the checks without the database."""

    request: Request
    token: TokenIds
    role: RoleArn


class _Accepted(NamedTuple):
    """A message that has one of its tenant's places."""

    message: Message
    checked: _CheckedMessage


class _Void(Exception):  # noqa: N818  the message is ignored
    """A message is void. The argument is one word for our own log."""


class _VoidToken(_Void):
    """The token is not ours or was voided, or its tenant is deleted or suspended."""


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
    # The deployments that were logged in the last hour. A stranger may name any number of them.
    _others: TTLCache[UUID, bool] = field(default_factory=lambda: TTLCache(_OTHERS, _HOUR))
    _voids: TTLCache[tuple[str, str], bool] = field(
        default_factory=lambda: TTLCache(_VOIDS, _MINUTE)
    )
    _logging: threading.Lock = field(default_factory=threading.Lock)
    _places: MessagePlaces = field(default_factory=MessagePlaces)

    @cached_property
    def refused(self) -> RefusedStacks:
        """The refused stacks that this process has not answered yet."""
        return RefusedStacks(self._queue, self._answers)

    @cached_property
    def _tokens(self) -> RegistrationTokens:
        return RegistrationTokens(self._config.database.secret_keys)

    def receive(self, *, wait_seconds: int = 20) -> int:
        """Poll the queue once, handle its messages in parallel, and return their number.

        The checks without the database run first, in this thread. They take tens of microseconds
        for a message. A bad message raises nothing. Raises AwsUnavailableError when the queue does
        not answer, and StoreUnavailableError when the database does not. Wait a moment then, and
        call again.
        """
        with (
            self._db.read() as db
        ):  # without the database, messages stay in the queue, out of the dead letters
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
                handled = list(pool.map(self._take, accepted))
            self._in_batch(
                self._queue.delete, [message for message in handled if message is not None]
            )
        return len(messages)

    def _sort(self, messages: Sequence[Message]) -> list[_Accepted]:
        """Return the messages to register, and dispose of the others.

        The others are deleted, put back, left in the queue, or refused.
        """
        accepted: list[_Accepted] = []
        others: list[Message] = []
        early: list[tuple[Message, int]] = []
        for message in messages:
            checked: _CheckedMessage | None = None
            request = self._request(message.body)
            if isinstance(request, Request):
                try:
                    checked = self._check(request)
                except _Void as void:
                    self.refused.answer(message, request, self._refusal_for(request, void))
            elif request:
                others.append(message)
            if checked is not None:
                tenant_id = checked.token.tenant_id
                if self._places.take(tenant_id, deliveries=message.deliveries):
                    accepted.append(_Accepted(message, checked))
                    continue
                early.append((message, self._places.seconds_until_next(tenant_id)))
            # Readiness must not degrade because of any of these, which anybody may publish.
            self.queue_state.handled(message.id, None)
        self._in_batch(self._queue.delete, others)
        self._in_batch(self._queue.put_back, early)
        return accepted

    def _in_batch(self, call: Callable[[list[Any]], None], messages: list[Any]) -> None:
        try:
            call(messages)
        except Unavailable as error:  # SQS delivers them again
            logger.warning("registration.postponed", error=type(error).__name__)

    def handle(self, body: str) -> bool | None:
        """Act on one message and answer its stack. Return True when the message can be deleted.

        Return False when AWS did not take the answer. Return None for a message that can't be
        answered, because it is unreadable or its response URL is not AWS's own. SQS delivers such
        messages again a few times, then moves them to the dead letters.

        A message for another deployment can be deleted unanswered. That deployment receives it
        through its own queue, and our FAILED would roll its customer's stack back. Raises
        StoreUnavailableError.
        """
        request = self._request(body)
        if not isinstance(request, Request):
            return request
        try:
            self._register(self._check(request))
            refusal = None
        except _Void as void:
            refusal = self._refusal_for(request, void)
        return self._answers().send(request, refusal)

    def _request(self, body: str) -> Request | Literal[True] | None:
        """Return the request, or the result of `handle` for a message that is not answered."""
        try:
            request = Request.parse(body, self._config.aws.registration_topic_arn or "")
        except ValueError:
            logger.warning("registration.unreadable")
            return None
        if self._is_for_another(request):
            return True
        if not self._answers().allows(request.response_url):
            logger.warning("registration.strange_response_url", account_id=request.account_id)
            return None
        return request

    def _is_for_another(self, request: Request) -> bool:
        named = deployment_of(request.property("RegistrationToken"))
        if named is None or named == self._own_id:
            return False
        with self._logging:
            new = named not in self._others and len(self._others) < _OTHERS
            if new:
                self._others[named] = True
        if new:
            logger.warning("registration.other_deployment", deployment_id=str(named))
        return True

    @cached_property
    def _own_id(self) -> UUID:
        with self._db.read() as db:
            return deployment_id(db)

    def _take(self, accepted: _Accepted) -> Message | None:
        """Register and answer. Return the message if it is to be deleted."""
        message, checked = accepted
        answered = False
        try:
            self._register(checked)
            answered = self._answers().send(checked.request, None)
        except _Void as void:
            self.refused.answer(message, checked.request, self._refusal_for(checked.request, void))
            self.queue_state.handled(message.id, None)
            return None
        except (AppError, SQLAlchemyError) as error:  # SQS delivers it again
            logger.warning("registration.postponed", error=type(error).__name__)
        finally:
            self._places.leave(checked.token.tenant_id)
        self.queue_state.handled(message.id, None if answered else message.sent_at)
        return message if answered else None

    def _register(self, told: _CheckedMessage) -> None:
        """Store what the message registers. Raises _Void."""
        with self._db.read() as db:  # a void token must not wait for the write lock
            _tenant_of(db, told.token, lock=False)
        with self._db.write(SYSTEM) as db:
            self._store(db, told)

    def _refusal_for(self, request: Request, void: _Void) -> str | None:
        cause = str(void)
        with self._logging:
            place = cause, request.account_id
            new = place not in self._voids and len(self._voids) < _VOIDS
            if new:
                self._voids[place] = True
        if new:
            logger.info("registration.void", cause=cause, account_id=request.account_id)
        return None if _must_pass(request, void) else REFUSAL

    def _check(self, request: Request) -> _CheckedMessage:
        """Check the request without the database. Raises _Void."""
        named = self._tokens.read(request.property("RegistrationToken"))
        if named is None:
            raise _VoidToken("token")
        try:
            role = allowed_roles.allowed_role(self._config, request.property("RoleArn"))
        except CallerFaultError as error:
            raise _Void("role") from error
        if (role.partition, role.account_id) != (request.partition, request.account_id):
            raise _Void("account")
        return _CheckedMessage(request, named, role)

    def _store(self, db: Session, told: _CheckedMessage) -> None:
        """Store the registration, once for each request of a stack. Raises _Void."""
        request = told.request
        # The lock lets the second of two simultaneous deliveries see what the first one stored.
        tenant = _tenant_of(db, told.token, lock=True)
        same = _of_stack(told).where(Registration.request_id == request.request_id)
        if db.scalars(same).one_or_none() is not None:
            return
        registration = Registration(
            tenant_id=tenant.id, stack_id=request.stack_id, request_id=request.request_id
        )
        db.add(registration)
        db.flush()
        if not self._act(
            db, told, tenant, Actor("registration", str(registration.id), "a customer's stack")
        ):
            db.delete(registration)

    def _act(self, db: Session, told: _CheckedMessage, tenant: Tenant, actor: Actor) -> bool:
        """Apply the message. Return whether to keep the registration's row.

        Beyond the limit per role, the role becomes due without a row.
        """
        known = connections.to_role(told.token.tenant_id, told.role).with_for_update(
            of=Connection, key_share=True
        )
        connection = db.scalars(known).one_or_none()
        deleting, stack = told.request.kind == "Delete", _stack_after(db, told)
        if connection is None:
            if deleting:  # within the tenant's limit; its Create may be delivered later
                return quotas.acquire(db, MESSAGES, told.token.tenant_id)
            made = self._add(db, actor, told, tenant)
            made.stack = stack
            self._note(db, actor, made, told.request)
            _record(db, actor, told, made, actions.CONNECTION_REGISTERED)
            return True
        if connection.status in _AT_REST:
            action = actions.CONNECTION_REGISTRATION_IGNORED
        else:
            connection.make_due(now(), Trigger.REGISTERED)
            connection.stack = stack
            if deleting:
                connection.stack_id = None
            else:
                self._note(db, actor, connection, told.request)
            action = (
                actions.CONNECTION_STACK_DELETED
                if deleting
                else actions.CONNECTION_REGISTERED_AGAIN
            )
        kept = quotas.acquire(db, MESSAGES, connection.id)
        if kept:
            _record(db, actor, told, connection, action)
        return kept

    def _note(self, db: Session, actor: Actor, connection: Connection, request: Request) -> None:
        """Record what the stack says about its role.

        A proof follows soon. If it may read the role, its result outweighs the stack's message.
        """
        connection.stack_id = request.stack_id
        label = request.property("PermissionSet")
        SetRequests(db, actor, connection).apply_label(self._sets, label, by_tag=False)
        if "AccessUntil" in request.properties:  # not in templates of older releases
            connection.access_until = end_of([request.property("AccessUntil")])

    def _add(self, db: Session, actor: Actor, told: _CheckedMessage, tenant: Tenant) -> Connection:
        # Templates of older releases name no permission set; they count as the default set.
        name, _ = read_label(told.request.property("PermissionSet")) or ("", 0)
        chosen = self._sets.get(name) or self._sets.choose(None)
        try:
            connection = connections.add_pending(
                db, self._config, actor, tenant, told.role, permission_set=chosen, approved=False
            )
        except RateLimitedError as error:
            raise _Void("full") from error
        except RoleNotAllowedError as error:
            raise _Void("undeclared") from error
        except ConflictError as error:
            raise _Void("suspended") from error
        connection.make_due(now(), Trigger.REGISTERED)
        return connection


def _of_stack(told: _CheckedMessage) -> Select[UUID]:
    of_it = (
        Registration.tenant_id == told.token.tenant_id,
        Registration.stack_id == told.request.stack_id,
    )
    return select(Registration.id).where(*of_it)


def _stack_after(db: Session, told: _CheckedMessage) -> StackState:
    """Return the stack's state after this message.

    A Delete soon after a Create, with nothing in between, is the rollback of that creation. SQS
    keeps no order. A stack sends nothing between its Create and the answer to it. So a Create that
    is delivered after a Delete was sent before it.
    """
    others = _of_stack(told).where(Registration.request_id != told.request.request_id)
    earlier = db.scalars(others.with_only_columns(Registration.created_at).limit(2)).all()
    if told.request.kind == "Delete":
        taken_back = len(earlier) == 1 and earlier[0] > now() - _CREATION
        return StackState.ROLLED_BACK if taken_back else StackState.DELETED
    return StackState.ROLLED_BACK if told.request.kind == "Create" and earlier else StackState.MADE


def _tenant_of(db: Session, token: TokenIds, *, lock: bool) -> Tenant:
    """Return the tenant of a token that is still valid. Raises _VoidToken."""
    if token.link_id is not None:
        if lock:
            # Like the page's requests: a revocation waits for it
            locks.share(db, Lock.CALLER, token.tenant_id)
        _ensure_not_revoked(db, token.link_id)
    if lock:
        locks.hold(db, Lock.TENANT, token.tenant_id)
    named = Tenant.id == token.tenant_id, Tenant.registration_generation == token.generation
    query = select(Tenant).where(*named)
    query = query.with_for_update(of=Tenant, key_share=True) if lock else query
    tenant = db.scalars(query).unique().one_or_none()
    if tenant is None or tenant.status is not TenantStatus.ACTIVE:
        raise _VoidToken("tenant")
    return tenant


def _ensure_not_revoked(db: Session, link_id: UUID) -> None:
    """Raise _VoidToken if the link is revoked.

    The token of an expired link stays valid, because launched stacks keep it for years.
    """
    link = select(OnboardingLink.id).where(
        OnboardingLink.id == link_id, OnboardingLink.revoked_at.is_(None)
    )
    if db.scalars(link).one_or_none() is None:
        raise _VoidToken("link")


def _must_pass(request: Request, void: _Void) -> bool:
    """Return whether the stack is answered with SUCCESS although its message is ignored.

    A stack outlives tokens and tenants, so a Delete always succeeds. An Update with the same void
    token before and after it succeeds as well. FAILED would roll the update back, and the rollback
    would send the same token.
    """
    if request.kind == "Delete":
        return True
    before = request.old_properties.get("RegistrationToken")
    same = bool(before) and request.property("RegistrationToken") == before
    return request.kind == "Update" and isinstance(void, _VoidToken) and same


def _record(
    db: Session,
    actor: Actor,
    told: _CheckedMessage,
    connection: Connection,
    action: Action[StackMessage],
) -> None:
    details: StackMessage = {
        "role_arn": told.role.text,
        "stack_id": told.request.stack_id,
        "request_type": told.request.kind,
    }
    action.record_about(db, actor, connection, details)
