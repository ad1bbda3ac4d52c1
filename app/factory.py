"""The Flask application: `create_app(config)`."""

import time
from http import HTTPStatus
from typing import Any

import flask_smorest
import structlog
from flask import Blueprint, Flask, Response, g, redirect, request
from flask_swagger_ui import get_swaggerui_blueprint
from werkzeug.exceptions import default_exceptions
from werkzeug.routing import UUIDConverter

from app import log, services
from app.api import api_keys, audit_events, connections, credentials, health, onboarding, onboarding_links, tenants
from app.api.fast_lane import FastLane
from app.cli.commands import register_commands
from app.config import Config
from app.http import problems as errors
from app.http.client_address import client_address
from app.http.headers import ALWAYS, FOR_PROGRAMS
from app.http.openapi import UUID_PARAMETER, Plugin
from app.http.public_path import PublicPath
from app.http.request_id import request_id
from app.http.unread import UNREAD
from app.web.onboarding import pages

_log = log.get(__name__)

_MAX_BODY = 256 * 1024  # ten thousand account ids, the longest list that is taken, are 170 KiB
_RESOURCES = (tenants, onboarding, onboarding_links, connections, credentials, api_keys, audit_events, health)
_DOCS_CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)


class RestApi(flask_smorest.Api):  # type: ignore[misc]  # flask-smorest has no types
    """flask-smorest, with our errors instead of its own."""

    ERROR_SCHEMA = errors.ProblemSchema
    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_pagination_header(self) -> None:
        """Pages are in bodies here, not in headers."""

    def _register_error_handlers(self) -> None:
        """Ours are registered by app.http.problems."""

    def _register_responses(self) -> None:
        """One for each status that a problem may have, with an example of each code."""
        self.flask_plugin.register_converter(UUIDConverter, lambda _: UUID_PARAMETER)
        for status in sorted({status for status, _ in errors.PROBLEMS.values()}):
            content = {"schema": self.ERROR_SCHEMA, "examples": errors.examples(status)}
            answer = {"description": HTTPStatus(status).phrase, "content": {"application/problem+json": content}}
            self.spec.components.response(HTTPStatus(status).name, answer, lazy=True)


def create_app(config: Config) -> Flask:
    """The service as a WSGI application. Connects to nothing until it is asked something."""
    services.begin(config)
    app = Flask("app", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=_MAX_BODY,
        PROVIDE_AUTOMATIC_OPTIONS=False,  # an OPTIONS request is a 405 like every other method that isn't there
        API_TITLE="Deputy",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS=_SPEC | _about(config),
    )
    app.url_map.merge_slashes = False  # it answers with a redirect, to wherever the Host header says
    app.json.sort_keys = False  # type: ignore[attr-defined]  # answers read in the order of their schemas
    app.extensions["deputy"] = services.build(config)
    errors.register(app)
    _register_hooks(app)
    api = RestApi(app, spec_kwargs={"marshmallow_plugin": Plugin()})
    for resource in _RESOURCES:
        api.register_blueprint(resource.bp)
    app.register_blueprint(pages.bp)
    app.register_blueprint(_docs(config.public_path), url_prefix="/docs")
    app.add_url_rule(
        "/docs", "docs", lambda: redirect(f"{config.public_path}/docs/")
    )  # werkzeug's own would name the Host header's host
    register_commands(app)
    app.wsgi_app = FastLane(app.wsgi_app, app.extensions["deputy"])  # type: ignore[method-assign]  # Flask's own way
    if config.public_path:
        app.wsgi_app = PublicPath(app.wsgi_app, config.public_path)  # type: ignore[method-assign]
    return app


def _docs(path: str) -> Blueprint:
    """Pages for the OpenAPI document. They name their files by whole paths, which begin with `path`."""
    found: Blueprint = get_swaggerui_blueprint(f"{path}/docs", f"{path}/openapi.json", config=_DOCS)
    return found


_DOCS = {
    "app_name": "Deputy API",
    "layout": "BaseLayout",  # without the bar that opens other documents
    "validatorUrl": None,  # or the page would show our document to a validator on the internet
    "oauth2RedirectUrl": "",  # or it would be made from the Host header
}

_SPEC: dict[str, Any] = {
    "security": [{"apiKey": []}],
    "components": {
        "securitySchemes": {
            "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key: dpk_<16 hex>_<43 characters>"}
        }
    },
}


def _about(config: Config) -> dict[str, Any]:
    return {
        "info": {
            "description": "Proves customers' IAM roles, and issues short-lived credentials for them.",
            "contact": {"name": config.vendor_name, "url": config.public_url},
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": config.public_url}],
    }


def _register_hooks(app: Flask) -> None:
    hops = app.extensions["deputy"].config.proxy_hops

    @app.before_request
    def _begin() -> None:
        g.request_id = request_id(request.environ)
        g.client_address = client_address(request.environ, hops)
        g.began = time.perf_counter()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=g.request_id, client_address=g.client_address)
        if unread := request.environ.get(UNREAD):
            raise default_exceptions[unread]

    @app.after_request
    def _finish(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.request_id
        response.headers.update(ALWAYS)
        if request.path.startswith("/docs"):
            response.headers["Content-Security-Policy"] = f"{_DOCS_CSP}; frame-ancestors 'none'"
        elif pages.covers(request.path):
            pages.secure(response)
        else:
            response.headers.update(FOR_PROGRAMS)
        _log_request(response)
        return response


def _log_request(response: Response) -> None:
    """One line a request, but for issued credentials, whose record is the audit log, and for what is asked all the time.

    With its route, never its path: that of an onboarding page holds the link's token.
    """
    quiet = request.blueprint in {"credentials", "health", "swagger_ui"} or request.endpoint in pages.QUIET
    if (quiet and response.status_code < 400) or g.get("logged"):
        return
    caller = g.get("caller")
    _log.info(
        "request",
        method=request.method,
        route=str(request.url_rule) if request.url_rule else None,
        status=response.status_code,
        ms=round((time.perf_counter() - g.began) * 1000, 1),
        **{f"{caller.kind}_id" if caller else "api_key_id": str(caller.key_id) if caller else None},
    )
