"""The blueprint of a resource."""

import flask_smorest

from app.http.openapi import describe
from app.http.parsing import StrictParser


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest has no types
    """A resource. Adds to each operation's OpenAPI what its decorators say: security and every refusal."""

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, name: str, import_name: str, *, noun: str | None = None, description: str = "") -> None:
        super().__init__(name, import_name, description=description)
        self.noun = noun  # what the audit log calls the things of this resource
        self._prepare_doc_cbks.append(describe)
