"""docs/install.md, "New keys": processes with the settings of two neighbouring steps run side by
side.
"""

import re
import uuid
from itertools import pairwise

import psycopg

from app.onboarding.registration_tokens import RegistrationTokens
from app.store.database import Database
from app.store.migrations import REVISION, revision
from dev.stack import ROOT
from tests.support.cast import Api
from tests.support.databases import empty_database, migrate

SECTION = (
    (ROOT / "docs" / "install.md").read_text().partition("\n## New keys\n")[2].partition("\n## ")[0]
)
KEYS = {
    "old": "the-old-key-of-the-tests-0123456789-abc",
    "new": "the-new-key-of-the-tests-0123456789-xyz",
}


def in_words(step):
    return tuple(KEYS[word] for word in step.split(","))


STEPS = ["old", *re.findall(r"^\d\. .*`((?:old|new),(?:old|new))`", SECTION, re.MULTILINE), "new"]


def test_the_guide_goes_in_three_steps():
    assert STEPS == ["old", "old,new", "new,old", "new"]


def test_each_step_verifies_what_its_neighbour_signs():
    for before, after in pairwise(STEPS):
        both = RegistrationTokens(in_words(before)), RegistrationTokens(in_words(after))
        for signer, reader in (both, both[::-1]):
            assert reader.read(signer.make(uuid.uuid4(), uuid.uuid4(), 1)) is not None, (
                before,
                after,
            )


def test_putting_the_new_key_first_at_once_would_not_do():
    token = RegistrationTokens(in_words("new,old")).make(uuid.uuid4(), uuid.uuid4(), 1)
    assert RegistrationTokens(in_words("old")).read(token) is None


def test_a_page_goes_on_at_a_process_of_the_neighbouring_step(start, world):
    world.tenant(), world.tenant()
    apps = [start({}, secret_keys=in_words(step)) for step in STEPS]
    for both in pairwise(apps):
        for first, second in (both, both[::-1]):
            cursor = Api(first, world.admin.key)("GET", "/v1/tenants?limit=1")["next_cursor"]
            assert Api(second, world.admin.key)("GET", f"/v1/tenants?limit=1&cursor={cursor}")[
                "items"
            ]


def test_a_second_login_role_works_as_the_owner_of_the_tables(tmp_path):
    """By the guide's statements, with names of this test's own."""
    with empty_database() as url:
        name = url.rpartition("/")[2]
        owner, second = f"owner_{name}", f"second_{name}"
        script = re.search(r"<!-- roles -->\n+```sql\n(.*?)```", SECTION, re.DOTALL)[1]
        script = (
            script.replace("deputy_b", second)
            .replace("'deputy'", f"'{owner}'")
            .replace("ROLE deputy;", f"ROLE {owner};")
        )
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute(f"CREATE ROLE {owner} LOGIN")
            admin.execute(f"ALTER DATABASE {name} OWNER TO {owner}")
            admin.execute(script)
            try:
                migrate(url.replace("postgres@", f"{second}@"))
                owners = admin.execute(
                    "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
                ).fetchall()
                assert owners == [(owner,)]
                database = Database(url.replace("postgres@", f"{owner}@"))
                assert revision(database) == REVISION, "the first role works on"
                database.engine.dispose()
            finally:
                admin.execute(f"REASSIGN OWNED BY {owner} TO CURRENT_USER")
                admin.execute(f"DROP OWNED BY {owner}, {second}")
                admin.execute(f"DROP ROLE {second}, {owner}")
