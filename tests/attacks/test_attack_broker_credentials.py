"""The service without its AWS credentials, or with expired or wrong ones: not ready, and nothing
flips.
"""

import pytest

from tests.attacks.evidence import problem, shows_nothing
from tests.support.cast import Api, path_of

ABSENT = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": None}


def expired(world):
    session = world.aws.open_session(world.aws.broker_arn, "deputy", seconds=-60)
    return environment(session.access_key_id, session.secret_access_key, session.token)


def environment(key, secret, token=None):
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_SESSION_TOKEN": token,
        **ABSENT,
    }


WAYS = {
    "absent": lambda world: ABSENT,
    "expired": expired,
    "unknown": lambda world: environment("AKIAXXXXXXXXXXXXXXXX", "nothing"),
    "AWS out of reach": lambda world: {"AWS_ENDPOINT_URL": "http://localhost:9"},
}


@pytest.mark.parametrize("way", WAYS)
def test_without_the_brokers_credentials_the_service_is_not_ready_and_no_verdict_flips(
    world, start, monkeypatch, way
):
    verified = world.connection()
    tenant = world.tenant()
    role = world.role(tenant)
    api = Api(start(WAYS[way](world)), world.admin.key)
    assert set(problem(api.raw("GET", "/readyz"), 503, "unavailable")["errors"]) == {"aws"}
    api("GET", "/healthz")

    found = api("POST", path_of(verified, "/verify"))
    assert (found["status"], found["verification"]["verdict"]) == ("verified", "inconclusive")
    made = api("POST", f"/v1/tenants/{tenant['id']}/connections", {"role_arn": role}, expect=201)
    assert (made["status"], made["verification"]["verdict"]) == ("pending", "inconclusive")
    for connection in (found, made):
        shows_nothing(str(connection))
    problem(api.raw("POST", path_of(verified, "/credentials")), 503, "aws_unavailable")
    assert world.audit(connection_id=verified["id"], action="credentials.issued") == []

    monkeypatch.setenv("AWS_ENDPOINT_URL", world.aws.url)  # the environment is this whole process's
    # The same connection, by a process with its credentials: as if nothing had been.
    assert world.admin("POST", path_of(verified, "/credentials"))["AccessKeyId"]
    assert world.verify(made)["status"] == "verified"


def test_with_somebody_elses_credentials_no_verdict_flips(world, start):
    """Their refusals say nothing of the role: a wrong profile must not turn every customer's
    connection to broken.
    """
    verified = world.connection()
    api = Api(start(environment("123456789012", "sandbox")), world.admin.key)
    problem(api.raw("GET", "/readyz"), 503, "unavailable")
    assert api("POST", path_of(verified, "/verify"))["status"] == "verified"


def test_with_the_brokers_credentials_again_it_recovers_by_itself(world, start, tmp_path):
    """A service that started without credentials must not need a restart when they come."""
    made, file = world.connection(), tmp_path / "credentials"
    api = Api(start({**ABSENT, "AWS_SHARED_CREDENTIALS_FILE": str(file)}), world.admin.key)
    problem(api.raw("POST", path_of(made, "/credentials")), 503, "aws_unavailable")
    session = world.aws.open_session(world.aws.broker_arn, "deputy")
    file.write_text(
        "[default]\n"
        f"aws_access_key_id = {session.access_key_id}\n"
        f"aws_secret_access_key = {session.secret_access_key}\n"
        f"aws_session_token = {session.token}\n"
    )
    assert api("POST", path_of(made, "/credentials"))["AccessKeyId"]
