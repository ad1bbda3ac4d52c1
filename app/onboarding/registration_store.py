"""The changes that a stack's message makes (invariant 12 in docs/architecture.md).

A message adds a pending connection, or makes an existing one due, and voids the sessions that
processes keep if the customer revoked sessions. It never verifies, moves, suspends, resumes,
removes or revives a connection.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Select, select

from app.approvals.approvals import SetRequests
from app.audit import Actor, actions
from app.audit.details import StackMessage
from app.aws.stack_messages import Request
from app.clock import now
from app.config import Config
from app.connections import connections
from app.errors import ConflictError, RateLimitedError, RoleNotAllowedError
from app.ids import RoleArn, new_id
from app.limits.counting_in_database import take
from app.limits.limits import MESSAGES, REPORTS
from app.onboarding.registration_tokens import TokenIds, VoidMessage, tenant_of_token
from app.permissions.permission_sets import PermissionSets, read_label
from app.proofs.access_end import end_of
from app.store.database import Session
from app.store.models import Connection, ConnectionStatus, Registration, StackState, Tenant, Trigger

# For how long a registration's row marks its message as handled. CloudFormation gives up a request
# after an hour, and SQS keeps a message, which it may deliver again, for 14 days at most.
REGISTRATIONS_KEPT = timedelta(days=30)
# Maximum duration of a stack's creation, half of which its registration may take
_CREATION = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CheckedMessage:
    """A message that passed the checks without the database, and how it is stored."""

    config: Config
    sets: PermissionSets
    request: Request
    token: TokenIds
    role: RoleArn

    def store(self, db: Session) -> None:
        """Store the registration, once for each request of a stack. Raises VoidMessage."""
        request = self.request
        # With the lock, the second of two simultaneous deliveries sees what the first one stored.
        tenant = tenant_of_token(db, self.token, lock=True)
        same = self._of_stack().where(Registration.request_id == request.request_id)
        if db.scalars(same).one_or_none() is not None:
            return
        registration_id = new_id()
        actor = Actor("registration", str(registration_id), "a customer's stack")
        if self._apply(db, actor, tenant):
            db.add(
                Registration(
                    id=registration_id,
                    tenant_id=tenant.id,
                    stack_id=request.stack_id,
                    request_id=request.request_id,
                )
            )

    def _of_stack(self) -> Select[Registration]:
        return select(Registration).where(
            Registration.tenant_id == self.token.tenant_id,
            Registration.stack_id == self.request.stack_id,
        )

    def _follows_soon(self, db: Session) -> bool:
        """Return whether the stack sent exactly one message before, within the last hour."""
        times = self._of_stack().with_only_columns(Registration.created_at).limit(2)
        earlier = db.scalars(times).all()
        return len(earlier) == 1 and earlier[0] > now() - _CREATION

    def _stack_after(self, db: Session, existing: Connection | None) -> StackState:
        """Return the stack's state after this message.

        A Delete soon after a Create, with nothing in between, is the rollback of that creation. SQS
        keeps no order, but a stack sends nothing between its Create and the answer to it. So a
        Create that is delivered after a Delete was sent before that Delete. A stack that is
        registered sends a Create too, when its topic was removed and is set again.
        """
        kind, stack_id = self.request.kind, self.request.stack_id
        is_registered = existing is not None and existing.stack_id == stack_id
        may_follow = kind == "Delete" or (kind == "Create" and not is_registered)
        if may_follow and self._follows_soon(db):
            return StackState.ROLLED_BACK
        return StackState.DELETED if kind == "Delete" else StackState.MADE

    def _apply(self, db: Session, actor: Actor, tenant: Tenant) -> bool:
        """Apply the message. Return whether to add the registration's row.

        Beyond the role's limit, the role becomes due, but no row is added.
        """
        request, action = self.request, actions.CONNECTION_REGISTERED_AGAIN
        deleting = request.kind == "Delete"
        query = connections.to_role(tenant.id, self.role)
        existing = db.scalars(query.with_for_update(of=Connection, key_share=True)).one_or_none()
        if existing is None and deleting:
            # Kept within the tenant's limit, as the Create may be delivered later
            return not take(db, MESSAGES, tenant.id)
        connection = existing or self._add(db, actor, tenant)
        if existing is None:
            action = actions.CONNECTION_REGISTERED
        if connection.status in {ConnectionStatus.SUSPENDED, ConnectionStatus.DELETED}:
            action = actions.CONNECTION_REGISTRATION_IGNORED
        else:
            connection.stack = self._stack_after(db, existing)
            connection.make_due(now(), Trigger.REGISTERED)
            if deleting:
                connection.stack_id = None
                action = actions.CONNECTION_STACK_DELETED
            else:
                self._note(db, actor, connection)
        # Counted for itself, because other messages may have used up the role's limit
        if self._revokes_sessions() and not take(db, REPORTS, connection.id):
            connection.version += 1  # AWS refuses the sessions that processes keep
        kept = existing is None or not take(db, MESSAGES, connection.id)
        if kept:
            details: StackMessage = {
                "role_arn": self.role.text,
                "stack_id": request.stack_id,
                "request_type": request.kind,
            }
            action.record_about(db, actor, connection, details)
        return kept

    def _revokes_sessions(self) -> bool:
        before = self.request.property("RevokeSessionsBefore")
        return before not in {"", self.request.old_properties.get("RevokeSessionsBefore")}

    def _note(self, db: Session, actor: Actor, connection: Connection) -> None:
        """Store what the stack says about its role.

        A proof follows soon. If it can read the role, its result replaces the stack's statement.
        """
        request = self.request
        connection.stack_id = request.stack_id
        label = request.property("PermissionSet")
        SetRequests(db, actor, connection).apply_label(self.sets, label, by_tag=False)
        if "AccessUntil" in request.properties:  # not in templates of older releases
            connection.access_until = end_of([request.property("AccessUntil")])

    def _add(self, db: Session, actor: Actor, tenant: Tenant) -> Connection:
        # Templates of older releases name no permission set; their roles get the default set
        name, _ = read_label(self.request.property("PermissionSet")) or ("", 0)
        try:
            connection = connections.add_pending(
                db,
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
        connection.onboarding_link_id = self.token.link_id
        return connection
