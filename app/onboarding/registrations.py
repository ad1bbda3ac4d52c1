"""Registrations: what the message of a customer's stack may do, which is little (invariant 12).

Everything in it is a claim. Its token says for which tenant; the account of its stack must be the role's; then there
is a pending connection, or the one that is there becomes due, and only the proof, made later and by others, decides.
A message never verifies, moves, suspends, resumes or removes a connection, nor brings one back, and AWS is not asked
about its role here. The stack is answered as soon as the claim is stored: a slow proof must not roll it back.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from cachetools import TTLCache
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import log
from app.audit import log as audit
from app.audit.events import Actor
from app.aws.errors import Unavailable
from app.aws.stack_messages import Message, RegistrationQueue, Replies, Request
from app.aws.templates import render
from app.clock import now
from app.config import Config
from app.connections.connections import add_pending, allowed_role
from app.errors import (
    AppError,
    AwsUnavailableError,
    CallerFaultError,
    RateLimitedError,
    RoleNotAllowedError,
)
from app.health.heartbeats import Hearing
from app.ids import RoleArn
from app.limits.quotas import keeps_message
from app.onboarding.registration_token import RegistrationTokens, TokenClaim, deployment_of
from app.permissions import permission_sets
from app.permissions.permission_sets import PermissionSet
from app.store.database import SYSTEM, Database
from app.store.models import (
    Connection,
    ConnectionStatus,
    OnboardingLink,
    Registration,
    Tenant,
    TenantStatus,
)
from app.store.models.configuration import deployment_id
from app.store.models.states import StackState

_log = log.get(__name__)

# One text, whatever is wrong, or it would tell a stranger whether a tenant exists. The customer's administrator reads
# it among the stack's events.
REFUSAL = (
    "The registration was not accepted. Launch the stack from the link that you were given, with its parameters as"
    " they are; if it still fails, ask for a new link."
)
_IGNORED = "connection.registration_ignored"
_OTHERS, _HOUR = 20, 3600  # other deployments that the log names, in so many seconds
_CREATION = timedelta(hours=1)  # what a stack's creation takes: its registration may wait for half of that
_AT_REST = frozenset({ConnectionStatus.SUSPENDED, ConnectionStatus.DELETED})


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a message says, as far as it can be checked without the database."""

    request: Request
    token: TokenClaim
    role: RoleArn

    @property
    def tenant_id(self) -> UUID:
        return self.token.tenant_id


class _Void(Exception):  # noqa: N818  a claim that counts for nothing
    """`cause`: what is wrong, in a word for our own log."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class _VoidToken(_Void):
    """Its token is not ours, or was voided; or the tenant is gone or suspended."""


class _Unanswerable(Exception):  # noqa: N818  nothing failed
    """A message that is no stack's, or whose answer would go to a stranger."""


