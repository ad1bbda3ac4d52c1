"""The role that the onboarding kit makes. What is never assumed is in tests/attacks/test_attack_role_arns.py."""

from dataclasses import replace
from uuid import UUID

import pytest

from app.config import Broker
from app.connections.allowed_roles import allowed_role
from app.connections.kit_names import kit_role_arn
from tests.conftest import make_config

TENANT = UUID("01890000-0000-7000-8000-0000deadbeef")


@pytest.mark.parametrize("partition", ["aws", "aws-us-gov"])
def test_the_kits_role_is_in_the_brokers_partition_and_is_allowed(partition: str):
    broker = Broker.parse(f"arn:{partition}:iam::111122223333:role/DeputyBroker")
    config = replace(make_config("sqlite://"), broker=broker, role_prefix="acme-")
    arn = kit_role_arn(config, TENANT, "444455556666", "-billing")
    assert arn == f"arn:{partition}:iam::444455556666:role/acme-deadbeef-billing"
    assert allowed_role(config, arn).text == arn
