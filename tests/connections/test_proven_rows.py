"""The shortcut of World.connection() leaves the rows that a proof leaves, and so proves nothing
by itself.
"""

import json
import uuid
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy

from app.store.models.base import Base
from tests.support import proven
from tests.support.cast import path_of

DAY = timedelta(days=1)

# What no two connections share: ids, times, and what AWS and the customer call their things.
OWN = {
    "id",
    "tenant_id",
    "connection_id",
    "external_id_id",
    "proof_id",
    "role_arn",
    "account_id",
    "role_unique_id",
}


def rows_of(world, tenant, connection):
    """Every row that speaks of the tenant or of the connection, by table; times as seconds since
    it was made.
    """
    ids = {uuid.UUID(tenant["id"]), uuid.UUID(connection["id"])}
    found = {}
    with world.admin.app.extensions["deputy"].db.read() as db:
        for table in Base.metadata.sorted_tables:
            names = {"id", "tenant_id", "connection_id"} & set(table.c.keys())
            columns = [
                table.c[name] for name in names if table.c[name].type.python_type is uuid.UUID
            ]
            of_it = sqlalchemy.or_(sqlalchemy.false(), *(column.in_(ids) for column in columns))
            found[table.name] = [
                dict(row) for row in db.execute(table.select().where(of_it)).mappings()
            ]
    return {
        name: sorted((comparable(row, connection) for row in rows), key=str)
        for name, rows in found.items()
    }


def comparable(row, connection):
    made_at = datetime.fromisoformat(connection["created_at"])
    texts = {
        connection[name]: name for name in ("role_arn", "account_id", "external_id", "tenant_name")
    }
    return {name: alike(name, value, made_at, texts) for name, value in row.items()}


def alike(name, value, made_at, texts):
    if isinstance(value, datetime):
        return round((value - made_at).total_seconds() / 60)  # the schedule is in minutes
    if name in OWN:
        return type(value), len(str(value))
    text = json.dumps(value, default=str)
    for old, new in texts.items():
        text = text.replace(old, new)
    return "" if name in {"request_id", "number", "name_folded"} and value is not None else text


@pytest.fixture
def old_model(world, monkeypatch) -> None:
    """The one that is copied was proven yesterday."""
    world.connection()  # the first is really proven
    database = world.admin.app.extensions["deputy"].db
    model = proven._models[database]
    rows = [
        (
            table,
            {
                name: value - DAY if isinstance(value, datetime) else value
                for name, value in row.items()
            },
        )
        for table, row in model.rows
    ]
    monkeypatch.setitem(proven._models, database, replace(model, rows=rows))


@pytest.mark.usefixtures("old_model")
def test_the_rows_of_a_copied_connection_are_those_of_a_proof(world):
    real, short = world.tenant(), world.tenant()
    tried, copied = world.proven(real), world.connection(short)
    expected, found = rows_of(world, real, tried), rows_of(world, short, copied)
    assert {name for name, rows in found.items() if rows} >= {
        "connections",
        "proofs",
        "audit_events",
        "quota_uses",
    }
    for table in expected:
        assert found[table] == expected[table], table


@pytest.mark.usefixtures("old_model")
def test_a_copied_connection_is_at_the_role_that_it_names(world):
    """A proof finds the same, and the role lets the broker in for work."""
    copied = world.connection()
    assert world.calls_for(copied["role_arn"]) == []
    world.admin("POST", path_of(copied, "/credentials"))
    again = world.admin("POST", path_of(copied, "/verify"))
    assert again["verification"]["checks"] == copied["verification"]["checks"]
