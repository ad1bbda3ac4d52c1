"""What every resource shares: its blueprint class, strict bodies, the caller, signed page cursors, true OpenAPI.

`requires(scope)` is the outermost decorator of every view that is not public: who calls, and whether they may, is
settled before anything of the request is parsed, and scope before existence.
"""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

import flask_smorest
from flask import Request, current_app, g, request
from itsdangerous import BadSignature, URLSafeSerializer
from marshmallow import RAISE
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from app import strict_json
from app.access.callers import Caller, Scope
from app.errors import MalformedRequestError, TryLaterError, UnauthenticatedError
from app.http.openapi import describe
from app.services import Services
from app.store.database import Page

P = ParamSpec("P")
R = TypeVar("R")


def services() -> Services:
    return cast("Services", current_app.extensions["deputy"])


def caller() -> Caller:
    """Who calls. Only views behind `requires` have one."""
    return cast("Caller", g.caller)


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal that the fast lane met: who asked, if that is known, and what Flask is to say and to record."""

    caller: Caller | None
    error: Exception


# In the WSGI environ, where no header of a client's gets. The request's id, and the refusal, if Flask comes second.
REQUEST_ID = "deputy.request_id"
REFUSED = "deputy.refused"


def requires(
    scope: Scope, *, bare_key: bool = False, from_memory: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Admit only API keys with this scope. Raises UnauthenticatedError, then ForbiddenError.

    `bare_key`: the header may also hold the key without `Bearer`. `from_memory`: the key as this process remembers
    it, perhaps revoked since; only for issuing, which finds that out before anything leaves.
    """

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            key = _presented_key(bare=bare_key)
            if not from_memory:
                services().turns.take(key)
                g.caller = services().access.authenticate(key, g.request_id, g.client_address)
                services().turns.took(key, g.caller)
                g.caller.require(scope)
                return view(*args, **kwargs)
            try:
                g.caller = _remembered(key)
                g.caller.require(scope)
                return view(*args, **kwargs)
            except (UnauthenticatedError, TryLaterError):
                raise  # the first is the answer already; the second tells nothing, and has waited long enough
            except Exception:
                # A refusal, too, is only for a key that is good now: it tells something, and it is recorded.
                _ensure_good(key)
                raise

        _document(guarded, scope=scope)
        return guarded

    return decorate


def _remembered(key: str) -> Caller:
    """The caller as memory knows it, unless the fast lane has met a refusal already: then that is raised here."""
    refused: Refused | None = request.environ.get(REFUSED)
    if refused is None:
        return services().authority.authenticate(key, g.request_id, g.client_address)
    if refused.caller is not None:
        g.caller = refused.caller
    raise refused.error


def _ensure_good(key: str) -> None:
    """Raises UnauthenticatedError, and then nobody is known to have called."""
    who = g.pop("caller", None)
    services().access.authenticate(key, g.request_id)
    if who is not None:
        g.caller = who


def known_caller() -> Caller | None:
    """Who calls a public view, which needs no key: None without a key that is good."""
    try:
        return services().access.authenticate(_presented_key(bare=False), g.request_id)
    except (UnauthenticatedError, TryLaterError):
        return None


def public(view: Callable[P, R]) -> Callable[P, R]:
    """Mark a view that needs no key; a test holds the list of those."""
    _document(view, public=True)
    return view


def _document(view: Callable[..., Any], **facts: Any) -> None:
    """Keep facts for the OpenAPI document, and the name that generated clients give the operation."""
    doc = view.__dict__.setdefault("_apidoc", {})
    _, _, explained = (view.__doc__ or "").partition("\n")
    scope = f"Scope: `{facts['scope'].value}`." if "scope" in facts else "Needs no API key."
    description = f"{inspect.cleandoc(explained)}\n\n{scope}".strip()
    doc |= facts | {"manual_doc": {"operationId": view.__name__, "description": description}}


def fails(*statuses: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Document the refusals that a view's service may raise."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        view.__dict__.setdefault("_apidoc", {})["fails"] = statuses
        return view

    return decorate


def documented(*decorators: Callable[[Any], Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Take from flask-smorest's decorators what they document, and not what they do at each request."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        described: Any = view
        for decorator in reversed(decorators):
            described = decorator(described)
        view.__dict__["_apidoc"] = described.__dict__["_apidoc"]
        return view

    return decorate


def _presented_key(*, bare: bool) -> str:
    header = request.headers.get("Authorization", "")
    scheme, _, key = header.partition(" ")
    if scheme.lower() == "bearer":
        return key
    if bare and header:
        return header
    raise UnauthenticatedError("This needs an API key: Authorization: Bearer dpk_…")


@contextmanager
def whole_body() -> Iterator[None]:
    """While a body is read. Raises BadRequest when it comes too late, ends too early, or its chunks are malformed."""
    try:
        yield
    except RequestEntityTooLarge:
        raise
    except Exception as error:  # each server has its own, gunicorn's are of no common kind, and werkzeug hides some
        raise BadRequest("The body did not arrive whole and in time; send all of it right after its header.") from error


class StrictParser(FlaskParser):
    """Bodies and queries as they must be: JSON read strictly, unknown fields refused, an empty body is {}."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"json": RAISE, "query": RAISE}

    def load_json(self, req: Request, schema: Any) -> Any:  # noqa: ARG002  webargs' signature
        with whole_body():
            raw = req.get_data(cache=True)
        if not raw:
            return {}
        # werkzeug cuts a body without a Content-Length at the limit, and says nothing.
        if req.content_length is None and len(raw) == req.max_content_length:
            raise RequestEntityTooLarge
        if req.mimetype != "application/json":
            raise UnsupportedMediaType("The body must be JSON: Content-Type: application/json")
        try:
            return strict_json.parse(raw)
        except ValueError as error:
            raise BadRequest(str(error)) from error


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest has no types
    """A resource. Adds to each operation's OpenAPI what its decorators say: security and every refusal."""

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, name: str, import_name: str, *, noun: str | None = None, description: str = "") -> None:
        super().__init__(name, import_name, description=description)
        self.noun = noun  # what the audit log calls the things of this resource
        self._prepare_doc_cbks.append(describe)


def paged(query: Mapping[str, Any], fetch: Callable[..., Page[Any]]) -> dict[str, Any]:
    """One page of a list: `fetch(limit=…, after=…)` and the cursor of the next.

    A cursor is signed together with the route, its ids and its filters: one that was made up, or comes from
    another list, is a 400.
    """
    signer = _signer(query)
    after = None
    if "cursor" in query:
        try:
            after = UUID(signer.loads(query["cursor"]))
        except (BadSignature, ValueError) as error:
            raise MalformedRequestError("This cursor is not one of this list's; start without one.") from error
    found = fetch(limit=query["limit"], after=after)
    return {
        "items": found.items,
        "next_cursor": None if found.after is None else signer.dumps(str(found.after)),
    }


def _signer(query: Mapping[str, Any]) -> URLSafeSerializer:
    filters = {key: str(value) for key, value in query.items() if key not in {"cursor", "limit"}}
    place = json.dumps([request.path, sorted(filters.items())])
    keys = services().config.secret_keys
    return URLSafeSerializer(list(reversed(keys)), salt=f"deputy cursor {place}")  # itsdangerous signs with the last
