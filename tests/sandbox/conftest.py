"""One sandbox for each test process. Roles and users get fresh names, so that tests do not meet."""

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from sandbox.server import Sandbox
from tests.sandbox.sandbox_people import VENDOR, People, statement
from tests.sandbox.sandbox_vendor import Stack, TopicReader


@pytest.fixture(scope="session")
def sandbox(aws) -> Sandbox:
    return aws


@pytest.fixture(scope="session")
def _people(sandbox) -> Iterator[People]:
    with ExitStack() as stack:
        people = People(sandbox, stack)
        people.broker = people.user(VENDOR, statement("sts:AssumeRole", Resource="*"))
        yield people


@pytest.fixture
def people(_people, sandbox) -> Iterator[People]:
    sandbox.sts_calls.clear()
    yield _people
    sandbox.faults.clear()


@pytest.fixture
def topic_reader(sandbox) -> Iterator[TopicReader]:
    """Reads what stacks send to a topic of its own."""
    with closing(TopicReader(sandbox)) as reader:
        yield reader


@pytest.fixture
def stack(sandbox, topic_reader) -> Iterator[Stack]:
    with closing(Stack(sandbox, topic_reader.topic)) as made:
        yield made
