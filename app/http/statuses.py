"""The only mapping of errors to HTTP statuses and titles."""

from werkzeug.exceptions import HTTPException

# Status and title by code. It has the code of every AppError (a test checks that), and the codes
# that only HTTP has.
PROBLEMS: dict[str, tuple[int, str]] = {
    "malformed_request": (400, "Malformed request"),
    "unauthenticated": (401, "No valid API key"),
    "forbidden": (403, "Not allowed with this API key"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "conflict": (409, "Conflict"),
    "idempotency_key_in_use": (409, "Idempotency-Key in use"),
    "connection_not_verified": (409, "Connection not verified"),
    "suspended": (409, "Suspended"),
    "external_id_withdrawn": (409, "External ID withdrawn"),
    "role_refused": (409, "Role refused"),
    "payload_too_large": (413, "Payload too large"),
    "uri_too_long": (414, "URI too long"),
    "unsupported_media_type": (415, "Unsupported media type"),
    "validation_failed": (422, "Validation failed"),
    "idempotency_key_reused": (422, "Idempotency-Key reused"),
    "role_not_allowed": (422, "Role not allowed"),
    "rate_limited": (429, "Too many requests"),
    "headers_too_large": (431, "Headers too large"),
    "internal_error": (500, "Internal error"),
    "unavailable": (503, "Unavailable"),
    "aws_unavailable": (503, "AWS unavailable"),
    "proof_expired": (503, "Proof expired"),
}
# The first code of each status
_CODES = {status: code for code, (status, _) in reversed(PROBLEMS.items())}


def code_of(error: HTTPException) -> str:
    status = error.code or 500
    return _CODES.get(status, "malformed_request" if status < 500 else "internal_error")
