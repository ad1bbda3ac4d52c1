"""Strict parsing of bodies and queries."""

from typing import Any

from flask import Request
from marshmallow import RAISE
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from app import strict_json
from app.http.bodies import whole_body

BODY_KIB = 256  # the longest list, ten thousand account ids, has 170 KiB


class StrictParser(FlaskParser):
    """Parses JSON and queries strictly, and refuses unknown fields. An empty body is {}."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"json": RAISE, "query": RAISE}

    def load_json(self, req: Request, schema: Any) -> Any:  # noqa: ARG002  webargs' signature
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
        try:
            return strict_json.parse(raw)
        except ValueError as error:
            raise BadRequest(str(error)) from error

    def load_querystring(self, req: Request, schema: Any) -> Any:
        if len(req.args) < len(list(req.args.items(multi=True))):
            raise BadRequest("Give each parameter of the query once.")
        return super().load_querystring(req, schema)
