"""The role that the onboarding kit makes. What is never assumed is in
tests/attacks/test_attack_role_arns.py.
"""

from uuid import UUID

import pytest

from app.connections.allowed_roles import allowed_role
from app.errors import ValidationFailedError
from app.ids import Broker
from tests.conftest import with_settings

TENANT = UUID("01890000-0000-7000-8000-0000deadbeef")


@pytest.mark.parametrize("partition", ["aws", "aws-us-gov"])
def test_the_kits_role_is_in_the_brokers_partition_and_is_allowed(app, monkeypatch, partition):
    connections = app.extensions["deputy"].connections
    broker = Broker.parse(f"arn:{partition}:iam::111122223333:role/DeputyBroker")
    config = with_settings(connections._config, broker=broker, role_prefix="acme-")
    monkeypatch.setattr(connections, "_config", config)
    arn = connections.kit_role_arn(TENANT, "444455556666", "bucket-sync")
    assert arn == f"arn:{partition}:iam::444455556666:role/acme-deadbeef-bucket-sync"
    assert allowed_role(config, arn).text == arn


def test_a_text_that_is_no_role_arn_is_refused_with_the_reason(config):
    with pytest.raises(ValidationFailedError) as refusal:
        allowed_role(config, "arn:aws:iam::444455556666:user/deputy-x")
    [reason] = refusal.value.errors["role_arn"]
    assert reason.startswith("This is not the ARN of an IAM role")
