"""No secret that the suite issues is in what it logs; and a test that logs one fails."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

from app.identity import api_keys
from app.identity.scopes import ALL_SCOPES
from tests.conftest import OPERATOR
from tests.support import logged_secrets
from tests.support.cast import path_of

ROOT = Path(__file__).parent.parent
LOGS_ONE = """
import sys, pytest
from tests.support import logged_secrets

SECRET = "Mk3-q_Zt7wPx5Lr9vB2nY8dF4hJ6cS1gKa0uE"
logged_secrets.note("a made-up secret", SECRET)

@pytest.fixture
def late():
    yield
    print(f"url=https://x/?t={SECRET[4:]}&x", file=sys.stderr)

def test_says_nothing(): print("nothing", file=sys.stderr)
def test_says_it(): print(f"token={SECRET}", file=sys.stderr)
def test_says_it_at_its_end(late): pass
def test_writes_it(tmp_path):
    log = tmp_path / "log"
    logged_secrets.watch(log)
    log.write_text(f"<{SECRET[:30]}>")
def test_shows_it_to_a_person(): print(SECRET)
"""


def test_a_test_that_logs_a_secret_fails_and_does_not_show_it(tmp_path):
    (tmp_path / "test_one.py").write_text(LOGS_ONE)
    options = "-q -p tests.support.logged_secrets -p no:cacheprovider"
    options += f" -c /dev/null --rootdir {tmp_path} {tmp_path}"
    command = [sys.executable, "-m", "pytest", *options.split()]
    env = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert "1 failed, 4 passed, 2 errors" in output  # pytest calls what fails after a test an error
    assert "test_says_it logged a made-up secret (call)" in output
    assert "test_says_it_at_its_end logged a made-up secret (teardown)" in output
    assert "test_writes_it logged a made-up secret (teardown)" in output
    assert "q_Zt7wPx5Lr9vB2" not in output.replace(LOGS_ONE, "")


def test_this_suite_is_looked_through(request):
    assert request.config.pluginmanager.is_registered(logged_secrets)


def test_some_are_known_by_their_form():
    assert logged_secrets.kinds_in(f"Bearer {api_keys.generate_key()}")
    assert logged_secrets.kinds_in(f'"GET /onboard/{secrets.token_urlsafe(32)} HTTP/1.1"')
    assert logged_secrets.kinds_in(
        f"https://bucket.s3.amazonaws.com/x?X-Amz-Date=1&X-Amz-Signature={'0123' * 16}"
    )


def test_what_is_issued_is_known(app, world, config):
    tenant = world.tenant()
    connection = world.connection(tenant)
    _, key = app.extensions["deputy"].api_keys.create_key(
        OPERATOR, name="x", scopes=ALL_SCOPES, tenant_id=None, expires_at=None
    )
    session = world.worker(tenant)("POST", path_of(connection, "/credentials"))
    link = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)
    of_session = session["SecretAccessKey"], session["SessionToken"]
    token = link["url"].rpartition("/")[2]
    for secret in (key[-43:], *of_session, token, *config.database.secret_keys):
        assert logged_secrets.kinds_in(f"x={secret}"), secret[:4]
        assert logged_secrets.kinds_in(f"x={secret[3:27]}"), "a part of it too"
    assert not logged_secrets.kinds_in(
        f"{tenant['external_id']} {connection['role_arn']} {session['AccessKeyId']}"
    )
