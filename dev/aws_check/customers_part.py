"""The customer's steps: its stack, the proof, credentials, drift, rotation, and the end."""

import json
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from dev.aws_check import stacks
from dev.aws_check.accounts import CheckError, session_of
from dev.aws_check.answers import ALLOWED, code_of, until
from dev.aws_check.stage import Stage, there
from dev.demo import expect, fact, show_proof, stack_of

_INERT = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}
)
_ISSUED = 3600  # seconds
_PAUSE = 10.0  # seconds between two proofs that the check requests


def onboard(stage: Stage) -> None:
    """Launch the customer's stack by CloudFormation's API, and wait for registration and proof."""
    account, answers = stage.customer, stage.answers
    stage.tenant = stage.api(
        "POST", "/v1/tenants", {"name": f"AWS check {stage.run.id}"}, expect=201
    )
    wanted = stack_of(stage.kit()["launch_stack_url"])
    fact("stack", wanted["StackName"])
    mistyped = wanted | {
        "Parameters": [one | _bad(one["ParameterKey"]) for one in wanted["Parameters"]]
    }
    answers.ask(
        "a stack with a parameter that its pattern refuses",
        lambda: account.client("cloudformation").create_stack(**mistyped, Tags=stage.run.tags),
    )
    stacks.create(account, stage.run, wanted, wait=False)
    done = partial(stacks.at_rest, account, wanted["StackName"])
    answers.waited("the customer's stack is complete, and answered", done, 900)
    stacks.complete(account, wanted["StackName"], "CREATE_COMPLETE")

    def proven() -> dict[str, Any] | None:
        found = stage.api("GET", f"{stage.of_tenant}/connections")["items"]
        return next((dict(one) for one in found if one["status"] == "verified"), None)

    stage.connection = answers.waited("the registered role is proven", proven, 300)
    fact("role", stage.connection["role_arn"])
    show_proof(stage.connection)
    checks = stage.connection["verification"]["checks"]
    not_passed = [f"{one['name']} {one['outcome']}" for one in checks if one["outcome"] != "passed"]
    answers.note("the proof's checks", ", ".join(not_passed) or "all passed")


def _bad(name: str) -> dict[str, str]:
    return {"ParameterValue": "dpy-mistyped"} if name == "ExternalId" else {}


def ask_sts(stage: Stage) -> None:
    """Ask STS directly what Deputy's proofs rely on."""
    answers = stage.answers
    sts, role = there(stage.broker, "the broker").client("sts"), stage.connection["role_arn"]
    own = stage.tenant["external_id"]

    def assume(arn: str = role, **more: Any) -> Callable[[], Any]:
        terms = {
            "RoleArn": arn,
            "RoleSessionName": "aws-check",
            "DurationSeconds": 900,
            "Policy": _INERT,
        } | more
        return lambda: sts.assume_role(**terms)

    for question, call in (
        ("AssumeRole with the External ID", assume(ExternalId=own)),
        ("AssumeRole without an External ID", assume()),
        ("AssumeRole with a stranger's External ID", assume(ExternalId=f"dpy-{'0' * 64}")),
        ("AssumeRole of a role that does not exist", assume(f"{role}-absent", ExternalId=own)),
        ("AssumeRole with a space in the External ID", assume(ExternalId="a b")),
        (
            "AssumeRole for longer than role chaining allows",
            assume(ExternalId=own, DurationSeconds=3601),
        ),
        ("AssumeRole with a session policy that is no policy", assume(ExternalId=own, Policy="{}")),
        (
            "AssumeRole of a role of the broker's own account",
            assume(stage.settings["DEPUTY_BROKER_PRINCIPAL_ARN"], ExternalId=own),
        ),
    ):
        answers.ask(question, call)
    session = assume(ExternalId=own)()
    unique_id = stage.customer.client("iam").get_role(RoleName=stage.role_name)["Role"]["RoleId"]
    same = session["AssumedRoleUser"]["AssumedRoleId"] == f"{unique_id}:aws-check"
    answers.note(
        "the id in a session's AssumedRoleId", "the role's unique id" if same else "another"
    )
    with closing(session_of(session["Credentials"], stage.customer.region).client("sts")) as inert:
        arn = inert.get_caller_identity()["Arn"]
    wanted = (
        f"arn:{stage.customer.partition}:sts::{stage.customer.id}"
        f":assumed-role/{stage.role_name}/aws-check"
    )
    answers.note(
        "the session's own identity",
        "the assumed role and the session's name" if arn == wanted else arn,
    )
    with closing(session_of(session["Credentials"], stage.customer.region).client("s3")) as s3:
        answers.ask("an inert session that lists buckets", s3.list_buckets)


