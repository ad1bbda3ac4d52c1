"""The AWS SDKs for JavaScript, from npm with pinned versions, and a machine that has a role of
its own.
"""

import json
import re
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.client.people import environment, run, served
from tests.support.node import NODE, installed

SOURCE = Path(__file__).parent / "javascript"
INSTANCE = "555500001111"  # the accounts of the worker's own roles: that of its EC2 instance,
TASK = "555500002222"  # and that of its ECS task


def _credentials_of(account):
    return {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": account,  # to the sandbox, the account's root
        "SecretAccessKey": "sandbox",
        "Token": "sandbox",
        "LastUpdated": "2026-01-01T00:00:00Z",
        "Expiration": "2099-01-01T00:00:00Z",
    }


def _metadata_service(environ, start_response):
    """EC2's (IMDSv2), and at /task ECS's; each gives the credentials of a role of the worker's
    own.
    """
    role = "/latest/meta-data/iam/security-credentials"
    answers = {
        "/latest/api/token": "a token",
        role: "worker",
        f"{role}/": "worker",
        f"{role}/worker": json.dumps(_credentials_of(INSTANCE)),
        "/task": json.dumps(_credentials_of(TASK)),
    }
    body = answers.get(environ["PATH_INFO"])
    headers = [
        ("Content-Type", "application/json"),
        ("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600"),
    ]
    start_response("404 Not Found" if body is None else "200 OK", headers)
    return [(body or "").encode()]


class Machine:
    """An instance with Node.js, whose own role is to be had from the metadata service."""

    def __init__(self, node_home, metadata, aws_url):
        self._node_home = node_home
        self.metadata = metadata
        # Empty, as v2 takes "false" for yes.
        self.own = {"AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata}
        self.own |= {"AWS_ENDPOINT_URL": aws_url, "AWS_SDK_LOAD_CONFIG": "1"}
        self.own |= {"AWS_SDK_JS_SUPPRESS_MAINTENANCE_MODE_MESSAGE": "1"}
        self.own |= {"NODE_PATH": str(node_home / "node_modules")}

    def who(self, program, *words, **variables):
        """What the program prints: the account that it works in, or AWS's or the SDK's error."""
        script = self._node_home / program
        done = run(NODE, script, *words, env=environment(**self.own | variables))
        assert done.returncode == 0, done.stderr
        return re.sub(r"\s+", " ", done.stdout).strip()


@contextmanager
def machine(cache, aws_url):
    home = installed(SOURCE, cache)
    with ExitStack() as stack:
        port = stack.enter_context(served(_metadata_service))
        yield Machine(home, f"http://127.0.0.1:{port}", aws_url)
