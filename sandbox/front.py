"""Middleware in front of moto: it authenticates callers and refuses what AWS would refuse."""

import io
import logging
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.wrappers import Request as HttpRequest, Response

from sandbox import s3, simulation
from sandbox.conditions import UnsupportedPolicy
from sandbox.errors import AwsError, access_denied, render, unsupported
from sandbox.faults import Attempt, Dropped, Faults
from sandbox.identity import (
    Identities,
    Permissions,
    Signature,
    act_for,
    context_of,
    read_signature,
    role_arn,
)
from sandbox.policy import Caller, Kind, Request
from sandbox.sts import Sts

log = logging.getLogger("sandbox")
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class _Signed:
    """A request with its signature and the caller who signed it."""

    request: HttpRequest
    caller: Caller
    signature: Signature | None

    @property
    def service(self) -> str:
        return "s3" if self.signature is None else self.signature.service


class Front:
    """WSGI middleware over moto for all AWS requests."""

    def __init__(
        self, moto: WSGIApplication, identities: Identities, sts: Sts, faults: Faults
    ) -> None:
        self._moto = moto
        self._identities = identities
        self._sts = sts
        self._faults = faults

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _use_host_name(environ)
        request = HttpRequest(environ)
        service = "s3"
        try:
            signature = read_signature(request)
            if signature is not None:
                service = signature.service
            answer = self._answer(request, signature)
        except AwsError as error:
            answer = self._refusal(error, service, request)
        except UnsupportedPolicy as error:
            answer = self._refusal(unsupported(str(error)), service, request)
        except Dropped:
            _hang_up(environ)
            answer = Response(status=500)
        if answer is not None:
            return answer(environ, start_response)
        return self._moto(environ, start_response)

    def _answer(self, request: HttpRequest, signature: Signature | None) -> Response | None:
        """Return the sandbox's own answer, or None if moto shall answer."""
        signed = _Signed(request, self._identities.authenticate(signature), signature)
        if signature is None:
            _check_unsigned(signed)
            return None
        # Without this header, moto would search all accounts for the key. It would find neither a
        # key of 12 digits nor one of the sandbox's sessions.
        request.environ["HTTP_X_MOTO_ACCOUNT_ID"] = signed.caller.account
        if signature.service == "sts":
            return self._sts.handle(_form(request), signed.caller, signature.access_key_id)
        self._authorise(
            signed, self._identities.permissions(signed.caller, signature.access_key_id)
        )
        if signature.service == "iam" and _form(request).get("Action") == simulation.ACTION:
            return simulation.simulate(_form(request), self._identities.role)
        return None

    def _authorise(self, signed: _Signed, permissions: Permissions) -> None:
        """Raise AWS's refusal unless the caller may send the request.

        Sessions may do what their policies allow. Roots may do everything in their account, and
        here users may too.
        """
        if signed.caller.kind is Kind.USER:
            permissions = Permissions(unlimited=True)
        act_for(signed.caller, permissions)
        if signed.service == "s3":
            s3.authorise(signed.request, signed.caller, permissions)
        elif not permissions.unlimited:
            self._check_action(signed, permissions)

    def _check_action(self, signed: _Signed, permissions: Permissions) -> None:
        """Check the caller's permission for an action of a service other than S3 and STS."""
        action = _action(signed.request)
        if signed.service == "sqs":  # a batch call needs the permission for a single message
            action = action.removesuffix("Batch")
        name, caller = f"{signed.service}:{action}", signed.caller
        form = _form(signed.request) if signed.service == "iam" else {}
        role = form.get("RoleName")
        resource = role_arn(caller.account, role) if role else form.get("PolicySourceArn")
        self._faults.strike(Attempt(action, caller.arn, caller.account, resource))
        region = None if signed.signature is None else signed.signature.region
        asked = Request(name, resource, context_of(caller, **{"aws:RequestedRegion": region}))
        if why := permissions.why_not(asked):
            raise access_denied(caller.arn, name, resource or "*", why)

    @staticmethod
    def _refusal(error: AwsError, service: str, request: HttpRequest) -> Response:
        if error.status == 501:
            log.error("%s", error.message)
        as_json = "X-Amz-Target" in request.headers or "json" in request.mimetype
        return render(error, service, as_json=as_json)


def _check_unsigned(signed: _Signed) -> None:
    request = signed.request
    if request.path.startswith("/moto-api/") or request.method == "OPTIONS":
        return
    if request.mimetype == _FORM or "X-Amz-Target" in request.headers:
        raise AwsError(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
    s3.authorise(request, signed.caller, Permissions())


def _action(request: HttpRequest) -> str:
    target = request.headers.get("X-Amz-Target")
    if target is not None:
        return target.rpartition(".")[2]
    action = _form(request).get("Action") or request.args.get("Action")
    if action is None:
        raise unsupported(f"which action {request.method} {request.path} is")
    return action


def _form(request: HttpRequest) -> Mapping[str, str]:
    """Return the fields of the body, and restore the body for moto."""
    if request.mimetype != _FORM:
        return {}
    body = request.get_data(cache=True, parse_form_data=False)
    request.environ["wsgi.input"] = io.BytesIO(body)
    return dict(parse_qsl(body.decode(), keep_blank_values=True))


def _use_host_name(environ: WSGIEnvironment) -> None:
    """Replace the host 127.0.0.1 by localhost. moto would read "127" as a bucket's name."""
    host, colon, port = environ.get("HTTP_HOST", "").partition(":")
    if host == "127.0.0.1":
        environ["HTTP_HOST"] = f"localhost{colon}{port}"


def _hang_up(environ: Mapping[str, Any]) -> None:
    connection: socket.socket | None = environ.get("werkzeug.socket")
    if connection is not None:
        connection.shutdown(socket.SHUT_RDWR)
