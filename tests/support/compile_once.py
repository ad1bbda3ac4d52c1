"""A pytest plugin: libraries read and compile the same input once in a process.

Hundreds of tests have a service, and each service has sessions of botocore's and an engine of its
own.
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.hooks import HierarchicalEmitter
from botocore.session import Session
from flask import Flask
from jinja2 import BytecodeCache
from sqlalchemy import Engine, event


@pytest.fixture(scope="session", autouse=True)
def botocore_reads_its_files_once() -> Iterator[None]:
    """Share the descriptions of services, some megabytes of JSON, and the registration of
    botocore's own handlers.
    """
    emitter = HierarchicalEmitter()
    loader = Session(event_hooks=emitter).get_component("data_loader")

    def get_session(variables=None):
        session = Session(variables, copy.copy(emitter), include_builtin_handlers=False)
        session.register_component("data_loader", loader)
        return session

    with pytest.MonkeyPatch.context() as patch:
        for place in ("botocore.session", "app.aws.sts"):
            patch.setattr(f"{place}.get_session", get_session)
        yield


class _Compiled(dict[Any, Any]):
    """Compiled statements of all engines: SQLAlchemy's key begins with an engine's own dialect."""

    def get(self, key, default=None):
        return super().get((type(key[0]), *key[1:]), default)

    def __setitem__(self, key, value):
        super().__setitem__((type(key[0]), *key[1:]), value)


@pytest.fixture(scope="session", autouse=True)
def statements_are_compiled_once() -> Iterator[None]:
    compiled = _Compiled()

    def share(connection):
        connection.execution_options(compiled_cache=compiled)

    event.listen(Engine, "engine_connect", share)
    yield
    event.remove(Engine, "engine_connect", share)


class _Templates(BytecodeCache):
    def __init__(self):
        self._code = {}

    def load_bytecode(self, bucket):
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket):
        self._code[bucket.key, bucket.checksum] = bucket.code


@pytest.fixture(scope="session", autouse=True)
def templates_are_compiled_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Flask.jinja_options, "bytecode_cache", _Templates())
        yield
