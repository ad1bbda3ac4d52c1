"""The module in terraform/ and the kit's file, by a real Terraform with a real provider for AWS: in
the form of `terraform fmt`, valid, and applied in a customer's account.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from app.permissions import permission_sets
from tests.support.terraform import Configuration, formatted, mirror, refusals

MODULE = Path(__file__).parents[2] / "terraform"
EXAMPLE = MODULE / "examples" / "inventory"
FILES = sorted(MODULE.rglob("*.tf"))


@pytest.fixture(scope="module")
def _provider(request, tmp_path_factory):
    """Terraform takes the provider from the wheel, and asks nobody for newer ones."""
    folder = mirror(request.config.cache.mkdir("terraform"))
    settings = tmp_path_factory.mktemp("terraform") / "terraformrc"
    settings.write_text(
        f'provider_installation {{\n  filesystem_mirror {{\n    path = "{folder}"\n  }}\n}}\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_CLI_CONFIG_FILE", str(settings))
        patch.setenv("CHECKPOINT_DISABLE", "1")
        patch.setenv("GOGC", "400")  # the provider is large and lives for a second
        yield


def test_the_module_and_its_example_are_in_the_form_of_terraform_fmt():
    assert len(FILES) == 8
    readme = (MODULE / "README.md").read_text()
    texts = [*map(Path.read_text, FILES), *re.findall(r"```hcl\n(.*?)```", readme, re.DOTALL)]
    assert formatted(*texts) == texts


THE_KITS = """
module "kit" {
  source = "./kit"
}

output "kits_role_arn" {
  value = module.kit.role_arn
}
"""


def of_example_and_kit(world, account, written, folder):
    """The example as the root module, and the kit's file as a module of it."""
    module = folder / "terraform"
    shutil.copytree(MODULE, module)
    example = module / "examples" / "inventory"
    (example / "kit.tf").write_text(THE_KITS)
    (example / "kit").mkdir()
    (example / "kit" / "role.tf").write_text(written)
    return Configuration(example, world.aws, account)


@pytest.mark.usefixtures("_provider")
def test_the_example_and_the_kits_file_make_roles_that_deputy_proves(
    world, customer, iam, tmp_path
):
    tenants = [world.tenant(), world.tenant()]
    kit, other = map(world.kit, tenants)
    roles = of_example_and_kit(world, customer.account, other["terraform"], tmp_path)
    names = ("external_id", "role_name", "broker_principal_arn")
    values = {name: kit[name] for name in names}
    made = roles.apply(**values)
    for tenant, output in zip(tenants, ("role_arn", "kits_role_arn"), strict=True):
        connection = world.connect(tenant, made[output])
        assert connection["account_id"] == customer.account
        assert connection["permission_set_version"] == 1
        assert connection["verification"]["warnings"] == []
    assert roles.is_complete(**values)
    roles.destroy(**values)
    assert iam.list_roles()["Roles"] == []


def test_the_module_refuses_a_wrong_external_id_and_no_other_value():
    values = {
        "external_id": "dpy-*",
        "role_name": "deputy-1a2b3c4d",
        "broker_principal_arn": "arn:aws:iam::123456789012:role/AcmeBroker",
        "vendor_name": "Acme",
        "permissions_policy": '{"Statement": []}',
    }
    [said] = refusals(MODULE / "variables.tf", **values)
    assert "exactly as the vendor shows it" in said


def test_the_examples_policy_is_the_permission_sets():
    permission_set = permission_sets.load()["inventory"]
    assert json.loads((EXAMPLE / "permissions.json").read_text()) == permission_set.policy("aws")
    asked = re.search(r'permission_set *= "(.*)"', (EXAMPLE / "main.tf").read_text())[1]
    assert asked == f"inventory@{permission_set.version}"


def test_the_module_has_the_files_that_a_registry_expects():
    for name in ("main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md"):
        for folder in (MODULE, EXAMPLE):
            assert (folder / name).is_file(), folder / name
    assert (MODULE / "LICENSE").read_text() == (MODULE.parent / "LICENSE").read_text()