def examine(stage: Stage) -> None:
    """Run doctor, and record its warnings.

    A public address on this machine is intended here, and is no finding.
    """
    ready = partial(stage.api, "GET", "/readyz")
    with suppress(CheckError):  # doctor says why
        until(
            "the background worker has reported", lambda: not _not_ok(ready()["checks"]) or None, 60
        )
    found = json.loads(there(stage.deputy, "Deputy").doctor())["checks"]
    wrong = [f"{one['name']}: {one['seen']}" for one in _not_ok(found) if one["name"] != "settings"]
    stage.answers.note("what doctor warns of", " ".join(wrong) or "nothing")


def _not_ok(checks: list[dict[str, str]]) -> list[dict[str, str]]:
    return [one for one in checks if one["status"] in {"warning", "failed"}]


def work(stage: Stage) -> None:
    stage.issued = issued = stage.issue()
    answers = stage.answers
    left = (datetime.fromisoformat(issued["Expiration"]) - datetime.now(UTC)).total_seconds()
    fact("session", f"{issued['AccessKeyId']}, expires {issued['Expiration']}")
    whole = _ISSUED - 60 < left <= _ISSUED
    answers.note(
        "issued credentials: seconds until they expire", str(_ISSUED if whole else round(left))
    )
    with closing(session_of(issued, stage.customer.region).client("s3")) as s3:
        answers.ask("issued credentials: list the buckets", s3.list_buckets)
    with closing(session_of(issued, stage.customer.region).client("iam")) as iam:
        answers.ask("issued credentials: list the IAM users", iam.list_users)


def drift(stage: Stage) -> None:
    """Loosen the customer's trust policy, and repair it after Deputy has detected it.

    Meanwhile Deputy must not issue.
    """
    iam, answers = stage.customer.client("iam"), stage.answers
    good = iam.get_role(RoleName=stage.role_name)["Role"]["AssumeRolePolicyDocument"]
    loose = json.loads(json.dumps(good))
    del loose["Statement"][0]["Condition"]["StringEquals"]
    iam.update_assume_role_policy(RoleName=stage.role_name, PolicyDocument=json.dumps(loose))
    # A routine proof comes every hour. A worker's report makes it due now, perhaps before IAM has
    # propagated the change.
    stage.api("POST", f"{stage.of_connection}/report-refused", expect=202)
    found = answers.waited(
        "a loosened trust policy is found", _becomes(stage, "insecure", asking_after=_PAUSE), 300
    )
    fact("found", found["why"])
    fact("credentials", f"refused: {stage.issue(409)['code']}")
    iam.update_assume_role_policy(RoleName=stage.role_name, PolicyDocument=json.dumps(good))
    answers.waited("a mended trust policy is found", _becomes(stage, "verified"), 300)
    stage.issue()


def _becomes(
    stage: Stage, status: str, *, asking_after: float = 0
) -> Callable[[], dict[str, Any] | None]:
    ask = _asking(stage, asking_after)

    def look() -> dict[str, Any] | None:
        ask()
        found = dict(stage.api("GET", stage.of_connection))
        return found if found["status"] == status else None

    return look


