"""Requests to the part of Deputy's API that a worker needs, with short timeouts and few retries.

The API key is sent only over https or to this machine, and redirects are not followed. No error
message, repr or log line contains the key. The address and the key are read again for each request,
so that a replaced key is used at once.
"""

import ipaddress
import json
import os
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.exceptions import BotoCoreError, SSLError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from deputy_client.errors import (
    BadRequest,
    ConfigurationError,
    DeputyError,
    NotPermitted,
    NotVerified,
    RoleRefused,
    Suspended,
    Unreachable,
)

CONNECT_SECONDS = 3
READ_SECONDS = 10
ATTEMPTS = 4
PATIENCE_SECONDS = 20  # after this time, no attempt begins
_FIRST_PAUSE_SECONDS = 0.5
_TRY_AGAIN = {429, 502, 503, 504}
_RATE_LIMITED = "rate_limited"

_REFUSALS: dict[str, tuple[type[DeputyError], str]] = {
    "connection_not_verified": (
        NotVerified,
        "POST …/connections/{id}/verify says what the customer must change.",
    ),
    "suspended": (Suspended, "Nothing is issued until your operators resume it."),
    "external_id_withdrawn": (
        Suspended,
        "The customer's role has to accept the tenant's next External ID.",
    ),
    "role_refused": (
        RoleRefused,
        "POST …/connections/{id}/verify says what the customer must change.",
    ),
    "unauthenticated": (NotPermitted, "Check DEPUTY_API_KEY_FILE or DEPUTY_API_KEY."),
    "forbidden": (NotPermitted, "Give the worker a key that may issue for this connection."),
    "not_found": (NotPermitted, "Check both ids, and that the key is not bound to another tenant."),
}


