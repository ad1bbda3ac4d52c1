"""What the machine drives and looks at: two processes of Deputy over one database, and an AWS."""

import itertools
import json
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import psycopg
import pytest
from moto.iam.models import iam_backends
from sqlalchemy import update
from werkzeug.test import EnvironBuilder, run_wsgi_app

from app.identity.scopes import ALL_SCOPES, Scope
from app.store.database import SYSTEM
from app.store.models import Connection as Row, ExternalIdRow, ExternalIdState
from app.store.models.external_id import ROTATING
from tests.conftest import OPERATOR
from tests.model.state import Key, Role, Tenant
from tests.support.cast import Api
from tests.support.housekeeping import tidy

ALL = frozenset(scope.value for scope in ALL_SCOPES)
_READS = (
    "iam:GetRole",
    "iam:GetRolePolicy",
    "iam:ListRolePolicies",
    "iam:ListAttachedRolePolicies",
)
_PATIENCE = 60.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Issued:
    """A hand-out: as the caller got it, or as the audit log tells it."""

    tenant_id: str
    connection_id: str
    key_id: str
    access_key_id: str
    session_name: str


class Wire:
    """In the place of a pool of connections to AWS: the same requests and answers, and no socket
    between, which would take as long as the rest of a proof.
    """

    def __init__(self, aws):
        self._aws = aws

    def urlopen(self, method, target, *, body, headers, **_):
        environ = EnvironBuilder(target, method=method, headers=headers, data=body).get_environ()
        data, status, answered = run_wsgi_app(self._aws, environ)
        return SimpleNamespace(
            status=int(status.split()[0]), headers=dict(answered), data=b"".join(data)
        )

    def close(self):
        """There is nothing to close."""