class Registrations:
    """Takes messages from the queue, stores what they claim, and answers the stacks. Safe to share among threads."""

    def __init__(
        self,
        db: Database,
        config: Config,
        sets: dict[str, PermissionSet],
        queue: RegistrationQueue,
        replies: Replies,
    ) -> None:
        self._db = db
        self._config = config
        self._permission_set = permission_sets.choose(sets, None)
        # A stack says which template it was made from, and so what it was asked for; an older release's is not known.
        self._by_version = {render(config, chosen).version: chosen for chosen in sets.values()}
        self._tokens = RegistrationTokens(config.secret_keys)
        self._queue = queue
        self._replies = replies
        self.hearing = Hearing()  # for this worker's heartbeat
        self._deployment_id: UUID | None = None  # until it is read
        # What was logged in the last hour. A stranger may name any number of deployments.
        self._others: TTLCache[UUID, bool] = TTLCache(_OTHERS, _HOUR)
        self._logging_others = threading.Lock()

    def receive(self, *, max_messages: int = 10, wait_seconds: int = 20) -> int:
        """Ask the queue once, and handle what came, all at the same time; how many messages that were.

        No message makes it fail. Raises AwsUnavailableError when the queue does not answer and StoreUnavailableError
        when the database does not: wait a moment then, and call again.
        """
        with self._db.read() as db:  # a database that is away for some minutes must not make dead letters
            db.execute(select(1))
        try:
            messages = self._queue.receive(max_messages, wait_seconds)
        except Unavailable as error:
            raise AwsUnavailableError("The registration queue does not answer.") from error
        self.hearing.asked({message.id: message.sent_at for message in messages if message.is_first})
        if messages:
            with ThreadPoolExecutor(len(messages)) as pool:
                list(pool.map(self._take, messages))
        return len(messages)

    def handle(self, body: str) -> bool:
        """Act on one message and answer its stack; True when it is done with.

        A message for another deployment is done with unanswered: that one hears it through its own queue, and a
        FAILED of ours would roll its customer's stack back. False leaves it in the queue: it can't be read, its answer
        would go to a stranger, or AWS did not take the answer. It comes again some times, and then it is a dead letter.
        Raises StoreUnavailableError.
        """
        try:
            return self._answer(body)
        except _Unanswerable:
            return False

    def _answer(self, body: str) -> bool:
        """As `handle`, but raises _Unanswerable for a message that is not a stack's."""
        try:
            request = Request.parse(body, self._config.registration_topic_arn or "")
        except ValueError as error:
            _log.warning("registration.unreadable")
            raise _Unanswerable from error
        if self._is_for_another(request):
            return True
        if not self._replies.allows(request.response_url):
            _log.warning("registration.strange_response_url", account_id=request.account_id)
            raise _Unanswerable
        return self._replies.put(request, self._refusal(request))

    def _is_for_another(self, request: Request) -> bool:
        named = deployment_of(request.property("RegistrationToken"))
        if named is None or named == self._own_id():
            return False
        with self._logging_others:
            new = named not in self._others and len(self._others) < _OTHERS
            if new:
                self._others[named] = True
        if new:
            _log.warning("registration.other_deployment", deployment_id=str(named))
        return True

    def _own_id(self) -> UUID:
        if self._deployment_id is None:
            with self._db.read() as db:
                self._deployment_id = deployment_id(db)
        return self._deployment_id

    def _take(self, message: Message) -> None:
        answered = False
        try:
            answered = self._answer(message.body)
            if answered:
                self._queue.delete(message)
        except _Unanswerable:
            answered = True  # as far as readiness is concerned: anybody may publish such messages
        except (AppError, SQLAlchemyError, Unavailable) as error:  # it comes again
            _log.warning("registration.postponed", error=type(error).__name__)
        self.hearing.took(message.id, None if answered else message.sent_at)

    def _refusal(self, request: Request) -> str | None:
        try:
            claim = self._claim(request)
            with self._db.write(SYSTEM) as db:
                self._store(db, claim)
        except _Void as void:
            _log.info("registration.void", cause=void.cause, account_id=request.account_id)
            return None if _must_pass(request, void) else REFUSAL
        return None

    def _claim(self, request: Request) -> _Claim:
        """Reads no row. Raises _Void."""
        named = self._tokens.read(request.property("RegistrationToken"))
        if named is None:
            raise _VoidToken("token")
        try:
            role = allowed_role(self._config, request.property("RoleArn"))
        except CallerFaultError as error:
            raise _Void("role") from error
        if (role.partition, role.account_id) != (request.partition, request.account_id):
            raise _Void("account")
        return _Claim(request, named, role)

    def _store(self, db: Session, claim: _Claim) -> None:
        """Once for each request of a stack. Raises _Void."""
        request = claim.request
        if claim.token.link_id is not None:
            _ensure_not_revoked(db, claim.token.link_id)  # the link before its tenant, as the page's requests lock them
        # Locked, so that of two deliveries at once the second sees what the first one did.
        query = select(Tenant).where(
            Tenant.id == claim.tenant_id, Tenant.registration_generation == claim.token.generation
        )
        tenant = db.scalars(query.with_for_update(of=Tenant)).unique().one_or_none()
        if tenant is None or tenant.status is not TenantStatus.ACTIVE:
            raise _VoidToken("tenant")
        same = (
            Registration.tenant_id == claim.tenant_id,
            Registration.stack_id == request.stack_id,
            Registration.request_id == request.request_id,
        )
        if db.scalars(select(Registration.id).where(*same)).one_or_none() is not None:
            return
        registration = Registration(tenant_id=claim.tenant_id, stack_id=request.stack_id, request_id=request.request_id)
        db.add(registration)
        db.flush()
        if not self._act(db, claim, tenant, Actor("registration", str(registration.id), "a customer's stack")):
            db.delete(registration)

    def _act(self, db: Session, claim: _Claim, tenant: Tenant, actor: Actor) -> bool:
        """Whether it is to be remembered. A flood about one role makes it due all the same, and leaves no trace."""
        connection = db.scalars(
            select(Connection)
            .where(Connection.tenant_id == claim.tenant_id, Connection.role_arn == claim.role.text)
            .with_for_update(of=Connection)
        ).one_or_none()
        deleting, stack = claim.request.kind == "Delete", _stack_after(db, claim)
        if connection is None:
            if deleting:  # its Create may come later; remembered within the tenant's bound, as any number may be sent
                return keeps_message(db, claim.tenant_id)
            made = self._add(db, claim, tenant)
            made.stack = stack
            _record(db, actor, claim, made, "connection.registered")
            return True
        if connection.status in _AT_REST:
            action = _IGNORED
        else:
            connection.seek(now())
            connection.stack = stack
            action = "connection.stack_deleted" if deleting else "connection.registered_again"
        kept = keeps_message(db, connection.id)
        if kept:
            _record(db, actor, claim, connection, action)
        return kept

    def _add(self, db: Session, claim: _Claim, tenant: Tenant) -> Connection:
        version = claim.request.property("TemplateVersion")
        chosen = self._by_version.get(version, self._permission_set)
        try:
            connection = add_pending(db, self._config, tenant, claim.role, chosen, approved=False)
        except RateLimitedError as error:
            raise _Void("full") from error
        except RoleNotAllowedError as error:
            raise _Void("undeclared") from error
        connection.seek(now())
        return connection


