"""The base of every resource of the API: flask-smorest, strict with requests."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import flask_smorest
import orjson
from flask import Flask, Request, Response, g
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.routing import UnicodeConverter, UUIDConverter

from app import VERSION, strict_json
from app.api.kit import error_answers, idempotency, openapi
from app.api.kit.authentication import Guard, requires
from app.api.kit.idempotency import Again
from app.api.kit.openapi import View
from app.api.kit.pagination import filters_of, paged  # noqa: F401  for resources
from app.config import Config
from app.http.current_request import changing, principal, services, whole_body  # noqa: F401  for resources
from app.identity.scopes import Scope
from app.limits.request_costs import price_of_body
from app.strict_json import JsonObject

PUBLIC = ""  # instead of scopes: a view that needs no key


class StrictParser(FlaskParser):
    """Parses JSON and queries strictly, and refuses unknown fields. An empty body is {}."""

    DEFAULT_UNKNOWN_BY_LOCATION = {}  # the schemas say it (`Strict`)

    def load_json(self, req: Request, schema: Any) -> Any:  # noqa: ARG002  webargs' signature
        if req.args:
            raise ValidationError({"query": ["Put the fields into the body, not into a query."]})
        with whole_body():
            raw = req.get_data(cache=True)
        if not raw:
            return {}
        # werkzeug silently truncates a body without a Content-Length at the limit
        if req.content_length is None and len(raw) == req.max_content_length:
            raise RequestEntityTooLarge
        if req.mimetype != "application/json":
            raise UnsupportedMediaType(
                "The body must be JSON, with Content-Type: application/json."
            )
        if caller := g.get("principal"):
            services.tenant_share.charge(caller.tenant_scope, price_of_body(len(raw)))
        try:
            return strict_json.parse(raw)
        except ValueError as error:
            raise BadRequest(str(error)) from error

    def load_querystring(self, req: Request, schema: Any) -> Any:
        query = super().load_querystring(req, schema)
        for name, values in req.args.lists():
            if len(values) > 1 and name not in query.multiple_keys:
                raise BadRequest("Give each parameter of the query once.")
        return query


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest has no types
    """A resource of the API.

    `noun`: the word for it in the audit log's actions. `guard`: see `requires`.
    """

    ARGUMENTS_PARSER = StrictParser()

    def __init__(
        self, name: str, description: str, noun: str | None = None, guard: Guard | None = None
    ) -> None:
        super().__init__(name, __name__, description=description)
        self.noun = noun
        self._guard = guard

    def register_views_in_doc(self, api: Any, *args: Any, **options: Any) -> None:
        """Defer the description of the views until the OpenAPI document is requested.

        Most processes never serve the document, and describing the views takes as long as creating
        the application.
        """
        api.undescribed.append(partial(super().register_views_in_doc, api, *args, **options))

    def operation(  # noqa: PLR0913  each is a fact of the route
        self,
        method: str,
        path: str,
        scopes: str,
        answer: Any = None,
        *,
        takes: type[Schema] | None = None,
        status: int = 200,
        again: Again | None = None,
        fails: Sequence[int] = (),
        **response: Any,
    ) -> Callable[[View], View]:
        """Return a decorator that registers a view for API keys with one of these scopes.

        `scopes`: one or more, separated by spaces, or PUBLIC. They are checked before the request
        is read. `takes`: the schema of the query of a GET, and of the body otherwise. `again`: see
        app/api/kit/idempotency.py. `fails`: statuses of refusals, in addition to those that follow
        from the other arguments.
        """
        allowed = list(map(Scope, scopes.split()))
        refusals = set(fails)
        if "<" in path:
            refusals.add(404)
        if isinstance(answer, type):
            answer = answer()
            response["example"] = openapi.example_of(answer)

        def decorate(view: View) -> View:
            view = idempotency.answering_again(view, again)
            view = self.response(status, answer, **response)(view)
            if takes is not None:
                schema = takes()
                options: JsonObject = {"location": "query"}
                refusals.update({400, 422})
                if method != "GET":
                    refusals.update({413, 415})
                    options = openapi.body_options(schema)
                view = self.arguments(schema, **options)(view)
            if method == "POST":
                view = idempotency.once(view, again)
                refusals.update({400, 409, 422} if again else {400})
            if allowed:
                view = requires(view, allowed, self._guard)
            view = openapi.document(view, method, allowed, refusals)
            self.route(path, methods=[method])(view)
            return view

        return decorate


_API_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key: dpk_<16 hex>_<43 characters>",
}
_INFO = {
    "description": "Proves customers' IAM roles, and issues short-lived credentials for them.",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}


class RestApi(flask_smorest.Api):  # type: ignore[misc]  # flask-smorest has no types
    """flask-smorest, with the errors of error_answers.py, and a document that is built once."""

    DEFAULT_ERROR_RESPONSE_NAME = None
    ERROR_SCHEMA: JsonObject = {}  # unused: the responses for errors are replaced below

    def __init__(self, app: Flask, config: Config) -> None:
        self.undescribed: list[Callable[[], None]] = []  # calls that describe resources
        self._describing = threading.Lock()
        url = config.service.public_url
        about = {
            "marshmallow_plugin": openapi.Plugin(),
            "title": "Deputy API",
            "version": VERSION,
            "openapi_version": "3.1.0",
            "security": [{"apiKey": []}],
            "components": {"securitySchemes": {"apiKey": _API_KEY}},
            "info": _INFO | {"contact": {"name": config.vendor.vendor_name, "url": url}},
            "servers": [{"url": url}],
        }
        super().__init__(app, spec_kwargs=about)
        # flask-smorest's commands would print a document without the resources, described later
        app.cli.commands.pop("openapi")
        error_answers.register(app)  # replaces flask-smorest's handler
        app.add_url_rule("/openapi.json", "openapi", self.document)
        self.register_converter(UUIDConverter, lambda _: openapi.UUID_PARAMETER)
        self.register_converter(UnicodeConverter, lambda _: openapi.NAME_PARAMETER)
        # These responses, one for each status of a problem, replace flask-smorest's
        for status, examples in error_answers.examples().items():
            content = {"schema": error_answers.ProblemOut, "examples": examples}
            response = {
                "description": HTTPStatus(status).phrase,
                "content": {"application/problem+json": content},
            }
            self.spec.components.response(HTTPStatus(status).name, response, lazy=True)
        # Unused, because Deputy's pages are in bodies
        self.spec.components.schemas.pop("PaginationMetadataSchema")

    def document(self) -> Response:
        """Return the OpenAPI document, which is built once.

        Anybody may request it, and building it takes as long as some hundred requests.
        """
        with self._describing:
            if self.undescribed:
                for describe in self.undescribed:
                    describe()
                self.undescribed.clear()
                self._document = orjson.dumps(self.spec.to_dict(), option=orjson.OPT_INDENT_2)
        return Response(self._document, mimetype="application/json")
