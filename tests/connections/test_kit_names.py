"""The names of a role's stacks."""

from app.connections.kit_names import KitNames, names_of
from app.ids import new_id
from tests.conftest import make_config
from tests.support.databases import NOWHERE


def test_a_role_and_its_stacks_keep_their_names_under_a_shorter_prefix():
    config, tenant_id = make_config(NOWHERE, role_prefix="acme-"), new_id()
    name = f"acme-deputy-{tenant_id.hex[-8:]}-inventory"
    roles, new = "arn:aws:iam::111122223333:role/", KitNames("new", "new", "new")
    names = names_of(config, tenant_id, f"{roles}{name}", new)
    assert names == (name, name, f"{name}-organization")
    imported = f"imported-{name}"
    assert names_of(config, tenant_id, f"{roles}{imported}", new) == (imported, "new", "new")
