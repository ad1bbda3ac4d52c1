"""What each resource of the API is made with."""

import flask_smorest

from app.http.openapi import complete_operation
from app.http.parsing import StrictParser


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest has no types
    """A resource. OpenAPI gets each operation's security and refusals from the view's decorators.

    `noun`: the audit log's name for the things of this resource.
    """

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, name: str, import_name: str, *, noun: str | None = None, description: str = "") -> None:
        super().__init__(name, import_name, description=description)
        self.noun = noun
        self._prepare_doc_cbks.append(complete_operation)
