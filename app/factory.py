"""The Flask application: `create_app(config)`, and `without_settings(problem)`."""

import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any
from wsgiref.types import StartResponse

import click
import orjson
import structlog
from flask import Flask, Response, g, redirect, request
from flask.json.provider import DefaultJSONProvider
from flask_swagger_ui import get_swaggerui_blueprint
from werkzeug.exceptions import default_exceptions

from app import metrics
from app.api import (
    api_keys,
    audit_events,
    connections,
    credentials,
    health,
    onboarding,
    permission_sets,
    rotations,
    tenants,
    webhook_endpoints,
)
from app.api.kit.blueprint import RestApi
from app.cli import register_commands
from app.concurrency.places import without_slot
from app.config import Config
from app.http import plain_requests
from app.http.current_request import BODY_KIB, client_address, services
from app.http.response_headers import API_DOCUMENTATION, adding, defaults
from app.log import leaves_no_line, logger
from app.services import Services, begin
from app.web.onboarding import routes

# The OpenAPI document has the resources in this order.
_RESOURCES = (
    tenants.bp,
    rotations.bp,
    onboarding.bp,
    onboarding.links,
    permission_sets.bp,
    connections.bp,
    credentials.bp,
    api_keys.bp,
    audit_events.bp,
    webhook_endpoints.bp,
    health.bp,
)
_NOT_BOOTED = 3  # after any other exit code, gunicorn restarts the web process forever
_DOCS = {
    "app_name": "Deputy API",
    "layout": "BaseLayout",  # the default layout has a field that opens other documents
    "validatorUrl": None,  # the default sends the document to a validator on the internet
    "oauth2RedirectUrl": "",  # the default contains the Host header
}


class _FastJson(DefaultJSONProvider):
    """A JSON provider that answers with orjson.

    For a list of 200 connections orjson takes 0.3 ms, and Python's own encoder 4 ms.
    """

    sort_keys = False  # answers keep the order of their schemas

    def response(self, *answers: Any, **_: Any) -> Response:
        return Response(orjson.dumps(*answers), mimetype=self.mimetype)


class _Service(Flask):
    def wsgi_app(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve `https://example.com/deputy`, for example, with the path `/deputy` and without it.

        Some proxies remove the path and others keep it. Direct health checks do not send it.
        Links and redirects begin with the path, which comes from DEPUTY_PUBLIC_URL alone.
        """
        if path := self.extensions["deputy"].config.service.public_path:
            requested = environ["PATH_INFO"]
            environ["SCRIPT_NAME"] = path
            if f"{requested}/".startswith(f"{path}/"):
                environ["PATH_INFO"] = requested.removeprefix(path) or "/"
        return super().wsgi_app(environ, start_response)


def create_app(config: Config) -> Flask:
    """Return the service as a WSGI application. It connects to nothing before the first request."""
    begin(config)
    app = _Service("app", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=BODY_KIB * 1024,
        # An OPTIONS request gets a 405, like every method that a route does not have
        PROVIDE_AUTOMATIC_OPTIONS=False,
    )
    app.url_map.merge_slashes = False  # werkzeug would redirect to the host in the Host header
    app.json = _FastJson(app)
    deputy = app.extensions["deputy"] = Services(config)
    app.extensions["deputy.plain_requests"] = credentials.PlainCredentials(deputy)
    app.before_request(_begin)
    app.after_request(adding(defaults(config.service.public_url)))
    app.after_request(_finish)  # runs first, so that headers have the order of plain answers
    api = RestApi(app, config)
    for resource in _RESOURCES:
        api.register_blueprint(resource)
    app.register_blueprint(routes.bp)
    path = config.service.public_path
    # Swagger UI links its files by absolute paths.
    docs = get_swaggerui_blueprint(f"{path}/docs", f"{path}/openapi.json", _DOCS)
    docs.after_request(adding(API_DOCUMENTATION))
    app.register_blueprint(docs, url_prefix="/docs")
    # werkzeug's own redirect would name the host in the Host header.
    app.add_url_rule("/docs", "docs", lambda: redirect(f"{path}/docs/"))
    register_commands(app)
    return app


def _begin() -> None:
    environ = request.environ
    g.began = time.perf_counter()
    g.request_id = environ.get(plain_requests.REQUEST_ID) or plain_requests.new_request_id()
    g.client_address = client_address(
        environ.get("REMOTE_ADDR", ""),
        environ.get("HTTP_X_FORWARDED_FOR"),
        services.config.service.proxy_hops,
    )
    without_slot.set(environ.get("deputy.without_slot", nullcontext))
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id, client_address=g.client_address)
    if status := environ.get(plain_requests.REFUSED_STATUS):
        raise default_exceptions[status](
            "Not valid HTTP, or a Host or Content-Type header that came twice."
        )


def _finish(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    seconds = time.perf_counter() - g.began
    _log_request(response, seconds)
    metrics.REQUEST_SECONDS.labels(str(request.url_rule or "none")).observe(seconds)
    return response


def _log_request(response: Response, seconds: float) -> None:
    """Log one line per request, with its route.

    The path is not logged, because an onboarding page's path contains the link's token.
    """
    quiet = leaves_no_line(request.blueprint, request.endpoint, response.status_code)
    if quiet or g.get("logged"):
        return
    principal = g.get("principal")
    kind, actor_id, *_ = principal.actor if principal else ("api_key", None)
    logger.info(
        "request",
        method=request.method,
        route=request.url_rule and str(request.url_rule),
        status=response.status_code,
        ms=round(seconds * 1000, 1),
        **{f"{kind}_id": actor_id},
    )


def without_settings(problem: str) -> Flask:
    """Return an application with the commands alone, for those that need no settings.

    The others fail with `problem`. The application is for flask's look-up of its commands. In
    gunicorn and in `flask run` this ends the process instead.
    """
    # `flask run` loads the application in a subcommand, whose context has a parent
    context = click.get_current_context(silent=True)
    if context is None or context.parent is not None:
        click.echo(problem, err=True)
        sys.exit(_NOT_BOOTED)
    app = Flask("app", static_folder=None)
    app.config["PROBLEM"] = problem
    register_commands(app)
    return app
