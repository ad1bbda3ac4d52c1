"""The customer's steps: its stack, the proof, credentials, drift, rotation, and the end."""

import copy
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
from dev.aws_check.stage import Stage
from dev.demo import expect, fact, loosened, retrust, show_proof, stack_of

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
    stack = stack_of(stage.kit()["launch_stack_url"])
    name = stack["StackName"]
    fact("stack", name)
    mistyped = copy.deepcopy(stack)
    for parameter in mistyped["Parameters"]:
        if parameter["ParameterKey"] == "ExternalId":
            parameter["ParameterValue"] = "dpy-mistyped"
    cloudformation = account.client("cloudformation")
    answers.ask(
        "a stack with a parameter that its pattern refuses",
        lambda: cloudformation.create_stack(**mistyped, Tags=stage.run.tags),
    )
    cloudformation.create_stack(**stack, Tags=stage.run.tags)
    done = partial(stacks.at_rest, account, name)
    answers.waited("the customer's stack is complete, and answered", done, 900)
    stacks.complete(account, name, "CREATE_COMPLETE")

    def proven() -> dict[str, Any] | None:
        path = f"{stage.of_tenant}/connections?status=verified"
        return next(iter(stage.api("GET", path)["items"]), None)

    stage.connection = answers.waited("the registered role is proven", proven, 300)
    fact("role", stage.connection["role_arn"])
    show_proof(stage.connection)
    failures = []
    for check in stage.connection["verification"]["checks"]:
        if check["outcome"] != "passed":
            failures += [f"{check['name']} {check['outcome']}"]
    answers.note("the proof's checks", ", ".join(failures) or "all passed")


def ask_sts(stage: Stage) -> None:
    """Check STS's answers on which Deputy's proofs rely."""
    answers = stage.answers
    assume_role, role = stage.broker.client("sts").assume_role, stage.connection["role_arn"]
    own = {
        "RoleArn": role,
        "RoleSessionName": "aws-check",
        "DurationSeconds": 900,
        "Policy": _INERT,
        "ExternalId": stage.tenant["external_id"],
    }
    questions: dict[str, dict[str, Any]] = {
        "AssumeRole with the External ID": {},
        "AssumeRole without an External ID": {"ExternalId": None},
        "AssumeRole with a stranger's External ID": {"ExternalId": f"dpy-{'0' * 64}"},
        "AssumeRole of a role that does not exist": {"RoleArn": f"{role}-absent"},
        "AssumeRole with a space in the External ID": {"ExternalId": "a b"},
        "AssumeRole for longer than role chaining allows": {"DurationSeconds": 3601},
        "AssumeRole with a session policy that is no policy": {"Policy": "{}"},
        "AssumeRole of a role of the broker's own account": {
            "RoleArn": stage.settings["DEPUTY_BROKER_PRINCIPAL_ARN"]
        },
    }
    for question, changes in questions.items():
        terms = own | changes
        if terms["ExternalId"] is None:
            del terms["ExternalId"]
        answers.ask(question, partial(assume_role, **terms))
    _ask_about_accounts(stage, own)
    if stage.refused_role:
        refused = {"RoleArn": stage.refused_role, "RoleSessionName": "aws-check"}
        answers.ask(
            "AssumeRole of a role that an organization's policy refuses",
            partial(stage.vendor.client("sts").assume_role, **refused),
        )
    _look_at_session(stage, assume_role(**own))


def _ask_about_accounts(stage: Stage, own: dict[str, Any]) -> None:
    """Ask whether an identity's policy can deny an account, as those of broker.yaml do."""
    broker = stage.settings["DEPUTY_BROKER_PRINCIPAL_ARN"]
    for account, name in ((stage.customer, "the role's"), (stage.vendor, "another")):
        rule = {"Action": "sts:AssumeRole", "Resource": "*"}
        condition = {"StringEquals": {"aws:ResourceAccount": account.id}}
        deny = rule | {"Effect": "Deny", "Condition": condition}
        policy = {"Version": "2012-10-17", "Statement": [rule | {"Effect": "Allow"}, deny]}
        answer = stage.vendor.client("sts").assume_role(
            RoleArn=broker, RoleSessionName="aws-check", Policy=json.dumps(policy)
        )
        with closing(session_of(answer["Credentials"], account.region).client("sts")) as sts:
            stage.answers.ask(
                f"AssumeRole where an identity policy denies {name} account",
                partial(sts.assume_role, **own),
            )


def _look_at_session(stage: Stage, answer: dict[str, Any]) -> None:
    answers, account, name = stage.answers, stage.customer, stage.role_name
    unique_id = account.client("iam").get_role(RoleName=name)["Role"]["RoleId"]
    same = answer["AssumedRoleUser"]["AssumedRoleId"] == f"{unique_id}:aws-check"
    answers.note(
        "the id in a session's AssumedRoleId", "the role's unique id" if same else "another"
    )
    session = session_of(answer["Credentials"], account.region)
    with closing(session.client("sts")) as sts:
        arn = sts.get_caller_identity()["Arn"]
    if arn == f"arn:{account.partition}:sts::{account.id}:assumed-role/{name}/aws-check":
        arn = "the assumed role and the session's name"
    answers.note("the session's own identity", arn)
    with closing(session.client("s3")) as s3:
        answers.ask("an inert session that lists buckets", s3.list_buckets)


