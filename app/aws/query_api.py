"""A client of AWS's Query protocol, built on parts of botocore, at half the cost of boto3.

A boto3 client spends most of a call on events, endpoint rules and parameter checks, and it signs
for only one identity. This client takes the credentials with each call. botocore still finds the
endpoint, finds and renews our credentials, signs (Signature Version 4), handles TLS and proxies,
writes forms, and parses answers and errors.
"""

import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3
from botocore import UNSIGNED, __version__ as botocore_version
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError, NoCredentialsError
from botocore.httpsession import ProxyConfiguration, get_cert_path
from botocore.parsers import QueryParser
from botocore.regions import EndpointResolver
from botocore.retries.quota import RetryQuota
from botocore.serialize import QuerySerializer
from botocore.session import Session
from botocore.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from app import metrics
from app.aws.breaker import Breaker
from app.aws.errors import AWS_ERRORS, is_silence, outcome_of
from app.aws.tls import ca_bundle
from app.concurrency.places import pause, without_places
from app.strict_json import JsonObject

_CONNECTIONS = 1024  # kept connections; slots do not limit the requests that wait for AWS
_MOMENT = 1.0  # seconds; AWS keeps idle connections open for longer

# A call is retried once after a transient failure, while the retry quota lasts. AWS does not raise
# STS's rate limit, and many retries would use up other tenants' calls. The quota is a hundred
# retries. Calls that succeed refill it, as in boto's standard retry mode.
PAUSE = 0.3  # seconds; maximum backoff before the retry
_QUOTA = 500
_RETRY_COST = 5

_HEADERS = {
    "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
    "User-Agent": f"Deputy Botocore/{botocore_version}",  # the customer sees it in CloudTrail
}

Budget = Callable[[], AbstractContextManager[None]]  # surrounds a request, and may delay it


class QueryApi:
    """A client of STS or IAM in one region, with one pool of connections.

    Callers surround a call, and what they do with its answer, with its `breaker`.

    It is safe to share among threads and greenlets. It looks up endpoint, CA and proxies once, in
    the same places as boto3 (AWS_ENDPOINT_URL, AWS_CA_BUNDLE, HTTPS_PROXY, the profile). It looks
    up Deputy's own credentials until it finds some. From then on, they renew themselves.
    """

    def __init__(self, service: str, region: str, boto: Session, timeouts: urllib3.Timeout) -> None:
        self.breaker = Breaker()  # one for each service: IAM may be unavailable while STS works
        self._service = service
        self._boto = boto
        self._finding_credentials = threading.Lock()  # a botocore session is not thread-safe
        # This client is never called. It resolves the endpoint from partition, FIPS and
        # environment.
        boto.set_config_variable("sts_regional_endpoints", "regional")
        unsigned = BotoConfig(signature_version=UNSIGNED)
        metadata = boto.create_client(service, region, config=unsigned).meta
        # IAM is global in its partition: its requests are signed for one region of the partition.
        endpoint = EndpointResolver(boto.get_data("endpoints")).construct_endpoint(service, region)
        scope = (endpoint or {}).get("credentialScope", {})
        self._region: str = scope.get("region", region)
        self.url = f"{metadata.endpoint_url.rstrip('/')}/"
        # Without the Host header, botocore would parse the address twice for each signature.
        self._headers = _HEADERS | {"Host": urlsplit(self.url).netloc}
        self._model = metadata.service_model
        # The standard library parses times; botocore's own parser takes thirty times as long.
        self._parser = QueryParser(timestamp_parser=datetime.fromisoformat)
        self._serializer = QuerySerializer()
        self._quota = RetryQuota(_QUOTA)
        ca_certs = get_cert_path(ca_bundle(boto))
        self._pool, self._target = _pool(self.url, ca_certs, timeouts)

    def call(
        self,
        action: str,
        parameters: JsonObject,
        credentials: ReadOnlyCredentials | None = None,
        budget: Budget = nullcontext,
    ) -> JsonObject:
        """Call `action` with these credentials (None: our own), and return the answer.

        `budget` surrounds each request. A transient failure is retried once. Raises ClientError
        for an error that AWS answers, and the other AWS_ERRORS, as a boto3 client does.
        """
        try:
            credentials = credentials or self.own_credentials()
        except AWS_ERRORS as error:
            metrics.AWS_CALLS.labels(action, outcome_of(error)).inc()
            raise
        try:
            with budget():
                answer = self.once(action, parameters, credentials)
        except (ClientError, HTTPError) as error:
            if not is_silence(error) or not self._quota.acquire(_RETRY_COST):
                raise
            # Jitter: calls that failed together must not retry together.
            pause(random.uniform(0, PAUSE))  # noqa: S311
            with budget():
                answer = self.once(action, parameters, credentials)
            self._quota.release(_RETRY_COST)
        self._quota.release(1)
        return answer

    def once(
        self, action: str, parameters: JsonObject, credentials: ReadOnlyCredentials
    ) -> JsonObject:
        """Call `action` as `call` does, but without a retry."""
        try:
            operation = self._model.operation_model(action)
            body = urlencode(self._serializer.serialize_to_request(parameters, operation)["body"])
            request = AWSRequest(method="POST", url=self.url, data=body, headers=self._headers)
            SigV4Auth(credentials, self._service, self._region).add_auth(request)
            with without_places():
                response = self._pool.urlopen(
                    "POST",
                    self._target,
                    body=body.encode(),
                    headers=dict(request.headers.items()),
                    retries=False,
                    redirect=False,
                    assert_same_host=False,  # the check would mistake a proxy for another host
                )
            shape: Any = operation.output_shape
            answer: JsonObject = self._parser.parse(
                {
                    "status_code": response.status,
                    "headers": response.headers,
                    "body": response.data,
                },
                shape,
            )
            if response.status >= 300:
                failed: Any = answer
                raise ClientError(failed, action)
        except AWS_ERRORS as error:
            metrics.AWS_CALLS.labels(action, outcome_of(error)).inc()
            raise
        metrics.AWS_CALLS.labels(action, "ok").inc()
        return answer

    def own_credentials(self) -> ReadOnlyCredentials:
        """Return Deputy's own credentials. Raises one of AWS_ERRORS if there are none."""
        with self._finding_credentials:
            credentials = self._boto.get_credentials()  # the session caches them
        if credentials is None:
            raise NoCredentialsError
        try:
            return credentials.get_frozen_credentials()
        except RuntimeError as error:  # botocore's, if what it has just renewed has expired already
            raise NoCredentialsError from error


