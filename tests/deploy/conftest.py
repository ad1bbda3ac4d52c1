"""The images of deploy/Dockerfile, built once; the tests of this folder start what they run, by
the guide's commands.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev.postgres import others_can_enter
from dev.stack import ROOT
from sandbox.vendor import VENDOR_ACCOUNT
from tests.honesty.front import Aws
from tests.support.cast import root_client
from tests.support.image import Image

DOCUMENT = (ROOT / "docs" / "deployment.md").read_text()


def commands(name):
    """The commands of the guide below the comment of that name."""
    return re.search(rf"<!-- {name} -->\n+```sh\n(.*?)```", DOCUMENT, re.DOTALL)[1]


def of_gunicorn(setting):
    text = (ROOT / "gunicorn.conf.py").read_text()
    return int(re.search(rf"^{setting} = (\d+)", text, re.MULTILINE)[1])


@contextmanager
def open_folder():
    """One that the image's user can enter, which pytest's own folders are not."""
    usual = Path(tempfile.gettempdir())
    parent = usual if others_can_enter(usual) else "/var/tmp"  # noqa: S108
    folder = Path(tempfile.mkdtemp(prefix="deputy-image-", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path, _, _ in os.walk(folder):
            Path(path).chmod(0o755)
        shutil.rmtree(folder)


def exit_code_of_health_check(image, port):
    words = [word.replace(":8000", f":{port}") for word in image.health]
    return image.start(words, {}, stderr=subprocess.DEVNULL).wait(30)


@pytest.fixture(scope="package")
def image() -> Iterator[Image]:
    with open_folder() as folder:
        yield Image(folder).build()


@pytest.fixture(scope="package")
def publish_image(image) -> Iterator[Image]:
    with open_folder() as folder:
        yield Image(folder, "publish", base=image.at / "base").build()


@pytest.fixture(scope="package")
def publisher(aws, vendor) -> dict[str, str]:
    """Credentials of a user who has the policy TemplatePublisher of broker.yaml, and no other."""
    iam = root_client(aws, "iam", VENDOR_ACCOUNT)
    policies = iam.list_policies(Scope="Local")["Policies"]
    [arn] = [one["Arn"] for one in policies if "TemplatePublisher" in one["PolicyName"]]
    iam.create_user(UserName="publisher")
    iam.attach_user_policy(UserName="publisher", PolicyArn=arn)
    key = iam.create_access_key(UserName="publisher")["AccessKey"]
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }


@pytest.fixture(scope="package")
def front() -> Iterator[Aws]:
    with Aws() as front:
        yield front


@pytest.fixture(scope="package")
def settings(aws, vendor, front) -> dict[str, str]:
    """What settings.env has, and what leads to the tests' AWS: its S3 is the sandbox."""
    example = (ROOT / "deploy" / "settings.env.example").read_text()
    given = dict(re.findall(r"^(\w+)=([^…\n]*)$", re.sub('[<>"]', "", example), re.MULTILINE))
    bucket = {"AWS_ENDPOINT_URL_S3": aws.url, "DEPUTY_TEMPLATE_BUCKET": vendor.template_bucket}
    return given | front.environment | bucket
