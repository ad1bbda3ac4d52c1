"""A pytest plugin: a call to AWS while a transaction is open fails the test, as a slow AWS must
never hold a lock.

Every request of the service to AWS passes one of three public places: `QueryApi.once` (STS, IAM),
`StackAnswers.send` (the answers to stacks), and the event that botocore emits before each request
of a boto3 client (S3, SQS, SNS).
"""

import threading
from collections.abc import Iterator

import botocore
import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from app.aws.query_api import QueryApi
from app.aws.stack_messages import StackAnswers


class _OpenConnections(threading.local):
    count = 0


_open = _OpenConnections()


@event.listens_for(Pool, "checkout")
def _checked_out(*_):
    _open.count += 1


@event.listens_for(
    Pool, "detach"
)  # the audit log's own, which holds no transaction between its statements
@event.listens_for(Pool, "checkin")
def _checked_in(*_):
    _open.count = max(0, _open.count - 1)


def _refuse_inside_a_transaction(**_):
    assert _open.count == 0, "AWS was called while a transaction was open"


def _guard(session):
    session.register("before-send", _refuse_inside_a_transaction)


@pytest.fixture(scope="session", autouse=True)
def no_aws_call_inside_a_transaction() -> Iterator[None]:
    """A database connection that this thread has taken from its pool counts as a transaction."""
    once, send = QueryApi.once, StackAnswers.send

    def guarded_once(*args):
        _refuse_inside_a_transaction()
        return once(*args)

    def guarded_send(*args):
        _refuse_inside_a_transaction()
        return send(*args)

    botocore.register_initializer(_guard)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QueryApi, "once", guarded_once)
        patch.setattr(StackAnswers, "send", guarded_send)
        yield
    botocore.unregister_initializer(_guard)
