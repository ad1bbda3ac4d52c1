"""The sandbox as a server in this process.

    with Sandbox() as aws:
        aws.client("iam", "444455556666")

moto keeps its state in module globals, so a process holds one sandbox at a time. `reset` empties
it.
"""

import socket
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import boto3
from botocore.config import Config
from moto import backends
from moto.moto_api._internal import moto_api_backend
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Request

from sandbox import cfn_waiting, clock, cloudformation, custom_resources, roles, s3, sns, sqs
from sandbox.console.app import console_app
from sandbox.control import control
from sandbox.faults import Faults
from sandbox.front import Front
from sandbox.identity import Identities, Session
from sandbox.organization import organization
from sandbox.sts import Sts, StsCall

if TYPE_CHECKING:
    from sandbox.vendor import VendorStack


class _QuietHandler(MotoRequestHandler):  # type: ignore[misc]  # moto is untyped here
    """A handler with HTTP/1.1, for persistent connections, and without a log of requests."""

    protocol_version = "HTTP/1.1"

    def log(self, *args: Any, **kwargs: Any) -> None:
        pass


class Sandbox:
    """A local AWS. `port=0` takes a free port."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self._address = (host, port)
        self._server: BaseWSGIServer | None = None
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._boto = boto3.session.Session()
        self._boto_lock = threading.Lock()
        self._identities = Identities()
        self.faults = Faults(self._stopping)
        self._sts = Sts(self._identities, self.faults)
        self.vendor: VendorStack | None = None
        self._aws = self._build()
        self._console: WSGIApplication = console_app(lambda: self.url)

    def _build(self) -> Front:
        modules = frozenset(backends.list_of_moto_modules())
        # Cached, because moto would read its own folder for each request
        backends.list_of_moto_modules = lambda: modules
        roles.install()
        cloudformation.install()
        s3.install()
        sqs.install()
        sns.install()
        return Front(
            DomainDispatcherApplication(create_backend_app),
            self._identities,
            self._sts,
            self.faults,
        )

    @property
    def url(self) -> str:
        """The URL with the host localhost instead of an address, as moto needs in a TemplateURL."""
        if self._server is None:
            raise RuntimeError("the sandbox is not started")
        return f"http://localhost:{self._server.port}"

    @property
    def sts_calls(self) -> list[StsCall]:
        """Every attempt to assume a role since the last reset."""
        return self._sts.calls

    @property
    def sts_times(self) -> list[float]:
        """The times of all calls to STS since the last reset, in seconds since 1970."""
        return self._sts.times

    @property
    def broker_arn(self) -> str | None:
        return None if self.vendor is None else self.vendor.broker_principal_arn

    def start(self) -> Self:
        """Start the server.

        Raises OSError if the port is taken.
        """
        self._stopping.clear()
        host, _ = self._address
        # Bound here, because werkzeug would print its own text about a taken port, and exit
        with socket.create_server(self._address) as listener:
            port = listener.getsockname()[1]
            self._server = make_server(
                host, port, self, threaded=True, request_handler=_QuietHandler, fd=listener.fileno()
            )
        custom_resources.serve_at(self.url)
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="sandbox", daemon=True),
            threading.Thread(target=self._expire, name="sandbox-deadlines", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def _expire(self) -> None:
        while not self._stopping.wait(0.2):
            custom_resources.expire()

    def stop(self) -> None:
        if self._server is None:
            return
        self._stopping.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._server.server_close()
        self._server = None

    def reset(self) -> None:
        """Delete all accounts' resources, sessions, faults and recorded calls."""
        custom_resources.clear()
        cfn_waiting.clear()
        organization.clear()
        moto_api_backend.reset()
        self._identities.clear()
        self.faults.clear()
        self._sts.clear()
        self.vendor = None

    def later(self, **by: float) -> AbstractContextManager[None]:
        """Set AWS's clock ahead within the block, for example by hours=1.

        Sessions that exist already become older by the same time.
        """
        return clock.ahead(timedelta(**by))

    def use_vendor(self, vendor: "VendorStack") -> None:
        """Make /_sandbox/broker-credentials return sessions of this vendor's broker from now on."""
        self.vendor = vendor

    def open_session(self, role_arn: str, name: str, seconds: int = 3600) -> Session:
        """Open a session as AWS does for a task or an instance, without a recorded AssumeRole."""
        role = self._identities.role(role_arn)
        if role is None:
            raise LookupError(f"no role {role_arn}")
        return self._identities.open_session(role, name, seconds, policy=None)

    def client(self, service: str, account: str, region: str = "us-east-1", **options: Any) -> Any:
        """Return a boto3 client as the root of an account. The caller closes it."""
        # One session for all clients, because each session would parse AWS's service models
        # again. It is locked, because it is not thread-safe.
        with self._boto_lock:
            return self._boto.client(
                service,  # type: ignore[call-overload]
                region_name=region,
                endpoint_url=self.url,
                aws_access_key_id=account,
                aws_secret_access_key="sandbox",
                config=Config(retries={"total_max_attempts": 1}),
                **options,
            )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith("/_sandbox/"):
            return control(self, Request(environ))(environ, start_response)
        if path.startswith(custom_resources.RESPONSE_PREFIX):
            return custom_resources.respond(Request(environ))(environ, start_response)
        if path == "/console" or path.startswith("/console/"):
            return self._console(environ, start_response)
        return self._aws(environ, start_response)
