"""The origin of a session of a customer's role: a hand-out of credentials, a proof, or neither.

The caller of AssumeRole chooses the session's name, so somebody else can copy a name that Deputy
used. AWS chooses the access key id, so that is evidence. Access key ids of proofs are not recorded,
because the sessions of proofs are never handed out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from sqlalchemy import select

from app.audit.log import AuditLog, EventFilter
from app.aws.session_names import ProofNames
from app.clock import CLOCKS_APART
from app.ids import RoleArn, time_of
from app.store.database import Database
from app.store.keyset import every
from app.store.models import ISSUED, ApiKey, AuditEvent, Connection

HAND_OUTS_MAX = 10_000  # maximum of returned hand-outs of one session
_CLOCKS = timedelta(seconds=2 * CLOCKS_APART)  # tolerance between AWS's clock and ours
_ROLES = 5_000  # connections per query


@dataclass
class SessionOrigins:
    """Reads the audit log and the connections of all tenants. Only the operator may use it."""

    _db: Database
    _log: AuditLog
    _proof_names: ProofNames
    _own_roles: tuple[RoleArn | None, ...]  # the canary and the stranger

    def hand_outs(self, access_key_id: str) -> list[AuditEvent]:
        """Return the audit events that handed out the session with this access key id.

        The newest is first. At most HAND_OUTS_MAX are returned.
        """
        first = next(self._issued(EventFilter(access_key_id=access_key_id)), None)
        return [] if first is None else self._same_session(first)

    def hand_outs_named(self, name: str, key: ApiKey, role_arn: str | None) -> list[AuditEvent]:
        """Return the audit events that handed out the session with this name.

        `key`: the API key whose id is in the name. Names have no index, so all events of the key
        are searched. If a role is given, only those about its connections are.
        """
        of_key = EventFilter(
            tenant_id=key.tenant_id, api_key_id=key.id, since=time_of(key.id) - _CLOCKS
        )
        filters = [of_key]
        if role_arn is not None:
            connections = self.connections_to(role_arn)
            filters = [of_key._replace(connection_id=each.id) for each in connections]
        for event_filter in filters:
            for event in self._issued(event_filter):
                if event.details.get("session_name") == name:
                    return self._same_session(event)
        return []

    def proven_role(self, name: str, role_arn: str | None) -> str | None:
        """Return the ARN of the role whose proof used this session name; None if no proof did.

        Proofs sign their session names with a secret key. `role_arn`: the role to try first.
        """
        for each in self._role_arns(role_arn):
            if self._proof_names.recognizes(name, each):
                return each
        return None

    def connections_to(self, role_arn: str) -> list[Connection]:
        """Return the connections of all tenants to a role, also deleted ones."""
        account_id = RoleArn.parse(role_arn).account_id  # there is an index by account, not by role
        query = select(Connection).filter_by(account_id=account_id, role_arn=role_arn)
        with self._db.read() as db:
            return list(db.scalars(query.order_by(Connection.id)))

    def connection(self, connection_id: UUID | None) -> Connection | None:
        """Return a connection, also a deleted one."""
        with self._db.read() as db:
            return db.get(Connection, connection_id)

    def key(self, key_id: UUID) -> ApiKey | None:
        """Return an API key, also a revoked one."""
        with self._db.read() as db:
            return db.get(ApiKey, key_id)

    def log_begins_at(self) -> datetime | None:
        """Return the time of the oldest event in the log."""
        with self._db.read() as db:
            return db.scalar(select(AuditEvent.at).order_by(AuditEvent.id).limit(1))

    def _issued(self, event_filter: EventFilter) -> Iterator[AuditEvent]:
        return every(self._log.events, None, event_filter._replace(actions=(ISSUED,)))

    def _same_session(self, hand_out: AuditEvent) -> list[AuditEvent]:
        """Return the audit events that handed out the same session as this event.

        Only events in the session's lifetime are searched.
        """
        details = hand_out.details
        expires_at = datetime.fromisoformat(details["expires_at"])
        within_life = EventFilter(
            connection_id=hand_out.connection_id,
            since=expires_at - timedelta(seconds=details["duration_seconds"]) - _CLOCKS,
            until=expires_at + _CLOCKS,
        )
        hand_outs = (
            event
            for event in self._issued(within_life)
            if event.details["access_key_id"] == details["access_key_id"]
        )
        return [*islice(hand_outs, HAND_OUTS_MAX)]

    def _role_arns(self, first: str | None) -> Iterator[str]:
        """Yield this ARN, those of the vendor's own roles, and those of all connections' roles."""
        if first is not None:
            yield first
        for role_arn in filter(None, self._own_roles):
            yield role_arn.text
        query = select(Connection.id, Connection.role_arn).order_by(Connection.id).limit(_ROLES)
        after = UUID(int=0)
        while True:
            with self._db.read() as db:
                rows = db.execute(query.where(Connection.id > after)).all()
            for row in rows:
                yield row.role_arn
            if len(rows) < _ROLES:
                return
            after = rows[-1].id
