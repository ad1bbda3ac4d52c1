"""One sandbox for each test process. Roles and users get fresh names, so that tests do not meet."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sandbox.server import Sandbox
from tests.sandbox.sandbox_people import VENDOR, People, statement


@pytest.fixture(scope="session")
def sandbox(aws: Sandbox) -> Sandbox:
    return aws


@pytest.fixture(scope="session")
def _people(sandbox: Sandbox) -> Iterator[People]:
    with ExitStack() as stack:
        people = People(sandbox, stack)
        people.broker = people.user(VENDOR, statement("sts:AssumeRole", Resource="*"))
        yield people


@pytest.fixture
def people(_people: People, sandbox: Sandbox) -> Iterator[People]:
    sandbox.sts_calls.clear()
    yield _people
    sandbox.faults.clear()
