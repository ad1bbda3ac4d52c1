"""The header Idempotency-Key: a request that is sent again takes effect once.

A POST accepts the header if `Blueprint.operation` got a function `again` for it. That function
answers a retry if an earlier attempt changed something but stored no answer. Other POSTs refuse the
header, because their answers have secrets that may not be stored.
"""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Response, g, make_response, request
from flask_smorest import Blueprint

from app.api.kit.openapi import View
from app.errors import MalformedRequestError
from app.http.current_request import principal, services, whole_body
from app.idempotency.attempts import Effect, StoredAnswer
from app.limits.request_costs import STOP, price_of

Again = Callable[[Effect], Any]

HEADER = "Idempotency-Key"
_STORED_MAX = 16 * 1024  # bytes; a tenant can store 20,000 answers a day
_CHARACTERS = "[!#-~][ !#-~]{0,254}"
_KEY = re.compile(rf'(?P<quote>"?)(?P<key>{_CHARACTERS})(?P=quote)', re.ASCII)
_PARAMETER = {
    "in": "header",
    "name": HEADER,
    "schema": {
        "type": "string",
        "maxLength": 257,
        "pattern": f'^({_CHARACTERS}|"{_CHARACTERS}")$',
        "examples": ["create-customer-42"],
    },
    "description": "A text of your own: the request takes effect once in 24 hours.",
}


def answering_again(view: View, again: Again | None) -> View:
    """Let `again` answer instead of the view if an earlier attempt changed something."""
    if not again:
        return view

    @wraps(view)
    def answered(*args: Any, **kwargs: Any) -> Any:
        earlier = g.pop("earlier", None)
        return again(earlier) if earlier else view(*args, **kwargs)

    return answered


def once(view: View, again: Again | None) -> View:
    """Give a request with the header the answer that its first attempt got.

    Without `again`, the view refuses the header.
    """
    stops = price_of(view.__name__) == STOP

    @wraps(view)
    def answered(*args: Any, **kwargs: Any) -> Any:
        if HEADER not in request.headers:
            return view(*args, **kwargs)
        if not again:
            raise MalformedRequestError(
                f"This answer has a secret, which is not stored; leave out {HEADER}."
            )
        key = _key(request.headers[HEADER])
        with whole_body():
            body = request.get_data(cache=True)
        route = f"{request.method} {request.path}"
        begun = services.idempotency.begin(principal(), route, key, body, stops=stops)
        if isinstance(begun, StoredAnswer):
            response = Response(begun.body, begun.status, mimetype="application/json")
            response.headers["Idempotency-Replayed"] = "true"
            return response
        g.principal, g.earlier = begun.principal, begun.earlier
        try:
            response = make_response(view(*args, **kwargs))
        except Exception:
            services.idempotency.end(begun, None)
            raise
        answer = StoredAnswer(response.status_code, response.get_data())
        # Without a stored answer, a retry is answered with the thing as it is then. After a stop
        # that was undone, this would be another answer than the first.
        is_stored = stops or len(answer.body) <= _STORED_MAX
        services.idempotency.end(begun, answer if is_stored else None)
        if begun.earlier is not None:
            response.headers["Idempotency-Replayed"] = "true"
        return response

    if not again:
        return answered
    return Blueprint.doc(parameters=[_PARAMETER])(answered)  # type: ignore[no-any-return]


def _key(text: str) -> str:
    """Return the key, which may be quoted. Raises MalformedRequestError."""
    match = _KEY.fullmatch(text.strip())
    if not match:
        raise MalformedRequestError(
            f"{HEADER} must have 1 to 255 ASCII characters that can be printed, and no quotes."
        )
    return match["key"]