def examine(stage: Stage) -> None:
    """Run doctor, and record its warnings.

    It leaves out the warning about the public address, which is intended on this machine.
    """

    def ready() -> bool | None:
        return not _not_ok(stage.api("GET", "/readyz")["checks"]) or None

    with suppress(CheckError):  # doctor says why
        until("the background worker has reported", ready, 60)
    warnings = []
    for check in _not_ok(json.loads(stage.deputy.doctor())["checks"]):
        if check["name"] != "settings":
            warnings += [f"{check['name']}: {check['seen']}"]
    stage.answers.note("what doctor warns of", " ".join(warnings) or "nothing")


def _not_ok(checks: list[dict[str, str]]) -> list[dict[str, str]]:
    return [check for check in checks if check["status"] in {"warning", "failed"}]


def work(stage: Stage) -> None:
    stage.issued = issued = stage.issue()
    answers = stage.answers
    left = (datetime.fromisoformat(issued["Expiration"]) - datetime.now(UTC)).total_seconds()
    fact("session", f"{issued['AccessKeyId']}, expires {issued['Expiration']}")
    whole = _ISSUED - 60 < left <= _ISSUED
    answers.note(
        "issued credentials: seconds until they expire", str(_ISSUED if whole else round(left))
    )
    session = session_of(issued, stage.customer.region)
    with closing(session.client("s3")) as s3, closing(session.client("iam")) as iam:
        answers.ask("issued credentials: list the buckets", s3.list_buckets)
        answers.ask("issued credentials: list the IAM users", iam.list_users)


def drift(stage: Stage) -> None:
    """Loosen the customer's trust policy, and repair it after Deputy has detected it.

    Meanwhile Deputy must not issue.
    """
    iam, answers = stage.customer.client("iam"), stage.answers
    trust = iam.get_role(RoleName=stage.role_name)["Role"]["AssumeRolePolicyDocument"]
    retrust(iam, stage.connection, loosened(trust))
    # A routine proof comes every hour. A client's report makes it due now, perhaps before IAM has
    # propagated the change.
    stage.api("POST", f"{stage.of_connection}/report-refused", expect=202)
    insecure = answers.waited(
        "a loosened trust policy is found",
        _becomes(stage, stage.of_connection, "status", "insecure", asking_after=_PAUSE),
        300,
    )
    fact("found", insecure["why"])
    fact("credentials", f"refused: {stage.issue(409)['code']}")
    retrust(iam, stage.connection, trust)
    answers.waited(
        "a mended trust policy is found",
        _becomes(stage, stage.of_connection, "status", "verified", asking_after=0),
        300,
    )
    stage.issue()


def _becomes(
    stage: Stage, path: str, field: str, value: str, *, asking_after: float
) -> Callable[[], dict[str, Any] | None]:
    """Return a function that returns the API's answer once the field has the value.

    It requests a proof at intervals, the first after `asking_after` seconds. IAM may propagate a
    change only after the proof that the change caused.
    """
    due = time.monotonic() + asking_after

    def look() -> dict[str, Any] | None:
        nonlocal due
        if time.monotonic() >= due:
            stage.api("POST", f"{stage.of_connection}/verify")
            due = time.monotonic() + _PAUSE
        answer = dict(stage.api("GET", path))
        return answer if answer[field] == value else None

    return look


def rotate(stage: Stage) -> None:
    """Replace the External ID, while credentials are issued without interruption."""
    path = f"{stage.of_tenant}/external-id/rotation"
    opened = stage.api("POST", path, {"reason": "aws-check"}, expect=201)
    fact("next ID", opened["next_external_id"])
    _update(stage)
    # Two proofs, two minutes apart, must find that the role accepts the next External ID
    ready = _becomes(stage, path, "state", "ready", asking_after=_PAUSE)
    until("the connection has switched to the next External ID", ready, 900)
    stage.issue()
    stage.api("POST", f"{path}/complete")
    _update(stage)
    retired = _becomes(stage, path, "state", "retired", asking_after=_PAUSE)
    until("the role refuses the old External ID, and it is retired", retired, 900)
    stage.issue()
    stage.tenant = stage.api("GET", stage.of_tenant)
    expect(
        stage.tenant["external_id"] == opened["next_external_id"],
        "the next External ID must be the current one",
    )


def _update(stage: Stage) -> None:
    """Update the stack as the kit says."""
    update = partial(
        stage.customer.client("cloudformation").update_stack,
        **stack_of(stage.kit()["launch_stack_url"]),
    )
    update()
    stacks.complete(stage.customer, stage.role_name, "UPDATE_COMPLETE", minutes=15)
    stage.answers.ask("an update that changes nothing", update)
    stage.issue()


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
    deputy, cloudformation = stage.deputy, account.client("cloudformation")
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
    question = "issued credentials after their role was deleted"
    with closing(session_of(stage.issued, account.region).client("sts")) as sts:
        with suppress(CheckError):  # a deleted role stays effective for a moment
            until(question, lambda: code_of(sts.get_caller_identity) != ALLOWED or None, 120)
        answers.ask(question, sts.get_caller_identity)
