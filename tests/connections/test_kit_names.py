"""The names of a role's stacks."""

from app.connections.kit_names import KitNames, names_of
from app.ids import new_id
from tests.conftest import make_config


def test_a_role_and_its_stacks_keep_their_names_under_a_shorter_prefix():
    config, tenant_id = make_config("sqlite://", role_prefix="acme-"), new_id()
    name = f"acme-deputy-{tenant_id.hex[-8:]}-inventory"
    role_arn, new = f"arn:aws:iam::111122223333:role/{name}", KitNames("new", "new", "new")
    assert names_of(config, tenant_id, role_arn, new) == (name, name, f"{name}-organization")