@contextmanager
def without_sockets(aws):
    """A service that is made meanwhile calls AWS over a Wire."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.aws.query_api._pool", lambda *_: (Wire(aws), "/"))
        yield


class Stage:
    def __init__(self, apps, aws, database, canary):
        self.apps, self.aws, self.canary = apps, aws, canary
        self.services = apps[0].extensions["deputy"]
        self._asking = [Api(app, None) for app in apps]
        self._sql = psycopg.connect(database, autocommit=True)
        self._seen_events = self._next_transaction()

    def close(self):
        self._sql.close()

    # What is asked of Deputy

    def ask(self, app, key, method, path, body=None):
        given = {} if body is None else {"body": body}
        answer = self._asking[app].raw(
            method, path, headers={"Authorization": f"Bearer {key.text}"}, **given
        )
        self._until_idle()
        return answer

    def _until_idle(self):
        """Sessions are renewed by threads of their own, which outlive the request that started
        them.
        """
        deadline = time.monotonic() + _PATIENCE
        while any(app.extensions["deputy"].issuer._sessions._calls._running for app in self.apps):
            assert time.monotonic() < deadline, "a renewal does not end"
            time.sleep(0.0005)

    def new_tenant(self, name, by):
        made = self.services.tenants.create(self.services.api_keys.authenticate(by.text), name=name)
        assert made.external_id is not None
        return Tenant(
            str(made.id), name, {made.external_id: "current"}, made_by=by, made_at=made.created_at
        )

    def new_key(self, tenant, scopes):
        tenant_id = None if tenant is None else uuid.UUID(tenant.id)
        may_give = frozenset({Scope.CREDENTIALS_ISSUE} if Scope.KEYS_DELEGATE in scopes else ())
        key, text = self.services.api_keys.create_key(
            OPERATOR,
            name="a program",
            scopes=frozenset(map(Scope, scopes)),
            tenant_id=tenant_id,
            may_give=may_give,
        )
        return Key(str(key.id), text, scopes, tenant)

    def work(self):
        """A background worker does what is due now: each connection that it takes up, and why."""
        tidy(self.services.db, self.services.config.database.audit_retention_days)
        yield "", ""
        queue = self.services.proof_queue
        while claims := queue.claim(100) + queue.claim_routine(100):
            for claim in claims:
                query = "SELECT due_for FROM connections WHERE id = %s"
                [(why,)] = self._sql.execute(query, [claim.connection_id])
                queue.prove(claim)
                yield str(claim.connection_id), why

    # What is done in the customers' accounts

    def new_role(self, account, trust, *, reads):
        role = Role(account, f"deputy-model-{next(_numbers)}", "", trust, reads)
        self.make(role)
        return role

    def make(self, role):
        iam, text = iam_backends[role.account]["aws"], json.dumps(role.trust.document())
        made = iam.create_role(role.name, text, "/", None, "", [], "3600")
        if role.reads:
            statement = {"Effect": "Allow", "Action": list(_READS), "Resource": role.arn}
            iam.put_role_policy(
                role.name,
                "read-itself",
                json.dumps({"Version": "2012-10-17", "Statement": statement}),
            )
        role.unique_id, role.exists = made.id, True

    def retrust(self, role, trust):
        iam_backends[role.account]["aws"].update_assume_role_policy(
            role.name, json.dumps(trust.document())
        )
        role.trust = trust

    def remove(self, role):
        iam = iam_backends[role.account]["aws"]
        iam.roles[role.unique_id].policies.clear()
        iam.delete_role(role.name)
        role.exists = False

    # What is seen

    @property
    def calls(self):
        return self.aws.sts_calls

    def session(self, access_key_id):
        """What AWS knows of a session."""
        return self.aws._identities._sessions[access_key_id]

    def _next_transaction(self):
        query = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        return self._sql.execute(query).fetchone()[0]

    def new_issuances(self):
        """What the audit log says of hand-outs since this was asked last."""
        since, self._seen_events = self._seen_events, self._next_transaction()
        rows = self._sql.execute(
            "SELECT tenant_id, connection_id, actor_id, details, outcome FROM audit_events"
            " WHERE xmin::text::bigint >= %s AND action = 'credentials.issued' ORDER BY id",
            [since],
        ).fetchall()
        found = []
        for tenant_id, connection_id, key_id, details, outcome in rows:
            assert outcome == "ok"
            ids = map(str, (tenant_id, connection_id, key_id))
            found.append(Issued(*ids, details["access_key_id"], details["session_name"]))
        return found

    def rows(self, tenant):
        """The tenant's status; its External IDs with state and whether withdrawn; its connections
        with status, pair and whether they await approval.
        """
        which = [tenant.id]
        [(status,)] = self._sql.execute("SELECT status FROM tenants WHERE id = %s", which)
        ids = self._sql.execute(
            "SELECT value, state, withdrawn_at IS NOT NULL FROM external_ids WHERE tenant_id = %s",
            which,
        )
        connections = self._sql.execute(
            "SELECT c.id, c.status, e.value, c.approval_id IS NOT NULL FROM connections c"
            " JOIN external_ids e ON e.id = c.external_id_id WHERE c.tenant_id = %s",
            which,
        )
        return (
            status,
            {value: (state, withdrawn) for value, state, withdrawn in ids},
            {str(it): (status, pair, awaits) for it, status, pair, awaits in connections},
        )

    def clear(self, model, first_call):
        """So that the next run finds nothing due and no rotation that goes on, and nothing
        grows.
        """
        for role in model.roles:
            if role.exists:
                self.remove(role)
        arns = {role.arn for role in model.roles}
        sessions = self.aws._identities._sessions
        for key in [key for key, session in list(sessions.items()) if session.role.arn in arns]:
            del sessions[key]
        del self.calls[first_call:]
        with self.services.db.write(SYSTEM) as db:
            db.execute(update(Row).where(Row.due_at.is_not(None)).values(due_at=None))
            db.execute(update(ExternalIdRow).where(ROTATING).values(state=ExternalIdState.RETIRED))


def credentials_path(tenant, connection):
    return f"/v1/tenants/{tenant.id}/connections/{connection.id}/credentials"
