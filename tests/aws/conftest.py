"""What the tests of the calls to STS and IAM share."""

from collections.abc import Iterator

import pytest

from tests.aws.fake_sts import FakeSts


@pytest.fixture(scope="module")
def http() -> Iterator[FakeSts]:
    server = FakeSts()
    yield server
    server.close()
