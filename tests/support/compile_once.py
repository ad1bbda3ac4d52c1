"""A pytest plugin: what libraries make of the same input is made once in a process.

Hundreds of tests have a service, and each service has boto3 clients, an engine and routes of its own.
"""

from collections.abc import Callable, Hashable, Iterator
from functools import cache
from typing import Any

import pytest
from botocore import hooks, regions
from botocore.client import ClientCreator
from botocore.loaders import Loader
from sqlalchemy import Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache
from werkzeug.routing import Rule


def once(function: Callable[..., Any], key: Callable[..., Hashable]) -> Callable[..., Any]:
    """The function, called once for each key of its arguments."""
    known: dict[Hashable, Any] = {}

    def ask(*args: object, **kwargs: object) -> object:
        wanted = key(*args, **kwargs)
        if wanted not in known:
            known[wanted] = function(*args, **kwargs)
        return known[wanted]

    return ask


@pytest.fixture(scope="session", autouse=True)
def botocore_reads_its_files_once() -> Iterator[None]:
    """Each of its sessions reads some megabytes of JSON, inspects its functions and renames its events, and each of its
    clients makes a model, methods and endpoint rules of that JSON: all the same.
    """
    read: dict[object, object] = {}
    alias = cache(hooks.EventAliaser(None)._alias_event_name)
    methods = once(ClientCreator._create_methods, lambda _, model: model)
    with pytest.MonkeyPatch.context() as patch:
        model = once(ClientCreator._load_service_model, lambda _, *wanted: wanted)
        patch.setattr(ClientCreator, "_load_service_model", model)
        patch.setattr(ClientCreator, "_create_methods", lambda *given: dict(methods(*given)))  # boto3 adds some
        rules = once(regions.EndpointProvider, lambda **given: id(given["ruleset_data"]))  # read once
        patch.setattr(regions, "EndpointProvider", rules)
        patch.setattr(Loader, "_cache", property(lambda _: read, lambda *_: None), raising=False)
        patch.setattr(hooks, "accepts_kwargs", cache(hooks.accepts_kwargs))
        patch.setattr(hooks.EventAliaser, "_alias_event_name", lambda _, name: alias(name))
        yield


@pytest.fixture(scope="session", autouse=True)
def statements_and_routes_are_compiled_once() -> Iterator[None]:
    """Each service has an engine and routes, and hundreds of tests have a service of their own: all the same."""
    compiled: LRUCache[object, object] = LRUCache(2000)
    route = once(Rule._compile_builder, lambda rule, *which: (rule.rule, str(rule._trace), str(rule.defaults), which))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", route)
        patch.setattr(Engine, "_compiled_cache", property(lambda _: compiled, lambda *_: None), raising=False)
        patch.setattr(DefaultDialect, "__eq__", lambda one, other: type(one) is type(other))
        patch.setattr(DefaultDialect, "__hash__", lambda one: hash(type(one)))
        yield
