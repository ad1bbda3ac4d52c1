"""`make demo`: onboarding and issuing in the terminal, through the API and the sandbox's AWS.

It uses a running service (`make run`, identified by its data folder), or starts one.
"""

import argparse
import copy
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3
import requests
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError

from dev.ports import free_port
from dev.run_settings import Settings, StackError, ensure_fresh_shell
from dev.stack import Stack, running

ACME = "444455556666"
GLOBEX = "777788889999"

_WAIT_SECONDS = 60


class DemoError(Exception):
    """A step had an unexpected result."""


class Api:
    """The REST API with one key."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._http = requests.Session()
        self._http.headers["Authorization"] = f"Bearer {key}"

    def __call__(self, method: str, path: str, body: Any = None, *, expect: int) -> Any:
        answer = self._http.request(method, f"{self._url}{path}", json=body, timeout=30)
        if answer.status_code != expect:
            raise DemoError(
                f"{method} {path} answered {answer.status_code}, not {expect}: {answer.text}"
            )
        return answer.json() if answer.content else None


def main() -> int:
    argparse.ArgumentParser(prog="make demo", description=__doc__).parse_args()
    forget_own_aws()
    sys.unraisablehook = _interrupt_again
    try:
        with service() as run:
            tell(run)
    except (StackError, DemoError, ClientError, requests.RequestException) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _interrupt_again(dropped: "sys.UnraisableHookArgs") -> None:
    """Interrupt the program again if Python dropped a Ctrl-C, which it does in finalizers."""
    if isinstance(dropped.exc_value, KeyboardInterrupt):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(dropped)


def forget_own_aws() -> None:
    """Keep the user's own AWS profile, keys and files out of the demo."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            del os.environ[name]
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


@contextmanager
def service() -> Iterator[dict[str, str]]:
    """Yield the addresses and the key of a running service.

    Without a running service, one is started here and stopped afterwards.
    """
    settings = Settings.from_environment(os.environ)
    if run := running(settings):
        receiver = Path(run["receiver_log"])
        # `make example` has permission sets of its own
        if not receiver.exists() and receiver.with_name("product.log").exists():
            raise DemoError(
                f"{settings.data} is in use by `make example`, and the demo needs `make run`. Stop"
                " the example, or set DEPUTY_DATA_DIR to another folder for the demo."
            )
        print(f"Using the service that runs at {run['url']}.")
        yield run
        return
    ensure_fresh_shell(os.environ)
    print("No service runs; starting one for the demo (a few seconds) …", flush=True)
    with tempfile.TemporaryDirectory(prefix="deputy-demo-") as folder:
        own = replace(settings, port=free_port(), sandbox_port=free_port(), data=Path(folder))
        with Stack(own, os.environ) as stack:
            stack.web_processes = 1  # the demo sends one request after the other
            stack.prepare()
            stack.start_sandbox()
            stack.publish()
            stack.start_worker()
            stack.start_web()
            stack.start_receiver()
            yield running(own) or {}
            print("\nStopping the service that was started for the demo.", flush=True)


def tell(run: dict[str, str]) -> None:
    url, sandbox_url, admin = run["url"], run["sandbox_url"], Api(run["url"], run["admin_key"])
    connection = onboard(admin, sandbox_url)
    show_webhook(Path(run["receiver_log"]), connection["tenant_id"])
    work(url, admin, sandbox_url, connection)
    globex = admin("POST", "/v1/tenants", {"name": "Globex"}, expect=201)
    attack_with_a_stolen_role(admin, globex, connection["role_arn"])
    attack_with_an_open_role(admin, sandbox_url, globex)
    a_week_later(admin, sandbox_url, connection)
    show_audit(admin)
    print("\nDone: onboarded, proven, used, both attacks refused, and a loosened role stopped.")


def onboard(admin: Api, sandbox_url: str) -> dict[str, Any]:
    step(1, "The vendor creates a tenant for its customer Acme")
    acme = admin("POST", "/v1/tenants", {"name": "Acme"}, expect=201)
    fact("External ID", acme["external_id"])

    step(2, "Acme's administrator gets a launch link")
    kit = admin("GET", f"/v1/tenants/{acme['id']}/onboarding", expect=200)
    fact("link", kit["launch_stack_url"])
    fact("asks for", f"the permission set {kit['permission_set']}, for the role {kit['role_name']}")

    step(3, f"The administrator opens it in Acme's AWS account ({ACME}) and creates the stack")
    launch(sandbox_url, ACME, kit["launch_stack_url"])

    step(4, "The stack registers its role with Deputy, which proves it")
    connection = await_connection(admin, acme["id"], "verified")
    fact("role", connection["role_arn"])
    show_proof(connection)
    return connection


