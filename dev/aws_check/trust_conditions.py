"""Ask STS about conditions in a trust policy, with a role of the run's own in CUSTOMER."""

import json
import time
from functools import partial
from typing import Any

from dev.aws_check import stacks
from dev.aws_check.absent_keys import FAILS, HOLDS, QUESTIONS
from dev.aws_check.answers import ALLOWED, code_of, until
from dev.aws_check.stage import Stage

_BATCH = 8  # questions in one trust policy, which has at most 2,048 characters
_SETTLED = 5  # successive calls that a changed trust policy must allow before it is asked
_PAUSE = 1.0  # seconds between them
_RESULTS = {ALLOWED: FAILS, "AccessDenied 403": HOLDS}


def ask_conditions(stage: Stage) -> None:
    name, account = f"{stage.run.prefix}conditions", stage.customer
    properties = {"RoleName": name, "AssumeRolePolicyDocument": _policy(stage, {})}
    role = {"Type": "AWS::IAM::Role", "Properties": properties}
    account.client("cloudformation").create_stack(
        StackName=name,
        TemplateBody=json.dumps({"Resources": {"Role": role}}),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Tags=stage.run.tags,
    )
    stacks.complete(account, name, "CREATE_COMPLETE")
    questions = list(QUESTIONS)
    for start in range(0, len(questions), _BATCH):
        _ask(stage, name, f"control-{start}", questions[start : start + _BATCH])
    empty = _policy(stage, {"StringEquals": {"sts:ExternalId": []}})
    retrust = partial(_retrust, stage, name, empty)
    stage.answers.ask("a trust policy with an empty list in a condition", retrust)


def _ask(stage: Stage, name: str, control: str, questions: list[str]) -> None:
    """Ask several questions with one trust policy, each under a session name of its own.

    The policy allows all these names, and denies each if its condition holds.
    """
    sessions = [f"{control}-{number}" for number in range(len(questions))]
    policy = _policy(stage, {"StringEquals": {"sts:RoleSessionName": [control, *sessions]}})
    for session, question in zip(sessions, questions, strict=True):
        condition, _ = QUESTIONS[question]
        named = condition.get("StringEquals", {}) | {"sts:RoleSessionName": session}
        deny = {"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}
        policy["Statement"].append(deny | {"Condition": condition | {"StringEquals": named}})
    _retrust(stage, name, policy)
    role_arn = f"arn:{stage.customer.partition}:iam::{stage.customer.id}:role/{name}"
    assume_role = partial(stage.broker.client("sts").assume_role, RoleArn=role_arn)

    def settled() -> bool | None:
        for _ in range(_SETTLED):
            if code_of(partial(assume_role, RoleSessionName=control)) != ALLOWED:
                return None
            time.sleep(_PAUSE)
        return True

    until("the changed trust policy lets the control in", settled, 180)
    for session, question in zip(sessions, questions, strict=True):
        code = code_of(partial(assume_role, RoleSessionName=session))
        stage.answers.note(question, _RESULTS.get(code, code))


def _policy(stage: Stage, condition: dict[str, Any]) -> dict[str, Any]:
    """Return a trust policy that lets in VENDOR's account under a condition."""
    principal = {"AWS": f"arn:{stage.vendor.partition}:iam::{stage.vendor.id}:root"}
    allow = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    if condition:
        allow["Condition"] = condition
    return {"Version": "2012-10-17", "Statement": [allow]}


def _retrust(stage: Stage, name: str, policy: dict[str, Any]) -> None:
    document = json.dumps(policy, separators=(",", ":"))
    iam = stage.customer.client("iam")
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=document)
