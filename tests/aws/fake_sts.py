"""A server that answers as STS would, or wrongly: the given answers in order. It keeps the
requests.

Only this can send what the sandbox never would: every error code, answers that are none, and two
that disagree.
"""

import json
import ssl
import threading
from datetime import UTC, datetime
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote

from app.aws.session_names import ProofNames
from app.aws.sts import Session, Sts
from app.ids import Broker

ACCOUNT = "444455556666"
EXPIRES = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
SESSION = Session(
    "ASIAEXAMPLEEXAMPLE01",
    "the secret",
    "the token",
    EXPIRES,
    ACCOUNT,
    "AROAEXAMPLE",
    "deputy-session",
)
PROOF_NAMES = ProofNames(("a secret key for the tests of STS",))
PRINCIPAL = Broker.parse("arn:aws:iam::111122223333:role/service/DeputyBroker")
OWN_KEYS = {"AWS_ACCESS_KEY_ID": "AKIABROKER", "AWS_SECRET_ACCESS_KEY": "x"}
NAMESPACE = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'


def new_sts(region="eu-west-1"):
    return Sts(region, PRINCIPAL, PROOF_NAMES)


def assumed(**changes):
    """AssumeRole's answer as AWS writes it; a field set to None is left out."""
    fields = {
        "AssumedRoleId": "AROAEXAMPLE:deputy-session",
        "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/deputy-0123abcd/deputy-session",
        "AccessKeyId": SESSION.access_key_id,
        "SecretAccessKey": "the secret",
        "SessionToken": "the token",
        "Expiration": "2030-01-02T03:04:05Z",
    } | changes
    user, credentials = (
        "".join(f"<{name}>{fields[name]}</{name}>" for name in names if fields[name] is not None)
        for names in (list(fields)[:2], list(fields)[2:])
    )
    return (
        "<AssumeRoleResponse"
        f" {NAMESPACE}><AssumeRoleResult><AssumedRoleUser>{user}</AssumedRoleUser>"
        f"<Credentials>{credentials}</Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )


def identity(**fields):
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    name = "GetCallerIdentity"
    return f"<{name}Response {NAMESPACE}><{name}Result>{inner}</{name}Result></{name}Response>"


def role(trust, role_id="AROAEXAMPLE"):
    """GetRole's answer, which is IAM's: the trust policy is percent-encoded in it."""
    document = f"<AssumeRolePolicyDocument>{quote(trust, safe='')}</AssumeRolePolicyDocument>"
    inner = f"<Role><Path>/path/</Path><RoleId>{role_id}</RoleId>{document}</Role>"
    return f"<GetRoleResponse><GetRoleResult>{inner}</GetRoleResult></GetRoleResponse>"


def said(action, result):
    """Any answer of IAM's."""
    return f"<{action}Response><{action}Result>{result}</{action}Result></{action}Response>"


def error(code, message=""):
    inner = f"<Type>Sender</Type><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    return f"<ErrorResponse {NAMESPACE}><Error>{inner}</Error></ErrorResponse>"


WHO = identity(
    Arn="arn:aws:sts::111122223333:assumed-role/DeputyBroker/deputy", Account=ACCOUNT, UserId="A:x"
)
CREDENTIALS = {
    "AccessKeyId": "ASIABROKERBROKER0001",
    "SecretAccessKey": "x",
    "Token": "t",
    "Expiration": "2040-01-01T00:00:00Z",
}


class FakeSts:
    """Answers each POST with the next (status, body), and the last one again and again; GET gives
    the broker's credentials.
    """

    def __init__(self, certificate=None):
        self.paths: list[str] = []
        self.answers: list[tuple[int, str]] = [(200, WHO)]
        self.requests: list[tuple[dict[str, str], dict[str, str]]] = []
        self.hangs: str | None = None  # an action that is not answered
        self.ended = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                server.paths.append(self.path)
                server.requests.append((dict(parse_qsl(body)), dict(self.headers)))
                if server.requests[-1][0].get("Action") == server.hangs:
                    server.ended.wait(30)
                    return
                status, text = (
                    server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                )
                self._answer(status, text, "text/xml")

            def do_GET(self):
                self._answer(200, json.dumps(CREDENTIALS), "application/json")

            def _answer(self, status, text, kind):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        if certificate:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(*certificate)
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()

    def close(self):
        self.ended.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
