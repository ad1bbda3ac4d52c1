"""Rows without AWS: a proven connection, its tenant and its worker, where a test needs many; and
SQL by hand.
"""

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import sqlalchemy
from sqlalchemy.pool import NullPool

from app.clock import now
from app.identity.principals import ApiKeyPrincipal
from app.identity.scopes import ALL_SCOPES, Scope
from app.ids import RoleArn, new_external_id, new_id
from app.onboarding.registration_tokens import RegistrationTokens
from app.store.database import SYSTEM
from app.store.models import (
    Connection,
    ConnectionStatus,
    ExternalIdRow,
    ExternalIdState,
    OnboardingLink,
    Tenant,
)
from app.store.models.deployment import deployment_id
from tests.support.cast import OPERATOR


class _Rowless(ApiKeyPrincipal):
    """A key for tests below HTTP. It has no row that could be read again; what that read does
    is tested over HTTP.
    """

    def reauthorize(self, db):
        pass


ADMIN = _Rowless(
    key_id=new_id(),
    lookup="0" * 16,
    digest=b"",
    name="the tests",
    scopes=ALL_SCOPES,
    tenant_scope=None,
    expires_at=None,
    request_id=None,
)
ANYBODY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}],
}


@dataclass(frozen=True)
class Role:
    """An AWS role that accepts every call of our broker."""

    arn: str
    unique_id: str

    @classmethod
    def of(cls, customer, broker_arn, services):
        statement = ANYBODY["Statement"][0] | {"Principal": {"AWS": broker_arn}}
        trust = ANYBODY | {"Statement": [statement]}
        arn = customer.role(f"deputy-{secrets.token_hex(4)}", trust)
        found = services.verification._sts._assume_role(RoleArn.parse(arn), None)
        return cls(arn, found.role_unique_id)


NO_ROLE = Role("arn:aws:iam::444455556666:role/deputy-nowhere", "AROAEXAMPLEEXAMPLE01")


@dataclass(frozen=True)
class TenantRows:
    """A tenant with proven connections, and a worker's key for it."""

    tenant_id: UUID
    connection_ids: tuple[UUID, ...]
    key_id: UUID
    key: str

    @property
    def connection_id(self):
        return self.connection_ids[0]

    def path(self, what="/credentials", place=0):
        return f"/v1/tenants/{self.tenant_id}/connections/{self.connection_ids[place]}{what}"


def place(services, role=NO_ROLE, *, connections=1, bound=True):
    tenant = tenant_row(services.db)
    made = tuple(
        connection_row(services.db, tenant, role, number=number)
        for number in range(1, connections + 1)
    )
    key, text = services.api_keys.create_key(
        OPERATOR,
        name="a worker",
        scopes=frozenset({Scope.CREDENTIALS_ISSUE}),
        tenant_id=tenant if bound else None,
    )
    return TenantRows(tenant, made, key.id, text)


def tenant_row(database):
    tenant = Tenant(id=new_id(), name="Acme")
    with database.write(SYSTEM) as db:
        db.add(tenant)
        db.flush()
        db.add(
            ExternalIdRow(
                tenant_id=tenant.id, value=new_external_id(), state=ExternalIdState.CURRENT
            )
        )
    return tenant.id


def link_row(database, tenant_id, **changes):
    link = OnboardingLink(
        id=new_id(),
        tenant_id=tenant_id,
        digest=new_id().bytes * 2,
        permission_set="inventory",
        region="us-east-1",
        **{"expires_at": now() + timedelta(days=1)} | changes,
    )
    link_id = link.id
    with database.write(SYSTEM) as db:
        db.add(link)
    return link_id


def connection_row(database, tenant_id, role=NO_ROLE, *, number=1, **changes):
    arn = role.arn if number == 1 else f"{role.arn}-{number}"
    [made] = connection_rows(
        database, tenant_id, [{"role_arn": arn, "role_unique_id": role.unique_id, **changes}]
    )
    return made


def connection_rows(database, tenant_id, wanted):
    """Many in one transaction; each says of itself at least its role_arn and its role_unique_id."""
    with database.write(SYSTEM) as db:
        external_id = db.scalars(
            sqlalchemy.select(ExternalIdRow.id).where(ExternalIdRow.tenant_id == tenant_id)
        ).one()
        common = {
            "tenant_id": tenant_id,
            "external_id_id": external_id,
            "permission_set": "inventory",
            "status": ConnectionStatus.VERIFIED,
            "verified_at": now(),
        }
        made = [
            Connection(
                id=new_id(), **(common | {"account_id": one["role_arn"].split(":")[4]} | one)
            )
            for one in wanted
        ]
        db.add_all(made)
    return [connection.id for connection in made]


def registration_token(database, secret_keys, tenant_id, generation=1):
    """As this deployment's kit shows it."""
    with database.read() as db:
        return RegistrationTokens(secret_keys).make(deployment_id(db), tenant_id, generation)


class ByHand:
    """A SQL prompt on the database: no ORM and no pool of ours."""

    def __init__(self, url):
        self.engine = sqlalchemy.create_engine(url, poolclass=NullPool)

    def __call__(self, *statements, **values):
        """Run them in one transaction."""
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(sqlalchemy.text(statement), values)

    def rows(self, statement, **values):
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(statement), values)]

    def one(self, statement, **values):
        [(value,)] = self.rows(statement, **values)
        return value

    @property
    def counter(self):
        return self.one("SELECT revocation_counter FROM configuration")


def at_once(jobs):
    """Do all of them at the same time; what each returned, or raised."""
    jobs = list(jobs)
    ready = threading.Barrier(len(jobs))

    def run(job):
        ready.wait(60)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [pool.submit(run, job) for job in jobs]
        return [one.exception(timeout=120) or one.result() for one in running]


@contextmanager
def statements(database):
    """The statements that this database's engine executes meanwhile, with their parameters."""
    executed = []

    def note(*call):
        executed.append((call[2], call[3]))

    sqlalchemy.event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield executed
    finally:
        sqlalchemy.event.remove(database.engine, "before_cursor_execute", note)


def plan(database, ask, *, of=""):
    """How the database answers what `ask` asks last; `of`: of the table that the statement
    begins with.
    """
    with statements(database) as executed:
        ask()
    for statement, parameters in executed:
        if statement.startswith(f"SELECT {of}"):
            query = statement, parameters
    with database.engine.connect() as connection:
        rows = connection.exec_driver_sql("EXPLAIN " + query[0], query[1])
        return "\n".join(str(tuple(row)) for row in rows)