def show_webhook(log: Path, tenant_id: str) -> None:
    """Show the event that the receiver got. With a user's own database there is no receiver."""
    if log.exists():
        *_, line = await_webhook(log, tenant_id)
        fact("webhook", f"{line.split()[1]}, signed, at the vendor's product")


def await_webhook(log: Path, tenant_id: str) -> list[str]:
    """Return the receiver's lines about a tenant, up to that about its verified connection."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        lines: list[str] = []
        for line in log.read_text().splitlines():
            if tenant_id in line:
                lines.append(line)
                if " connection.verified " in line:
                    return lines
        time.sleep(0.1)
    raise DemoError(f"The receiver got no webhook within {_WAIT_SECONDS} seconds; see {log}")


def work(url: str, admin: Api, sandbox_url: str, connection: dict[str, Any]) -> None:
    step(5, "The vendor's worker gets credentials, with a key that can do nothing else")
    tenant_id = connection["tenant_id"]
    body = {"name": "demo worker", "scopes": ["credentials:issue"], "tenant_id": tenant_id}
    worker = Api(url, admin("POST", "/v1/api-keys", body, expect=201)["key"])
    issued = worker("POST", f"{path_of(connection)}/credentials", {"reason": "demo"}, expect=200)
    fact("session", f"{issued['AccessKeyId']}, expires {issued['Expiration']}")

    step(6, "With these credentials it lists the buckets in Acme's account")
    keys = (issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"])
    with closing(aws(sandbox_url, "s3", *keys)) as s3:
        buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
        for bucket in buckets:
            names = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
            fact("bucket", f"{bucket}: {', '.join(names) or 'empty'}")
        expect("deputy-shared-acme" in buckets, "Acme's bucket must be listed")
        try:
            s3.put_object(Bucket=buckets[0], Key="x", Body=b"x")
        except ClientError as error:
            code = error.response["Error"]["Code"]
            fact("writing", f"refused by AWS ({code}): the permission set only reads")
        else:
            raise DemoError("AWS allowed what it must refuse")


def attack_with_a_stolen_role(admin: Api, globex: dict[str, Any], role_arn: str) -> None:
    step(7, "ATTACK: the customer Globex registers Acme's role as its own (a confused deputy)")
    print(
        "     (Deputy tries a refusing role for 5 s, because a new role refuses for some seconds)",
        flush=True,
    )
    path = f"/v1/tenants/{globex['id']}/connections"
    stolen = admin("POST", path, {"role_arn": role_arn}, expect=201)
    show_proof(stolen)
    expect(stolen["status"] == "pending", "a stolen role must stay pending")
    show_refusal(admin, stolen)
    fact("why", "Deputy sent Globex's own External ID, and Acme's role accepts only Acme's")


def attack_with_an_open_role(admin: Api, sandbox_url: str, globex: dict[str, Any]) -> None:
    step(8, "DANGER: Globex makes a role that does not require its External ID")
    kit = admin("GET", f"/v1/tenants/{globex['id']}/onboarding", expect=200)
    trust = json.dumps(loosened(kit["trust_policy"]))
    with closing(aws(sandbox_url, "iam", GLOBEX)) as iam:
        role = iam.create_role(RoleName=kit["role_name"], AssumeRolePolicyDocument=trust)["Role"]
    path = f"/v1/tenants/{globex['id']}/connections"
    insecure = admin("POST", path, {"role_arn": role["Arn"]}, expect=201)
    show_proof(insecure)
    expect(insecure["status"] == "insecure", "a role that accepts others must be insecure")
    show_refusal(admin, insecure)
    fact("why", insecure["why"])


def a_week_later(admin: Api, sandbox_url: str, connection: dict[str, Any]) -> None:
    step(9, "A WEEK LATER: Acme's administrator loosens the role's trust policy")
    tenant, path = connection["tenant_id"], path_of(connection)
    trust = admin("GET", f"/v1/tenants/{tenant}/onboarding", expect=200)["trust_policy"]
    with closing(aws(sandbox_url, "iam", ACME)) as iam:
        retrust(iam, connection, loosened(trust))
        print(
            "     (A routine proof finds it within an hour. A worker's report makes one due now.)",
            flush=True,
        )
        admin("POST", f"{path}/report-refused", expect=202)
        fact("found", await_connection(admin, tenant, "insecure")["why"])
        show_refusal(admin, connection)
        events = f"/v1/audit-events?connection_id={connection['id']}&limit=1"
        events += "&action=connection.proof_failed"
        [event] = admin("GET", events, expect=200)["items"]
        seconds = event["details"]["exposed_for_seconds_at_most"]
        fact("open for", f"{seconds} s at most, since the last proof that passed")
        retrust(iam, connection, trust)
    admin("POST", f"{path}/verify", expect=200)
    await_connection(admin, tenant, "verified")
    fact("repaired", "the next proof passes, and credentials are issued again")


def loosened(trust: dict[str, Any]) -> dict[str, Any]:
    """Return a kit's trust policy without its condition on the External ID."""
    loose = copy.deepcopy(trust)
    del loose["Statement"][0]["Condition"]["StringEquals"]
    return loose


