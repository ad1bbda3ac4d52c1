"""A vendor with permission sets of its own, and templates that are published once."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from flask import Flask

from tests.conftest import publish_templates
from tests.support.cast import World
from tests.support.versions import MORE, READS, WRITES, Vendor


@dataclass(frozen=True)
class Shop:
    """Published permission sets of one vendor, and two processes that serve them.

    Two sets read and two write. Tests leave their versions as they are.
    """

    seller: Vendor
    world: World
    app: Flask
    other: Flask

    @property
    def reads(self):
        return self.seller.reads

    @property
    def writes(self):
        return self.seller.writes


def write_two(seller):
    """Write version 1 of the set that reads and of the set that writes."""
    seller.write(seller.reads, 1, READS)
    seller.write(seller.writes, 1, READS, WRITES, access="write")
    return seller


@pytest.fixture
def seller(aws, vendor, config, tmp_path) -> Vendor:
    """Nothing is published."""
    return write_two(Vendor(aws, config.database.database_url, vendor, tmp_path))


@pytest.fixture(scope="module")
def shop(aws, vendor, config, tmp_path_factory) -> Iterator[Shop]:
    seller = write_two(
        Vendor(
            aws, config.database.database_url, vendor, tmp_path_factory.mktemp("permission-sets")
        )
    )
    seller.write(f"t{seller.reads}", 1, READS, MORE)
    seller.write(f"t{seller.writes}", 1, READS, WRITES, MORE, access="write")
    with seller.release() as (world, app), seller.release(publish=False) as (_, other):
        yield Shop(seller, world, app, other)


@pytest.fixture(scope="session")
def published(app) -> None:
    """The templates of the shipped permission sets are in the bucket, and recorded."""
    publish_templates(app)