def _asking(stage: Stage, after: float) -> Callable[[], None]:
    """Return a function that requests a proof at intervals.

    IAM may propagate a change after the proof that the change caused.
    """
    due = time.monotonic() + after

    def ask() -> None:
        nonlocal due
        if time.monotonic() >= due:
            stage.api("POST", f"{stage.of_connection}/verify")
            due = time.monotonic() + _PAUSE

    return ask


def rotate(stage: Stage) -> None:
    """Replace the External ID, while credentials are issued without interruption."""
    path = f"{stage.of_tenant}/external-id/rotation"
    opened = stage.api("POST", path, {"reason": "aws-check"}, expect=201)
    fact("next ID", opened["next_external_id"])
    _update(stage)
    # Two proofs, two minutes apart, must find that the role accepts it.
    until("the connection has switched to the next External ID", _rotation(stage, "ready"), 900)
    stage.issue()
    stage.api("POST", f"{path}/complete")
    _update(stage)
    until(
        "the role refuses the old External ID, and it is retired", _rotation(stage, "retired"), 900
    )
    stage.issue()
    stage.tenant = stage.api("GET", stage.of_tenant)
    expect(
        stage.tenant["external_id"] == opened["next_external_id"],
        "the next External ID must be the current one",
    )


def _update(stage: Stage) -> None:
    """Update the stack as the kit says."""
    wanted, account = stack_of(stage.kit()["launch_stack_url"]), stage.customer
    cloudformation = account.client("cloudformation")
    cloudformation.update_stack(**wanted)
    stacks.complete(account, wanted["StackName"], "UPDATE_COMPLETE", minutes=15)
    stage.answers.ask(
        "an update that changes nothing", lambda: cloudformation.update_stack(**wanted)
    )
    stage.issue()


def _rotation(stage: Stage, state: str) -> Callable[[], bool | None]:
    ask = _asking(stage, _PAUSE)

    def look() -> bool | None:
        ask()
        return stage.api("GET", f"{stage.of_tenant}/external-id/rotation")["state"] == state or None

    return look


def suspend(stage: Stage) -> None:
    stage.api("POST", f"{stage.of_tenant}/suspend", {"reason": "aws-check"})
    fact("credentials", f"refused: {stage.issue(409)['code']}")
    stage.api("POST", f"{stage.of_tenant}/resume", {"reason": "aws-check"})
    stage.issue()


def leave(stage: Stage) -> None:
    """Delete the tenant, and then the customer's stack, while no background worker runs."""
    answers, account = stage.answers, stage.customer
    stage.api("DELETE", stage.of_tenant, expect=204)
    fact("credentials", f"refused: {stage.issue(404)['code']}")
    deputy, cloudformation = there(stage.deputy, "Deputy"), account.client("cloudformation")
    name = stage.role_name  # the kit gives the stack the role's name
    stack_id = cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackId"]
    deputy.stop_worker()
    cloudformation.delete_stack(StackName=stack_id)
    answers.waited(
        "the customer's stack is deleted", partial(stacks.at_rest, account, stack_id), 300
    )
    deputy.ensure_worker()
    status = cloudformation.describe_stacks(StackName=stack_id)["Stacks"][0]["StackStatus"]
    answers.note("a stack deleted while nobody answers its messages", status)
    answers.ask(
        "a deleted stack, described by its name",
        lambda: cloudformation.describe_stacks(StackName=name),
    )
    with closing(session_of(stage.issued, account.region).client("sts")) as sts:
        _ask_once_refused(stage, sts.get_caller_identity)


def _ask_once_refused(stage: Stage, call: Callable[[], object]) -> None:
    """Record the answer when it is a refusal: a deleted role stays effective for a moment."""
    question = "issued credentials after their role was deleted"
    with suppress(CheckError):
        until(question, lambda: code_of(call) != ALLOWED or None, 120)
    stage.answers.ask(question, call)
