"""The base of every resource of the API."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flask_smorest

from app.api.kit.authentication import requires
from app.api.kit.cursors import filters_of, paged  # noqa: F401
from app.api.kit.parsing import StrictParser
from app.http.current import changing, principal, services  # noqa: F401  for resources
from app.identity.scopes import Scope
from app.strict_json import JsonObject  # noqa: F401

View = Callable[..., Any]


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest has no types
    """A resource of the API.

    OpenAPI gets each operation's security and refusals from the view's decorators. `noun`: the word
    for this resource in the audit log's actions.
    """

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, name: str, description: str, noun: str | None = None) -> None:
        super().__init__(name, __name__, description=description)
        self.noun = noun

    def register_views_in_doc(self, api: Any, *args: Any, **options: Any) -> None:
        """Defer the description of the views until the OpenAPI document is requested.

        Most processes never serve the document, and describing the views takes as long as creating
        the application.
        """
        api.undescribed.append(partial(super().register_views_in_doc, api, *args, **options))

    def operation(
        self,
        method: str,
        path: str,
        scopes: str | tuple[str, ...],
        answer: Any = None,
        *,
        takes: Any = None,
        status: int = 200,
        fails: Sequence[int] = (),
        **route: Any,
    ) -> Callable[[View], View]:
        """Return a decorator that registers a view for API keys with one of these scopes.

        Scopes are checked before the request is read. `takes`: the schema of the query of a GET,
        and of the body otherwise. `fails`: statuses of refusals, in addition to those of every
        operation (`Plugin`) and to 404 for a path with an id.
        """
        either = (scopes,) if isinstance(scopes, str) else scopes
        if "<" in path:
            fails = (*fails, 404)
        location = "query" if method == "GET" else "json"

        def decorate(view: View) -> View:
            view = self.response(status, answer)(view)
            if takes is not None:
                view = self.arguments(takes, location=location)(view)
            view = requires(*map(Scope, either), fails=fails)(view)
            registered: View = self.route(path, methods=[method], **route)(view)
            return registered

        return decorate
