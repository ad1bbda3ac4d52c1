"""AWS's error answers, in each service's format: query XML, S3's own XML, or JSON."""

import json
import uuid
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response


class AwsError(Exception):
    """An error that AWS would answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message


def access_denied(caller_arn: str, action: str, resource: str, why: str | None = None) -> AwsError:
    """Build AccessDenied.

    Without `why` an absent role and a refusing one get the same text, as at AWS.
    """
    text = f"User: {caller_arn} is not authorized to perform: {action} on resource: {resource}"
    return AwsError(403, "AccessDenied", f"{text} {why}" if why else text)


def invalid(message: str) -> AwsError:
    return AwsError(400, "ValidationError", message)


def unsupported(message: str) -> AwsError:
    """Build the answer for unsupported requests: 501, which clients don't retry.

    AWS itself never sends 501.
    """
    return AwsError(
        501, "SandboxUnsupported", f"The sandbox cannot tell what AWS would do: {message}"
    )


def render(error: AwsError, service: str, *, as_json: bool) -> Response:
    request_id = str(uuid.uuid4())
    headers = {"x-amzn-RequestId": request_id}
    if as_json:
        body = json.dumps({"__type": error.code, "message": error.message})
        headers["x-amzn-ErrorType"] = error.code
        return Response(body, error.status, headers, content_type="application/x-amz-json-1.0")
    detail = f"<Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
    if service == "s3":
        body = f"<Error>{detail}<RequestId>{request_id}</RequestId></Error>"
    else:
        fault = "Sender" if error.status < 500 else "Receiver"
        body = (
            f'<ErrorResponse xmlns="https://{service}.amazonaws.com/doc/"><Error><Type>{fault}'
            f"</Type>{detail}</Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return Response(body, error.status, headers, content_type="text/xml")