def _stack_after(db: Session, claim: _Claim) -> StackState:
    """What has become of the stack by this message.

    A Delete that follows its Create alone, and soon, is that creation's rollback. SQS keeps no order: a Create that
    comes second comes after its Delete, as a stack sends nothing else before its Create was answered.
    """
    of_this_stack = (
        Registration.tenant_id == claim.tenant_id,
        Registration.stack_id == claim.request.stack_id,
        Registration.request_id != claim.request.request_id,
    )
    earlier = db.scalars(select(Registration.created_at).where(*of_this_stack).limit(2)).all()
    if claim.request.kind == "Delete":
        taken_back = len(earlier) == 1 and earlier[0] > now() - _CREATION
        return StackState.ROLLED_BACK if taken_back else StackState.DELETED
    return StackState.ROLLED_BACK if claim.request.kind == "Create" and earlier else StackState.MADE


def _ensure_not_revoked(db: Session, link_id: UUID) -> None:
    """An expired link's token goes on to count: launched stacks carry it for years. Raises _VoidToken."""
    link = select(OnboardingLink.id).where(OnboardingLink.id == link_id, OnboardingLink.revoked_at.is_(None))
    # Locked, so that a revocation waits for what is being stored, or is seen here.
    if db.scalars(link.with_for_update(read=True)).one_or_none() is None:
        raise _VoidToken("link")


def _must_pass(request: Request, void: _Void) -> bool:
    """Whether a stack is answered with SUCCESS though its message counts for nothing.

    A stack outlives tokens and tenants, and must always be able to go. One whose token was void before its update, and
    is the same after it, changes nothing with it; FAILED would roll the update back, and the roll-back fails the same way.
    """
    if request.kind == "Delete":
        return True
    before = request.old_property("RegistrationToken")
    same = bool(before) and request.property("RegistrationToken") == before
    return request.kind == "Update" and isinstance(void, _VoidToken) and same


def _record(db: Session, actor: Actor, claim: _Claim, connection: Connection, action: str) -> None:
    audit.record(
        db,
        actor,
        action,
        outcome="refused" if action == _IGNORED else "ok",
        tenant_id=claim.tenant_id,
        connection_id=connection.id,
        details={
            "role_arn": claim.role.text,
            "stack_id": claim.request.stack_id,
            "request_type": claim.request.kind,
        },
    )
