"""The page does not tell whether a role exists: an absent one and one that refuses us are shown
and recorded alike.
"""

import json
import re

from tests.support.cast import Customer
from tests.web.conftest import visit

BY_ANOTHER_NAME = {
    "Effect": "Allow",
    "Action": "sts:AssumeRole",
    "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
}


def test_an_absent_role_and_one_that_refuses_us_are_shown_and_recorded_alike(world):
    absent, refusing = shown_and_recorded(world, None), shown_and_recorded(world, BY_ANOTHER_NAME)
    assert absent == refusing


def shown_and_recorded(world, statement):
    """The page after an account id was entered twice, and the tenant's audit events; without
    what differs anyhow.
    """
    tenant, customer = (
        world.admin("POST", "/v1/tenants", {"name": "Same"}, expect=201),
        Customer(world.aws),
    )
    visitor, kit = visit(world, tenant), world.kit(tenant)
    if statement is not None:
        customer.role(kit["role_name"], kit["trust_policy"] | {"Statement": [statement]})
    for _ in range(2):
        assert visitor.paste(customer.account).status_code == 303
    (connection,) = visitor.connections()
    page = visitor.raw().text
    events = [
        (event["action"], event["outcome"], event["details"])
        for event in world.audit(tenant_id=tenant["id"])
    ]
    own = (
        customer.account,
        kit["role_name"],
        kit["external_id"],
        connection["id"],
        tenant["id"],
        visitor.link_id,
    )
    return without(page, visitor.path, *own), without(json.dumps(events), *own)


def without(text, *own):
    for value in own:
        text = text.replace(value, "…")
    text = re.sub(r"seen=[0-9a-f]+", "seen=…", text)
    # In words; a clock goes on between two pages
    text = re.sub(r"\d{1,2} [A-Z][a-z]+ \d{4}, [0-9:]+ UTC", "…", text)
    return re.sub(r"\d{4}-\d\d-\d\d(T| )[0-9:.]+", "…", text)
