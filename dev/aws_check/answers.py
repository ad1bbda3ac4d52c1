"""AWS's answers in a run, compared with the sandbox's answers, which are the expected ones."""

import time
from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import ClientError

from dev.aws_check.absent_keys import QUESTIONS
from dev.aws_check.accounts import CheckError

_Result = TypeVar("_Result")
ALLOWED = "allowed"

# A test runs the whole check against the sandbox, which must give each of these answers.
EXPECTED = {
    "a stack without its capabilities": "InsufficientCapabilitiesException 400",
    "a stack under a name that is taken": "AlreadyExistsException 400",
    "a stack with a parameter that its pattern refuses": "ValidationError 400",
    "an update that changes nothing": "ValidationError 400",
    "a deleted stack, described by its name": "ValidationError 400",
    "the stack's tag on its role": "there",
    "the stack's tag on its bucket": "there",
    "the accounts in broker.yaml's Deny, where none were given": '[""]',
    "a queue's policy that names SNS of a region": ALLOWED,
    "a published template, read without credentials": "200",
    "another object of the bucket, read without credentials": "403",
    "a template, uploaded without If-None-Match": "AccessDenied 403",
    "a published template, uploaded again": "PreconditionFailed 412",
    "a published template, deleted": "AccessDenied 403",
    "a lifecycle rule for published templates": "AccessDenied 403",
    "AssumeRole with the External ID": ALLOWED,
    "AssumeRole without an External ID": "AccessDenied 403",
    "AssumeRole with a stranger's External ID": "AccessDenied 403",
    "AssumeRole of a role that does not exist": "AccessDenied 403",
    "AssumeRole with a space in the External ID": "ValidationError 400",
    "AssumeRole for longer than role chaining allows": "ValidationError 400",
    "AssumeRole with a session policy that is no policy": "MalformedPolicyDocument 400",
    "AssumeRole of a role of the broker's own account": "AccessDenied 403",
    "AssumeRole where an identity policy denies the role's account": "AccessDenied 403",
    "AssumeRole where an identity policy denies another account": ALLOWED,
    "AssumeRole of a role that an organization's policy refuses": "AccessDenied 403",
    **{question: result for question, (_, result) in QUESTIONS.items()},
    "a trust policy with an empty list in a condition": ALLOWED,
    "the id in a session's AssumedRoleId": "the role's unique id",
    "the session's own identity": "the assumed role and the session's name",
    "an inert session that lists buckets": "AccessDenied 403",
    "issued credentials: list the buckets": ALLOWED,
    "issued credentials: list the IAM users": "AccessDenied 403",
    "issued credentials: seconds until they expire": "3600",
    "issued credentials after their role was deleted": "InvalidClientTokenId 403",
    "the proof's checks": "all passed",
    "what doctor warns of": "nothing",
    "a stack deleted while nobody answers its messages": "DELETE_COMPLETE",
}

# Seconds. The sandbox needs none of them. At AWS, IAM's propagation takes seconds, rarely a minute.
WITHIN = {
    "a new role may be assumed": 60,
    "the customer's stack is complete, and answered": 180,
    "the registered role is proven": 60,
    "a loosened trust policy is found": 60,
    "a mended trust policy is found": 60,
    "the customer's stack is deleted": 180,
}


class Answers:
    """The answers of AWS so far."""

    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        self.took: dict[str, float] = {}

    def note(self, question: str, answer: str) -> None:
        self.given[question] = answer
        line = f"     {question}: {answer}"
        if answer != EXPECTED[question]:
            line += f"  (the sandbox: {EXPECTED[question]})"
        print(line, flush=True)

    def ask(self, question: str, call: Callable[[], object]) -> None:
        """Record AWS's answer to this call."""
        self.note(question, code_of(call))

    def waited(self, condition: str, look: Callable[[], _Result | None], seconds: float) -> _Result:
        """Wait like `until`, and record the time."""
        began = time.monotonic()
        result = until(condition, look, seconds)
        self.took[condition] = time.monotonic() - began
        print(f"     {condition}: after {self.took[condition]:.0f} s", flush=True)
        return result

    def differences(self) -> list[str]:
        """List AWS's differences from the sandbox, one line for each."""
        lines = []
        for question, answer in self.given.items():
            if answer != EXPECTED[question]:
                lines.append(f"{question}: {answer} (the sandbox: {EXPECTED[question]})")
        for condition, took in self.took.items():
            if took > (limit := WITHIN[condition]):
                lines.append(f"{condition}: {took:.0f} s (at most {limit} s expected)")
        return lines

    def unasked(self) -> list[str]:
        """List the questions that the check did not reach."""
        asked = self.given | self.took
        return [name for name in (*EXPECTED, *WITHIN) if name not in asked]


def code_of(call: Callable[[], object]) -> str:
    try:
        call()
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return f"{error.response['Error']['Code']} {status}"
    return ALLOWED


def until(condition: str, look: Callable[[], _Result | None], seconds: float) -> _Result:
    """Return the first result of `look` that is not None. Print a line every 15 seconds."""
    began = reported = time.monotonic()
    pause = 0.1
    while (result := look()) is None:
        now = time.monotonic()
        if now - began > seconds:
            raise CheckError(f"Not within {seconds:.0f} seconds: {condition}.")
        if now - reported > 15:
            reported = now
            print(f"     … {condition}: {now - began:.0f} s", flush=True)
        time.sleep(pause)
        pause = min(pause * 1.5, 5.0)
    return result
