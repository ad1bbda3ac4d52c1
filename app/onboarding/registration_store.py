"""Changes of the database by a stack's message (invariant 12 in docs/architecture.md).

A message adds a pending connection, or makes an existing one due. It never verifies, moves,
suspends, resumes, removes or revives a connection.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Select, select

from app.approvals.approvals import SetRequests
from app.audit import Actor, actions
from app.audit.details import StackMessage
from app.audit.events import Action
from app.aws.stack_messages import Request
from app.clock import now
from app.config import Config
from app.connections import connections
from app.errors import ConflictError, RateLimitedError, RoleNotAllowedError
from app.ids import RoleArn
from app.limits import quotas
from app.limits.table import MESSAGES
from app.onboarding.registration_token import TokenIds
from app.permissions.permission_sets import PermissionSets, read_label
from app.proofs.trust_checks import end_of
from app.store import locks
from app.store.database import Session
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
from app.store.models.states import StackState

# The longest that a stack's creation takes; its registration may wait for half of it
_CREATION = timedelta(hours=1)


class CheckedMessage(NamedTuple):
    """A message that passed the checks without the database."""

    request: Request
    token: TokenIds
    role: RoleArn


class VoidMessage(Exception):  # noqa: N818  the message is ignored
    """A message is to be ignored. The argument is one word for our own log."""


class VoidToken(VoidMessage):
    """The token is not ours or was voided, or its tenant is deleted or suspended."""


def tenant_of_token(db: Session, token: TokenIds, *, lock: bool) -> Tenant:
    """Return the tenant of a token that is still valid. Raises VoidToken."""
    if token.link_id is not None:
        if lock:
            # A revocation of the link waits for this transaction, as for a request of its page
            locks.share(db, Lock.CALLER, token.tenant_id)
        # The token of an expired link stays valid, because launched stacks keep it for years.
        link = select(OnboardingLink.id).where(
            OnboardingLink.id == token.link_id, OnboardingLink.revoked_at.is_(None)
        )
        if db.scalar(link) is None:
            raise VoidToken("link")
    query = select(Tenant).where(
        Tenant.id == token.tenant_id,
        Tenant.registration_generation == token.generation,
        Tenant.status == TenantStatus.ACTIVE,
    )
    if lock:
        locks.hold(db, Lock.TENANT, token.tenant_id)
        query = query.with_for_update(of=Tenant, key_share=True)
    tenant = db.scalars(query).unique().one_or_none()
    if tenant is None:
        raise VoidToken("tenant")
    return tenant


@dataclass(frozen=True, slots=True)
class RegistrationStore:
    """Stores one message in the transaction `db`."""

    db: Session
    config: Config
    sets: PermissionSets
    request: Request
    token: TokenIds
    role: RoleArn

    def store(self) -> None:
        """Store the registration, once for each request of a stack. Raises VoidMessage."""
        request = self.request
        # With the lock, the second of two simultaneous deliveries sees what the first one stored.
        tenant = tenant_of_token(self.db, self.token, lock=True)
        same = self._of_stack().where(Registration.request_id == request.request_id)
        if self.db.scalars(same).one_or_none() is not None:
            return
        stack = self._stack_after()
        registration = Registration(
            tenant_id=tenant.id, stack_id=request.stack_id, request_id=request.request_id
        )
        self.db.add(registration)
        self.db.flush()
        actor = Actor("registration", str(registration.id), "a customer's stack")
        if not self._apply(actor, tenant, stack):
            self.db.delete(registration)

    def _of_stack(self) -> Select[Registration]:
        return select(Registration).where(
            Registration.tenant_id == self.token.tenant_id,
            Registration.stack_id == self.request.stack_id,
        )

    def _stack_after(self) -> StackState:
        """Return the stack's state after this message.

        A Delete soon after a Create, with nothing in between, is the rollback of that creation. SQS
        keeps no order, but a stack sends nothing between its Create and the answer to it. So a
        Create that is delivered after a Delete was sent before that Delete.
        """
        times = self._of_stack().with_only_columns(Registration.created_at).limit(2)
        earlier = self.db.scalars(times).all()
        kind = self.request.kind
        if kind == "Delete":
            if len(earlier) == 1 and earlier[0] > now() - _CREATION:
                return StackState.ROLLED_BACK
            return StackState.DELETED
        if kind == "Create" and earlier:
            return StackState.ROLLED_BACK
        return StackState.MADE

    def _apply(self, actor: Actor, tenant: Tenant, stack: StackState) -> bool:
        """Apply the message. Return whether to keep the registration's row.

        Beyond the role's limit, the role becomes due, but no row is kept.
        """
        deleting = self.request.kind == "Delete"
        query = connections.to_role(tenant.id, self.role)
        connection = self.db.scalars(
            query.with_for_update(of=Connection, key_share=True)
        ).one_or_none()
        if connection is None:
            if deleting:  # kept within the tenant's limit, as the Create may be delivered later
                return quotas.acquire(self.db, MESSAGES, tenant.id)
            connection = self._add(actor, tenant)
            connection.stack = stack
            self._note(actor, connection)
            self._record(actor, connection, actions.CONNECTION_REGISTERED)
            return True
        action = actions.CONNECTION_REGISTERED_AGAIN
        if connection.status in {ConnectionStatus.SUSPENDED, ConnectionStatus.DELETED}:
            action = actions.CONNECTION_REGISTRATION_IGNORED
        else:
            connection.make_due(now(), Trigger.REGISTERED)
            connection.stack = stack
            if deleting:
                connection.stack_id = None
                action = actions.CONNECTION_STACK_DELETED
            else:
                self._note(actor, connection)
        kept = quotas.acquire(self.db, MESSAGES, connection.id)
        if kept:
            self._record(actor, connection, action)
        return kept

    def _note(self, actor: Actor, connection: Connection) -> None:
        """Store what the stack says about its role.

        A proof follows soon. If it can read the role, its result replaces the stack's statement.
        """
        request = self.request
        connection.stack_id = request.stack_id
        label = request.property("PermissionSet")
        SetRequests(self.db, actor, connection).apply_label(self.sets, label, by_tag=False)
        if "AccessUntil" in request.properties:  # not in templates of older releases
            connection.access_until = end_of([request.property("AccessUntil")])

    def _add(self, actor: Actor, tenant: Tenant) -> Connection:
        # Templates of older releases name no permission set; their roles get the default set
        name, _ = read_label(self.request.property("PermissionSet")) or ("", 0)
        try:
            connection = connections.add_pending(
                self.db,
                self.config,
                actor,
                tenant,
                self.role,
                permission_set=self.sets.get(name) or self.sets.choose(None),
                approved=False,
            )
        except RateLimitedError as error:
            raise VoidMessage("full") from error
        except RoleNotAllowedError as error:
            raise VoidMessage("undeclared") from error
        except ConflictError as error:
            raise VoidMessage("suspended") from error
        connection.make_due(now(), Trigger.REGISTERED)
        return connection

    def _record(self, actor: Actor, connection: Connection, action: Action[StackMessage]) -> None:
        action.record_about(
            self.db,
            actor,
            connection,
            {
                "role_arn": self.role.text,
                "stack_id": self.request.stack_id,
                "request_type": self.request.kind,
            },
        )
