"""What the tests of the calls to STS and IAM share."""

from collections.abc import Iterator

import pytest

from app.aws.sts import Sts
from tests.aws.fake_sts import OWN_KEYS, FakeSts, new_sts


@pytest.fixture(scope="module")
def http() -> Iterator[FakeSts]:
    server = FakeSts()
    yield server
    server.close()


@pytest.fixture(scope="module")
def sts(http) -> Iterator[Sts]:
    """The door before the server, made once: finding the endpoint takes longer than a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**OWN_KEYS, "AWS_ENDPOINT_URL": http.url}.items():
            patch.setenv(name, value)
        sts = new_sts()
        sts._api.own_credentials()  # they are looked for at the first call
    yield sts
    for api in (sts._api, sts._iam):
        api._pool.close()