@dataclass(frozen=True)
class Issued:
    """The credentials in an answer from Deputy."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expiration: str
    account_id: str | None  # None if this Deputy's version does not send it


@dataclass(frozen=True)
class Question:
    """A request for credentials: the connection's path in the API, and the request's body."""

    connection: str
    body: bytes

    @classmethod
    def of(cls, tenant_id: UUID | str, connection_id: UUID | str, **terms: Any) -> Self:
        """Build a request. `terms` are fields of the body; None means Deputy's default."""
        tenant, connection = _uuid("tenant_id", tenant_id), _uuid("connection_id", connection_id)
        stated = {name: value for name, value in terms.items() if value is not None}
        try:
            body = json.dumps(stated, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise BadRequest(f"What is asked for can't be written as JSON: {error}.") from None
        return cls(f"/v1/tenants/{tenant}/connections/{connection}", body)


@dataclass(frozen=True)
class Service:
    """Deputy's address and the API key. Environment variables replace fields that are None."""

    url: str | None = None
    key: str | None = field(default=None, repr=False)
    key_file: str | None = None

    def issue(self, question: Question, *, attempts: int = ATTEMPTS) -> Issued:
        """Request credentials, with retries.

        `attempts`: how many are made at most. If more than one, those that exceed a rate limit do
        not count. Raises DeputyError.
        """
        latest, tried, failed = monotonic() + PATIENCE_SECONDS, 0, 0
        while True:
            tried += 1
            answer = self._ask(question)
            if isinstance(answer, Issued):
                return answer
            failure, again = answer
            if failure.code != _RATE_LIMITED or attempts == 1:
                failed += 1
            wait, left = failure.retry_after or 0, latest - monotonic()
            if not again or failed == attempts or wait > left:
                break
            sleep(min(_pause(min(tried, ATTEMPTS), wait), left))
        # Raised here and not in `_send`, so that neither its traceback nor its context refers to
        # the request, which contains the key.
        raise failure

    def report_refused(self, question: Question) -> None:
        """Report to Deputy that AWS refuses the connection's sessions. Do not retry.

        Raises DeputyError.
        """
        url = self._address()
        answer = self._send(url, f"{question.connection}/report-refused", b"{}")
        if isinstance(answer, tuple):
            raise answer[0]
        if answer.status_code != 202:
            raise _refusal(answer, url)

    def _ask(self, question: Question) -> Issued | tuple[DeputyError, bool]:
        """Return the credentials, or the error and whether to try again."""
        url = self._address()
        answer = self._send(url, f"{question.connection}/credentials", question.body)
        if isinstance(answer, tuple):
            return answer
        if answer.status_code == 200:
            return _credentials(answer, url)
        return _refusal(answer, url), answer.status_code in _TRY_AGAIN

    def _send(self, url: str, path: str, body: bytes) -> AWSResponse | tuple[DeputyError, bool]:
        """Return Deputy's answer, or the error and whether to try again."""
        headers = {
            "Authorization": f"Bearer {self._current_key()}",
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
        }
        request = AWSRequest("POST", url + path, headers, body).prepare()
        http = _connection(url)
        try:
            return http.send(request)
        except BotoCoreError as error:
            again = not isinstance(error, SSLError)  # a bad certificate stays bad
            return Unreachable(f"Deputy at {url} can't be reached: {_clean(str(error))}"), again
        finally:
            http.close()

    def _address(self) -> str:
        return _checked_url(self.url or os.environ.get("DEPUTY_URL", ""))

    def _current_key(self) -> str:
        if self.key is not None:
            return _checked_key(self.key, "key=")
        path = self.key_file or os.environ.get("DEPUTY_API_KEY_FILE")
        if path:
            try:
                # latin-1 decodes any bytes, and _checked_key refuses characters that no key has.
                text = Path(path).read_bytes().decode("latin-1")
            except OSError as error:
                raise ConfigurationError(
                    f"The API key's file {path} can't be read: {error.strerror}."
                ) from None
            return _checked_key(text.strip(), path)
        if "DEPUTY_API_KEY" in os.environ:
            return _checked_key(os.environ["DEPUTY_API_KEY"].strip(), "DEPUTY_API_KEY")
        raise ConfigurationError(
            "There is no API key: set DEPUTY_API_KEY_FILE or DEPUTY_API_KEY, or give key=."
        )


def _connection(url: str) -> URLLib3Session:
    """Open a connection for one request. It is not reused, as minutes pass between requests."""
    bundle = os.environ.get("DEPUTY_CA_BUNDLE") or os.environ.get("AWS_CA_BUNDLE")
    return URLLib3Session(
        # A path is allowed, but the type stubs know only bool.
        verify=bundle or True,  # type: ignore[arg-type]
        proxies=get_environ_proxies(url) if url.startswith("https:") else {},
        timeout=(CONNECT_SECONDS, READ_SECONDS),  # type: ignore[arg-type]  # likewise
    )


def _checked_url(text: str) -> str:
    if not text:
        raise ConfigurationError("Where is Deputy? Set DEPUTY_URL to its address, or give url=.")
    try:
        parts = urlsplit(text.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(
            "Deputy's address is not a URL; it must be like https://deputy.example.com."
        ) from None
    if not host or "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            "Deputy's address must be scheme, host, and port or path if need be:"
            " https://deputy.example.com."
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_this_machine(host)):
        raise ConfigurationError(
            f"Deputy's address must be https://{host}: the API key and the credentials would cross"
            " the network in clear."
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_key(key: str, source: str) -> str:
    if not key:
        raise ConfigurationError(f"The API key is empty ({source}).")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigurationError(f"The API key has characters that no key has ({source}).")
    return key


def _uuid(name: str, value: UUID | str) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise BadRequest(
            "An id is not one of Deputy's.", errors={name: ["Must be a UUID."]}
        ) from None


def _pause(tried: int, retry_after: int) -> float:
    """Return the pause before a retry, with jitter, so that clients do not come back together.

    It is exponential backoff after `tried` attempts, or `retry_after` seconds if that is longer.
    """
    # S311: this random number is no secret
    jitter = random.uniform(0.5, 1)  # noqa: S311
    return max(
        retry_after * (0.5 + jitter), _FIRST_PAUSE_SECONDS * float(2 ** (tried - 1)) * jitter
    )


def _credentials(response: AWSResponse, url: str) -> Issued | tuple[DeputyError, bool]:
    body = _json_object(response)
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    values = [value for name in names if isinstance(value := body.get(name), str) and value]
    if len(values) == len(names):
        key_id, secret, token, expiration = values
        account_id = body.get("AccountId")
        return Issued(
            key_id, secret, token, expiration, account_id if isinstance(account_id, str) else None
        )
    text = (
        f"What answered at {url} was cut short, or is not Deputy: no credentials are in it. Check"
        " DEPUTY_URL."
    )
    return Unreachable(text), True


def _refusal(response: AWSResponse, url: str) -> DeputyError:
    status, problem = response.status_code, _json_object(response)
    code = problem.get("code")
    if not isinstance(code, str):
        return _stranger(status, url)
    kind, advice = _REFUSALS.get(code) or (_by_status(status), "")
    errors = problem.get("errors")
    retry_after = response.headers.get("Retry-After", "")
    return kind(
        _clean(f"{problem.get('detail') or problem.get('title') or code} {advice}"),
        code=_clean(code),
        request_id=_clean(str(problem.get("request_id") or "")) or None,
        errors=_field_errors(errors) if isinstance(errors, dict) else None,
        retry_after=int(retry_after) if re.fullmatch(r"[0-9]{1,6}", retry_after) else None,
    )


def _by_status(status: int) -> type[DeputyError]:
    if status == 429 or status >= 500:
        return Unreachable
    return BadRequest if status in {400, 405, 413, 415, 422} else DeputyError


def _stranger(status: int, url: str) -> DeputyError:
    """Return an error for an answer that did not come from Deputy, but for example from a proxy."""
    if 300 <= status < 400:
        text = (
            f"{url} redirects, and the client follows no redirect with an API key. Set DEPUTY_URL"
            " to Deputy's own address."
        )
    elif status in _TRY_AGAIN:
        text = f"What stands before Deputy at {url} answers {status}: Deputy is down or busy."
    else:
        text = f"What answers {status} at {url} is not Deputy. Check DEPUTY_URL."
    return Unreachable(text)


def _json_object(response: AWSResponse) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _field_errors(errors: Mapping[str, Any]) -> dict[str, list[str]]:
    return {
        _clean(name): [
            _clean(str(text)) for text in (texts if isinstance(texts, list) else [texts])
        ]
        for name, texts in errors.items()
    }


def _clean(text: str) -> str:
    """Return the text as one printable line, which is safe for a terminal and a log."""
    return "".join(c if c.isprintable() else " " for c in text[:1000]).strip()


def _user_agent() -> str:
    try:
        return f"deputy-client/{version('deputy-client')}"
    except PackageNotFoundError:  # imported from a checkout
        return "deputy-client"


_USER_AGENT = _user_agent()