def retrust(iam: Any, connection: dict[str, Any], trust: dict[str, Any]) -> None:
    name = connection["role_arn"].rpartition("/")[2]
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust))


def await_connection(admin: Api, tenant_id: str, status: str) -> dict[str, Any]:
    """Wait until a connection of the tenant has this status, and return it."""
    path = f"/v1/tenants/{tenant_id}/connections?status={status}"
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        for connection in admin("GET", path, expect=200)["items"]:
            return dict(connection)
        time.sleep(0.2)
    raise DemoError(
        f"No connection was {status} within {_WAIT_SECONDS} seconds. Is its stack created?"
    )


def show_audit(admin: Api) -> None:
    step(10, "The audit log has all of it, newest first")
    for event in admin("GET", "/v1/audit-events?limit=8", expect=200)["items"]:
        print(
            f"     {event['at'][:19]}  {event['action']:<27} {event['outcome']:<8}"
            f" {event['actor']['name']}"
        )


def launch(sandbox_url: str, account: str, link: str) -> None:
    """Create the stack as clicks on the launch link and on "Create stack" do."""
    arguments = stack_of(link)
    with closing(aws(sandbox_url, "cloudformation", account)) as cloudformation:
        cloudformation.create_stack(**arguments)
        waiter = cloudformation.get_waiter("stack_create_complete")
        options = {"Delay": 0.5, "MaxAttempts": 2 * _WAIT_SECONDS}
        try:
            waiter.wait(StackName=arguments["StackName"], WaiterConfig=options)
        except WaiterError as error:
            raise DemoError(f"The stack must be complete: {error}") from error
    fact("stack", f"{arguments['StackName']} CREATE_COMPLETE")


def stack_of(link: str) -> dict[str, Any]:
    """Return the arguments of create_stack for a launch link and the console's check box."""
    query = dict(parse_qsl(urlsplit(link).fragment.partition("?")[2]))
    arguments = {"StackName": query.pop("stackName"), "TemplateURL": query.pop("templateURL")}
    return arguments | {
        "Parameters": [
            {"ParameterKey": name.removeprefix("param_"), "ParameterValue": value}
            for name, value in query.items()
        ],
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
    }


def aws(
    sandbox_url: str,
    service: str,
    key: str,
    secret: str = "sandbox",  # noqa: S107
    token: str | None = None,
) -> Any:
    """Return a boto3 client of the sandbox. A key of twelve digits is that account's root."""
    return boto3.session.Session().client(
        service,  # type: ignore[call-overload]
        region_name="us-east-1",
        endpoint_url=sandbox_url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(retries={"total_max_attempts": 1}),
    )


def show_proof(connection: dict[str, Any]) -> None:
    for check in connection["verification"]["checks"]:
        print(f"     {check['outcome']:<13} {check['name']}")
    fact("connection", connection["status"])


def show_refusal(admin: Api, connection: dict[str, Any]) -> None:
    refusal = admin("POST", f"{path_of(connection)}/credentials", expect=409)
    fact("credentials", f"refused: {refusal['code']}")


def path_of(connection: dict[str, Any]) -> str:
    return f"/v1/tenants/{connection['tenant_id']}/connections/{connection['id']}"


def step(number: int, text: str) -> None:
    print(f"\n{number}. {text}", flush=True)


def fact(name: str, text: str) -> None:
    print(f"     {name + ':':<13} {text}", flush=True)


def expect(truth: bool, text: str) -> None:  # noqa: FBT001
    if not truth:
        raise DemoError(text)


if __name__ == "__main__":
    sys.exit(main())
