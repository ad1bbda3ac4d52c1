"""Customers' stacks as far as registration goes: the messages they send, and a place that takes
the answers.
"""

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from app.onboarding.registration_tokens import VoidMessage

BUCKET = "cloudformation-custom-resource-response-useast1"
HOST = f"{BUCKET}.s3.amazonaws.com"
PATH = (
    "/arn%3Aaws%3Acloudformation%3Aus-east-1%3A444455556666%3Astack/s/1%7CRegistration%7C2"
    "?X-Amz-Date=1&X-Amz-Signature=ab%2Fc"
)
TOPIC = "arn:aws:sns:us-east-1:111122223333:registrations"
FRANKFURT = TOPIC.replace("us-east-1", "eu-central-1")
TOPICS = {"us-east-1": TOPIC, "eu-central-1": FRANKFURT}


def handle(registrations, body):
    """Handle one message in this thread. Return whether it can be deleted."""
    request = registrations._request(body)
    if isinstance(request, bool):
        return request
    refusal = None
    try:
        registrations._register(registrations._check(request))
    except VoidMessage as void:
        refusal = registrations._refusal_for(request, void)
    return registrations._answers(request.region).send(request, refusal)


class Answers:
    """An HTTP server that takes PUTs as S3 would, and keeps them. `statuses`: its answers; the
    last one repeats.
    """

    def __init__(self, *statuses, location=None):
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        left = list(statuses or (200,))
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                got.append((self.path, dict(self.headers.items()), body))
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def said(self):
        return [json.loads(body) for _, _, body in self.got]

    @property
    def statuses(self):
        return [answer["Status"] for answer in self.said]

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Stack:
    """One customer's stack. Each request has an id of its own, as CloudFormation's have."""

    permission_set: str | None = None  # name@version, as the templates have it from this release on
    access_until: Any = None  # likewise

    def __init__(self, answers, token, role_arn, *, account=None, region="us-east-1"):
        self.account = account or role_arn.split(":")[4]
        self.region = region
        self.stack_id = (
            f"arn:aws:cloudformation:{region}:{self.account}"
            f":stack/deputy-{uuid.uuid4().hex[:8]}/{uuid.uuid4()}"
        )
        self.answers, self.token, self.role_arn = answers, token, role_arn

    def request(self, kind="Create", **changes):
        """CloudFormation's request; a change to None leaves the field out."""
        bucket = BUCKET.replace("useast1", self.region.replace("-", ""))
        place = f"{self.answers}/{bucket}/{uuid.uuid4()}"
        properties = {
            "ServiceToken": TOPICS[self.region],
            "RegistrationToken": self.token,
            "RoleArn": self.role_arn,
            "TemplateVersion": "0123456789abcdef",
            "PermissionSet": self.permission_set or None,
            "AccessUntil": self.access_until,
        }
        fields = {
            "RequestType": kind,
            "ResponseURL": f"{place}%7CRegistration?X-Amz-Signature=secret-signature",
            "StackId": self.stack_id,
            "RequestId": str(uuid.uuid4()),
            "LogicalResourceId": "Registration",
            "ResourceType": "Custom::DeputyRegistration",
            "ResourceProperties": _without_nones(properties),
            "PhysicalResourceId": None if kind == "Create" else "deputy-as-answered",
        }
        return _without_nones(fields | changes)

    def message(self, kind="Create", **changes):
        request = self.request(kind, **changes)
        return envelope(json.dumps(request), TopicArn=TOPICS[self.region])


def _without_nones(fields):
    return {name: value for name, value in fields.items() if value is not None}


def envelope(message, **changes):
    made = {
        "Type": "Notification",
        "MessageId": str(uuid.uuid4()),
        "TopicArn": TOPIC,
        "Message": message,
    }
    return json.dumps(made | changes)


# What must never be called, for a topic in us-east-1.
HOSTILE_URLS = [
    "",
    "http://169.254.169.254/latest/meta-data/",
    f"http://{HOST}{PATH}",
    f"//{HOST}{PATH}",
    f"https://{HOST.upper()}{PATH}",
    f"https://{HOST}.evil.tld{PATH}",
    f"https://{HOST}.{PATH}",
    f"https://{HOST}:8443{PATH}",
    f"https://{HOST}:{PATH}",
    f"https://{HOST}:0443{PATH}",
    f"https://{HOST}:443:443{PATH}",
    f"https://{HOST}:443@evil.tld{PATH}",
    f"https://x:y@{HOST}{PATH}",
    f"https://@{HOST}{PATH}",
    f"https://evil.tld\\@{HOST}{PATH}",
    f"https://{HOST}\\@evil.tld{PATH}",
    f"https://{HOST}#@evil.tld{PATH}",
    f"https://{HOST}?@evil.tld{PATH}",
    f"https://{HOST}",
    f"https://{HOST}{PATH}#fragment",
    f"https://{HOST}%00.evil.tld{PATH}",
    f"https://{HOST}%2f@evil.tld{PATH}",
    f"https:///{HOST}{PATH}",
    f"https:\\\\{HOST}{PATH}",
    f" https://{HOST}{PATH}",
    f"https://{HOST}{PATH}\r\nHost: evil.tld",
    f"https://{HOST}\n{PATH}",
    f"https://\t{HOST}{PATH}",
    f"https://{HOST}/a b",
    f"https://{HOST}/\u00e9",
    f"https://{HOST.replace('s3', chr(0xFF53) + '3')}{PATH}",  # a full-width s
    # an ideographic full stop, which IDNA reads as a dot
    f"https://{HOST.replace('.', chr(0x3002))}{PATH}",
    "https://[::ffff:169.254.169.254]/",
    f"https://{BUCKET}-evil.s3.amazonaws.com{PATH}",
    f"https://evil.{HOST}{PATH}",
    "https://cloudformation-custom-resource-response-useast2.s3.amazonaws.com/x",
    f"https://{BUCKET}.s3.eu-west-1.amazonaws.com/x",
    f"https://{BUCKET}.s3.us-east-1.amazonaws.com.cn/x",
    f"https://{BUCKET}.s3-website-us-east-1.amazonaws.com/x",
    f"https://{BUCKET}.s3.dualstack.us-east-1.amazonaws.com/x",
    f"https://{BUCKET}xs3.amazonaws.com/x",
    f"https://s3.us-east-1.amazonaws.com/{BUCKET}-evil/x",
    f"https://{HOST}/../other/x",
    f"https://{HOST}/a%2f..%2fx",
    f"https://{HOST}/..%5cx",
    f"https://{HOST}/{'x' * 9000}",
    "http://localhost:4566/cloudformation-custom-resource-response-useast1/x",
]
