"""The module in terraform/ and the kit's file, by a real Terraform with a real provider for AWS: in
the form of `terraform fmt`, valid, and applied in a customer's account.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from app.permissions import permission_sets
from tests.attacks.evidence import on_sqlite
from tests.support.terraform import Configuration, formatted, mirror

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
        yield


def test_the_module_and_its_example_are_in_the_form_of_terraform_fmt():
    assert len(FILES) == 8
    readme = (MODULE / "README.md").read_text()
    for text in (*map(Path.read_text, FILES), *re.findall(r"```hcl\n(.*?)```", readme, re.DOTALL)):
        assert formatted(text) == text


@on_sqlite  # Terraform sees no difference between databases
@pytest.mark.usefixtures("_provider")
def test_the_example_makes_a_role_that_deputy_proves(world, customer, iam, tmp_path):
    kit = world.kit(tenant := world.tenant())
    module = tmp_path / "terraform"
    shutil.copytree(MODULE, module)
    example = Configuration(module / "examples" / "inventory", world.aws, customer.account)
    assert example.is_valid()
    names = ("external_id", "role_name", "broker_principal_arn")
    values = {name: kit[name] for name in names}
    wrong = example.refusal(**values | {"external_id": "dpy-*"})
    assert "exactly as the vendor shows it" in re.sub(r"[\s│]+", " ", wrong)
    made = example.apply(**values)
    connection = world.connect(tenant, made["role_arn"])
    assert connection["account_id"] == customer.account
    assert connection["permission_set_version"] == 1
    assert connection["verification"]["warnings"] == []
    assert example.is_complete(**values)
    example.destroy(**values)
    assert iam.list_roles()["Roles"] == []


def test_the_examples_policy_is_the_permission_sets():
    permission_set = permission_sets.load()["inventory"]
    assert json.loads((EXAMPLE / "permissions.json").read_text()) == permission_set.policy("aws")
    asked = re.search(r'permission_set *= "(.*)"', (EXAMPLE / "main.tf").read_text())[1]
    assert asked == f"inventory@{permission_set.version}"


@on_sqlite  # Terraform sees no difference between databases
@pytest.mark.usefixtures("_provider")
def test_the_kits_file_makes_a_role_that_deputy_proves(world, customer, tmp_path):
    kit = world.kit(tenant := world.tenant())
    (tmp_path / "role.tf").write_text(kit["terraform"])
    role = Configuration(tmp_path, world.aws, customer.account)
    assert role.is_valid()
    made = role.apply()
    connection = world.connect(tenant, made["role_arn"])
    assert connection["permission_set_version"] == 1
    assert connection["verification"]["warnings"] == []
    assert role.is_complete()


def test_the_module_has_the_files_that_a_registry_expects():
    for name in ("main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md"):
        for folder in (MODULE, EXAMPLE):
            assert (folder / name).is_file(), folder / name
    assert (MODULE / "LICENSE").read_text() == (MODULE.parent / "LICENSE").read_text()
