"""Page cursors without reading the pages before, signed by the service's own code and keys.

`python -m bench.cursors`, in the service's environment: reads [[path, id of the last row], …],
prints cursors.
"""

import json
import sys
from typing import Any
from uuid import UUID

from flask import g

from app.api.kit.cursors import paged
from app.config import Config
from app.factory import create_app
from app.identity.principals import OperatorPrincipal
from app.store.pages import Page


def main() -> None:
    app = create_app(Config.from_environment())
    made = []
    for path, last in json.load(sys.stdin):
        seen: Page[Any] = Page([], UUID(last))
        with app.test_request_context(path):
            g.principal = OperatorPrincipal("bench")
            made.append(paged({"limit": 50}, lambda seen=seen, **_: seen)["next_cursor"])
    print(json.dumps(made))


if __name__ == "__main__":
    main()
