"""A broker that is an IAM user with access keys: no role chaining, so sessions of up to 12
hours.
"""

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from app.factory import create_app
from app.identity.scopes import ALL_SCOPES
from app.ids import Broker, new_id
from sandbox.vendor import VENDOR_ACCOUNT
from tests.conftest import OPERATOR, make_config
from tests.support.cast import Api, Customer, World, path_of, root_client
from tests.support.databases import new_database

HOUR = 3600
MAY_ASSUME = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "arn:aws:iam::*:role/deputy-*"}
    ],
}


@pytest.fixture(scope="module")
def users_world(aws) -> Iterator[World]:
    """A Deputy of its own whose broker is a user, with 12 hours as its ceiling."""
    name = f"deputy-broker-{new_id().hex}"  # a process may set this file up twice
    with closing(root_client(aws, "iam", VENDOR_ACCOUNT)) as iam:
        arn = iam.create_user(UserName=name, Path="/deputy/")["User"]["Arn"]
        policy = json.dumps(MAY_ASSUME)
        iam.put_user_policy(UserName=name, PolicyName="assume", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
    with new_database() as url, pytest.MonkeyPatch.context() as environment:
        config = make_config(url, broker=Broker.parse(arn), max_session_seconds=12 * HOUR)
        app = create_app(config)
        services = app.extensions["deputy"]
        _, text = services.api_keys.create_key(
            OPERATOR, name="admin", scopes=ALL_SCOPES, tenant_id=None, expires_at=None
        )
        environment.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        environment.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        environment.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        Api(app, text)("GET", "/readyz")
        yield World(aws, Api(app, text))
        services.db.engine.dispose()


@pytest.fixture
def user_arn(users_world) -> str:
    return str(users_world.admin.app.extensions["deputy"].config.aws.broker.arn)


def test_the_service_is_ready_and_its_kit_asks_customers_to_trust_the_user_for_12_hours(
    users_world, user_arn
):
    assert users_world.admin.with_key(None)("GET", "/readyz")["status"] == "ok"
    tenant = users_world.tenant()
    kit = users_world.kit(tenant)
    assert kit["broker_principal_arn"] == user_arn
    (statement,) = kit["trust_policy"]["Statement"]
    assert statement["Condition"]["ArnEquals"]["aws:PrincipalArn"] == user_arn
    for form in (kit["terraform"], kit["aws_cli"]):
        assert str(12 * HOUR) in form
    del statement["Condition"]["StringEquals"]  # and proves the External ID as strictly
    role = Customer(users_world.aws).role(kit["role_name"], kit["trust_policy"])
    users_world.connect(tenant, role, status="insecure")
    assert {call.caller_arn for call in users_world.calls_for(role)} == {user_arn}
    template = users_world.admin.raw("GET", "/v1/templates/customer-role.yaml").text
    assert f"MaxSessionDuration: {12 * HOUR}" in template
    assert user_arn in template


def test_a_role_that_allows_12_hours_gives_them(users_world, user_arn):
    tenant, customer = users_world.tenant(), Customer(users_world.aws)
    kit = users_world.kit(tenant)
    role = customer.reading_itself(
        kit["role_name"], kit["trust_policy"], MaxSessionDuration=12 * HOUR
    )
    connection = users_world.connect(tenant, role)
    issued = users_world.admin(
        "POST", path_of(connection, "/credentials"), {"duration_seconds": 12 * HOUR}
    )
    left = dt.datetime.fromisoformat(issued["Expiration"]) - dt.datetime.now(dt.UTC)
    assert 12 * HOUR - 60 < left.total_seconds() <= 12 * HOUR
    call = users_world.calls_for(connection["role_arn"])[-1]
    assert (call.caller_arn, call.duration, call.outcome) == (user_arn, 12 * HOUR, "allowed")
    event = users_world.audit(connection_id=connection["id"], action="credentials.issued")[0]
    assert event["details"]["duration_seconds"] == 12 * HOUR
    diagnosis = users_world.admin("POST", path_of(connection, "/diagnose"))
    [step] = [step for step in diagnosis["steps"] if step["name"] == "session_duration"]
    assert step["detail"].startswith("The role allows sessions of 43200 s,")


def test_a_refused_duration_is_the_requests_fault_and_leaves_the_connection_verified(users_world):
    tenant = users_world.tenant()
    connection = users_world.connect(tenant, users_world.role(tenant))
    path = path_of(connection, "/credentials")
    wanted = {"duration_seconds": 2 * HOUR}
    problem = users_world.admin.refused("POST", path, wanted, expect=422, code="validation_failed")
    assert "role's own maximum" in problem["errors"]["duration_seconds"][0]
    assert users_world.calls_for(connection["role_arn"])[-1].duration == 2 * HOUR
    assert users_world.admin("GET", path_of(connection))["status"] == "verified"
    assert users_world.admin("POST", path)["AccessKeyId"].startswith("ASIA")
    assert users_world.calls_for(connection["role_arn"])[-1].duration == HOUR
