"""Makes page cursors without reading earlier pages. The service's own code and keys sign them.

`python -m bench.cursors`, in the service's environment: reads [[path, id of the last row], …],
prints cursors.
"""

import json
import sys
from typing import Any
from uuid import UUID

from flask import g

from app.api.kit.blueprint import paged
from app.config import Config
from app.factory import create_app
from app.identity.principals import OperatorPrincipal
from app.store.keyset import Page


def main() -> None:
    app = create_app(Config.from_environment())
    cursors = []
    for path, last in json.load(sys.stdin):
        page: Page[Any] = Page([], UUID(last))
        with app.test_request_context(path):
            g.principal = OperatorPrincipal("bench")
            cursors.append(paged({"limit": 50}, lambda page=page, **_: page)["next_cursor"])
    print(json.dumps(cursors))


if __name__ == "__main__":
    main()