class _Prompt(HTTPConnection):
    """A connection that sends a request in one packet.

    If it was used within the last second, it also skips the check whether it is still open. urllib3
    sends headers and form as two packets, and asks the kernel before each request whether the
    connection is open. Both together take a quarter more CPU (docs/performance.md). If the server
    has closed the connection within that second, the request has to be retried.
    """

    _held: list[bytes] | None = None
    _used = -_MOMENT

    @property
    def is_connected(self) -> bool:
        just_used = self.sock is not None and time.monotonic() - self._used < _MOMENT
        return just_used or super().is_connected

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._held = []
        try:
            super().request(*args, **kwargs)
            whole = b"".join(self._held)
        finally:
            self._held = None
        super().send(whole)
        self._used = time.monotonic()

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)  # the CONNECT request of a tunnel
        else:
            self._held.append(data)


class _PromptTls(_Prompt, HTTPSConnection):
    """The same connection with TLS."""


def _pool(
    url: str, ca_certs: str | None, timeouts: urllib3.Timeout
) -> tuple[urllib3.HTTPConnectionPool, str]:
    """Return a pool of connections to `url`, and the request target on them.

    The connections go through the environment's proxy if there is one.
    """
    settings: JsonObject = {
        "maxsize": _CONNECTIONS,
        "timeout": timeouts,
        "cert_reqs": "CERT_REQUIRED",
        "ca_certs": ca_certs,
        # Otherwise the kernel delays each form by 40 ms to wait for more data.
        "socket_options": [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    }
    parts, proxies = urlsplit(url), ProxyConfiguration(get_environ_proxies(url))
    proxy: Any = proxies.proxy_url_for(url)
    if proxy is None:
        manager, target = urllib3.PoolManager(**settings), parts.path
    else:
        manager = urllib3.ProxyManager(
            proxy, proxy_headers=proxies.proxy_headers_for(proxy), **settings
        )
        # A proxy gets the whole URL for plain HTTP, and only the path through a tunnel.
        target = url if parts.scheme == "http" else parts.path
    pool = manager.connection_from_url(url)
    pool.ConnectionCls = _PromptTls if pool.scheme == "https" else _Prompt
    return pool, target
