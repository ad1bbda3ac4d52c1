"""A deployment whose processes share a real Valkey."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.honesty.deployment import Deployment
from tests.honesty.front import Aws
from tests.support.databases import new_database
from tests.support.valkey import Valkey


@contextmanager
def sharing(folder: Path, aws: Aws, **settings: str) -> Iterator[tuple[Deployment, Valkey]]:
    with contextlib.ExitStack() as ending:
        valkey = Valkey()
        ending.callback(valkey.kill)
        url = ending.enter_context(new_database("sqlite"))
        deployment = Deployment(folder, url, aws, CACHE_URL=valkey.url, **settings)
        yield ending.enter_context(deployment), valkey
