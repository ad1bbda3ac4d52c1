"""A broker that is an IAM user with access keys: no role chaining, so sessions of up to 12
hours.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from app.config import Broker
from app.factory import create_app
from app.identity.scopes import ALL_SCOPES
from app.ids import new_id
from sandbox.vendor import VENDOR_ACCOUNT
from tests.conftest import OPERATOR, make_config
from tests.support.cast import Api, Customer, World, path_of, root_client
from tests.support.databases import new_database

if TYPE_CHECKING:
    from sandbox.server import Sandbox

HOUR = 3600
MAY_ASSUME = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "arn:aws:iam::*:role/deputy-*"}
    ],
}


@dataclass(frozen=True)
class User:
    arn: str
    key: dict[str, str]

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": self.key["SecretAccessKey"],
        }


def make_user(aws: Sandbox, name: str) -> User:
    with closing(root_client(aws, "iam", VENDOR_ACCOUNT)) as iam:
        arn = iam.create_user(UserName=name, Path="/deputy/")["User"]["Arn"]
        iam.put_user_policy(
            UserName=name, PolicyName="assume", PolicyDocument=json.dumps(MAY_ASSUME)
        )
        return User(arn, iam.create_access_key(UserName=name)["AccessKey"])


@pytest.fixture(scope="module")
def user(aws: Sandbox) -> User:
    return make_user(aws, f"deputy-broker-{new_id().hex}")  # a process may set this file up twice


@pytest.fixture(scope="module")
def users_world(aws: Sandbox, user: User) -> Iterator[World]:
    """A Deputy of its own whose broker is the user, with 12 hours as its ceiling."""
    with new_database("sqlite") as url:
        app = create_app(
            make_config(url, broker=Broker.parse(user.arn), max_session_seconds=12 * HOUR)
        )
        services = app.extensions["deputy"]
        _, key = services.api_keys.create_key(
            OPERATOR, name="admin", scopes=ALL_SCOPES, tenant_id=None, expires_at=None
        )
        admin = Api(app, key)
        with as_user(
            user
        ):  # its AWS client is made at the first call, with the credentials of that moment
            admin("GET", "/readyz")
        yield World(aws, admin)
        services.db.engine.dispose()


class as_user:  # noqa: N801  reads as a function
    """The AWS environment of a process that runs with this user's access keys, and nothing else."""

    def __init__(self, user: User) -> None:
        self._user = user
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        self._patch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        for name, value in self._user.environment().items():
            self._patch.setenv(name, value)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


def role_for(world: World, tenant: dict[str, Any], **options: Any) -> dict[str, Any]:
    return world.connect(tenant, world.role(tenant, **options))


def test_the_service_is_ready_and_its_kit_asks_customers_to_trust_the_user_for_12_hours(
    users_world: World, user: User
):
    assert users_world.admin.with_key(None)("GET", "/readyz")["status"] == "ok"
    tenant = users_world.tenant()
    kit = users_world.kit(tenant)
    assert kit["broker_principal_arn"] == user.arn
    (statement,) = kit["trust_policy"]["Statement"]
    assert statement["Condition"]["ArnEquals"]["aws:PrincipalArn"] == user.arn
    for form in (kit["terraform"], kit["aws_cli"]):
        assert str(12 * HOUR) in form
    del statement["Condition"]["StringEquals"]  # and proves the External ID as strictly
    role = Customer(users_world.aws).role(kit["role_name"], kit["trust_policy"])
    users_world.connect(tenant, role, status="insecure")
    assert {call.caller_arn for call in users_world.calls_for(role)} == {user.arn}
    template = users_world.admin.raw("GET", "/v1/templates/customer-role.yaml").text
    assert f"MaxSessionDuration: {12 * HOUR}" in template
    assert user.arn in template


def test_a_role_that_allows_12_hours_gives_them(users_world: World, user: User):
    connection = role_for(users_world, users_world.tenant(), MaxSessionDuration=12 * HOUR)
    issued = users_world.admin(
        "POST", path_of(connection, "/credentials"), {"duration_seconds": 12 * HOUR}
    )
    left = dt.datetime.fromisoformat(issued["Expiration"]) - dt.datetime.now(dt.UTC)
    assert 12 * HOUR - 60 < left.total_seconds() <= 12 * HOUR
    call = users_world.calls_for(connection["role_arn"])[-1]
    assert (call.caller_arn, call.duration, call.outcome) == (user.arn, 12 * HOUR, "allowed")
    event = users_world.audit(connection_id=connection["id"], action="credentials.issued")[0]
    assert event["details"]["duration_seconds"] == 12 * HOUR


def test_a_refused_duration_is_the_requests_fault_and_leaves_the_connection_verified(
    users_world: World,
):
    connection = role_for(users_world, users_world.tenant())
    path = path_of(connection, "/credentials")
    wanted = {"duration_seconds": 2 * HOUR}
    problem = users_world.admin.refused("POST", path, wanted, expect=422, code="validation_failed")
    assert "role's own maximum" in problem["errors"]["duration_seconds"][0]
    assert users_world.calls_for(connection["role_arn"])[-1].duration == 2 * HOUR
    assert users_world.admin("GET", path_of(connection))["status"] == "verified"
    assert users_world.admin("POST", path)["AccessKeyId"].startswith("ASIA")
    assert users_world.calls_for(connection["role_arn"])[-1].duration == HOUR


def test_a_diagnosis_says_that_a_role_allows_less_than_workers_may_ask_for(
    users_world: World, user: User
):
    tenant, customer = users_world.tenant(), Customer(users_world.aws)
    kit = users_world.kit(tenant)
    with as_user(user):
        made = users_world.connect(
            tenant, customer.reading_itself(kit["role_name"], kit["trust_policy"])
        )

        def diagnosed() -> tuple[dict[str, Any], dict[str, Any]]:
            diagnosis = users_world.admin("POST", path_of(made, "/diagnose"))
            steps = {step["name"]: step for step in diagnosis["steps"]}
            return diagnosis, steps["session_duration"]

        diagnosis, step = diagnosed()
        assert (step["outcome"], diagnosis["conclusion"]) == ("problem", step["detail"])
        assert "3600 s at most" in step["detail"]
        assert step["fix"].startswith(
            "Customer: set the role's maximum session duration to 43200 s."
        )
        with closing(root_client(users_world.aws, "iam", customer.account)) as iam:
            iam.update_role(RoleName=kit["role_name"], MaxSessionDuration=43_200)
        assert diagnosed()[1]["outcome"] == "ok"
