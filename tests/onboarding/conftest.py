"""A vendor with permission sets of its own, and templates that are published once."""

from collections.abc import Callable, Iterator
from functools import partial
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.conftest import publish_templates
from tests.support.cast import root_client
from tests.support.shells import run_as
from tests.support.versions import MORE, READS, WRITES, Vendor


def opened(link):
    """Return what the console reads from a launch link."""
    return dict(parse_qsl(urlsplit(link).fragment.partition("?")[2], strict_parsing=True))


def set_of(world, name):
    """Return a permission set as the API shows it."""
    sets = world.admin("GET", "/v1/permission-sets")["items"]
    return next(permission_set for permission_set in sets if permission_set["name"] == name)


@pytest.fixture
def shell(aws, customer) -> Callable[..., CompletedProcess[str]]:
    """Runs a script in the customer's account."""
    return partial(run_as, aws, customer.account)


@pytest.fixture
def iam(aws, customer) -> Any:
    """IAM of the customer's account."""
    return root_client(aws, "iam", customer.account)


def new_vendor(aws, config, vendor, folder):
    """Return a vendor that has written version 1 of a set that reads and of one that writes."""
    seller = Vendor(aws, config.database.database_url, vendor, folder)
    seller.write(seller.reads, 1, READS)
    seller.write(seller.writes, 1, READS, WRITES, access="write")
    return seller


@pytest.fixture
def seller(aws, vendor, config, tmp_path) -> Vendor:
    """Nothing is published."""
    return new_vendor(aws, config, vendor, tmp_path)


@pytest.fixture(scope="module")
def shop(aws, vendor, config, tmp_path_factory) -> Iterator[Vendor]:
    """Published permission sets, and two processes that serve them: `app` and `other`.

    Two sets read and two write. Tests leave their versions as they are.
    """
    shop = new_vendor(aws, config, vendor, tmp_path_factory.mktemp("permission-sets"))
    shop.write(f"t{shop.reads}", 1, READS, MORE)
    shop.write(f"t{shop.writes}", 1, READS, WRITES, MORE, access="write")
    with shop.release() as (shop.world, shop.app), shop.release(publish=False) as (_, shop.other):
        yield shop


@pytest.fixture(scope="session")
def published(app) -> None:
    """The templates of the shipped permission sets are in the bucket, and recorded."""
    publish_templates(app)
