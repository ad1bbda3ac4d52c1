"""`templates publish` records what it publishes, so without its tables, or without the database, it publishes nothing."""

from contextlib import closing

import pytest
from alembic import command

from app.factory import create_app
from app.store.database import Database
from app.store.migrations import alembic_config
from sandbox.vendor import VENDOR_ACCOUNT
from tests.conftest import make_config
from tests.onboarding.test_vendor_sets import publish
from tests.support.cast import root_client
from tests.support.databases import empty_database, new_database
from tests.support.versions import READS, Vendor

AWAY = ["postgresql+psycopg://deputy@127.0.0.1:1/deputy", "sqlite:////nonexistent/deputy.sqlite3"]


@pytest.fixture
def said_by(aws, vendor, tmp_path):
    """What the command says, which fails, with a database; and that nothing was uploaded."""

    def run(database_url: str) -> str:
        seller = Vendor(aws, database_url, vendor, tmp_path)
        seller.write(seller.reads, 1, READS)
        app = create_app(make_config(database_url, permission_sets=tmp_path))
        said = publish(app, fails=1)
        app.extensions["deputy"].db.engine.dispose()
        with closing(root_client(aws, "s3", VENDOR_ACCOUNT)) as s3:
            found = s3.list_objects_v2(Bucket=f"deputy-templates-{VENDOR_ACCOUNT}").get("Contents", [])
        assert [one["Key"] for one in found if seller.reads in one["Key"]] == []
        assert "Traceback" not in said
        return said

    return run


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.parametrize("until", [None, "0024"], ids=["no-tables", "an-older-schema"])
def test_a_database_that_is_not_migrated(said_by, tmp_path_factory, engine: str, until: str | None):
    with empty_database(engine, tmp_path_factory.mktemp("empty")) as url:
        if until:
            db = Database(url)
            command.upgrade(alembic_config(db), until)
            db.engine.dispose()
        assert said_by(url) == (
            "Error: Nothing was published: the database's schema is not this release's. Run: flask --app wsgi migrate\n"
        )


@pytest.mark.parametrize("url", AWAY, ids=["postgresql", "sqlite"])
def test_a_database_that_is_away(said_by, url: str):
    assert said_by(url) == "Error: Nothing was published. The database can't be reached right now; try again.\n"


def test_an_earlier_release_publishes_beside_a_newer_schema(aws, vendor):
    """Its processes work with that schema too, until they are replaced."""
    with new_database("sqlite") as url:
        app = create_app(make_config(url))
        with app.extensions["deputy"].db.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        assert "customer-role" in publish(app)
        app.extensions["deputy"].db.engine.dispose()


def test_what_is_published_is_looked_at_without_a_database(vendor):
    """As customers read it."""
    app = create_app(make_config(AWAY[0]))
    done = app.test_cli_runner().invoke(args=["templates", "publish", "--check"])
    assert "customer-role" in done.output
    assert "database" not in done.output
    app.extensions["deputy"].db.engine.dispose()
