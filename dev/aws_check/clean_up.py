"""The clean-up of a run: removes what the run has created, and lists what it could not remove.

It needs no stored state, because names and tags identify a run's resources. It deletes only stacks
that have the run's tag, and the bucket that such a stack leaves behind.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dev.aws_check import stacks
from dev.aws_check.accounts import Account, CheckError
from dev.aws_check.stacks import Run


@dataclass
class CleanUp:
    """The clean-up of a run.

    `accounts` are in the order of the clean-up: the customer's role is removed before the broker
    that it trusts.
    """

    run: Run
    accounts: list[Account]
    troubles: list[str] = field(default_factory=list)

    def remove(self) -> None:
        """Delete the run's stacks, and in the vendor's account also the template bucket."""
        for account in self.accounts:
            with self._noting(account, "its stacks"):
                for stack in list(stacks.of_run(account, self.run)):
                    with self._noting(account, stack["StackName"]):
                        print(
                            f"     deleting the stack {stack['StackName']} in {account.id} …",
                            flush=True,
                        )
                        stacks.delete(account, stack)
            if account.part == "VENDOR":
                with self._noting(account, self.run.bucket(account)):
                    remove_bucket(account, self.run.bucket(account))

    def left(self) -> list[str]:
        """List the run's resources that still exist, one line for each."""
        left: list[str] = []
        for account in self.accounts:
            place = f"{account.part} {account.id}"
            with self._noting(account, "looking for what is left (stack)"):
                left += [
                    f"{place}: stack {stack['StackName']} ({stack['StackStatus']})"
                    for stack in stacks.of_run(account, self.run)
                ]
            for kind in _LISTS:
                with self._noting(account, f"looking for what is left ({kind})"):
                    left += [f"{place}: {kind} {name}" for name in _names(account, self.run, kind)]
        return left

    @contextmanager
    def _noting(self, account: Account, step: str) -> Iterator[None]:
        """Record an error, so that one failed removal does not prevent the others."""
        try:
            yield
        except (ClientError, BotoCoreError, CheckError) as error:
            trouble = f"{account.part} {account.id}: {step}: {error}"
            if trouble not in self.troubles:  # the clean-up looks several times
                self.troubles.append(trouble)


def remove_bucket(account: Account, name: str) -> None:
    """Delete a bucket with all versions of its objects.

    The bucket's name has the run's id, and the account must own the bucket.
    """
    s3 = account.client("s3")
    bucket = {"Bucket": name, "ExpectedBucketOwner": account.id}
    try:
        s3.head_bucket(**bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return
        raise
    print(f"     deleting the bucket {name} in {account.id} …", flush=True)
    # The bucket's policy refuses the deletion of templates
    s3.delete_bucket_policy(**bucket)
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
        versions = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        doomed = [
            {"Key": version["Key"], "VersionId": version["VersionId"]} for version in versions
        ]
        if doomed:
            s3.delete_objects(**bucket, Delete={"Objects": doomed, "Quiet": True})
    s3.delete_bucket(**bucket)


def _names(account: Account, run: Run, kind: str) -> Iterator[str]:
    """Yield the names of a run's roles, topics and so on."""
    service, operation, result, field, options = _LISTS[kind]
    for page in account.client(service).get_paginator(operation).paginate(**options):
        for item in page.get(result, []):
            # An ARN or a URL ends in the name
            name = re.split("[:/]", item[field] if field else item)[-1]
            if name.startswith((run.prefix, run.broker_role)):
                yield name


_LOOKS_AGAIN, _PAUSE = 4, 5.0  # number of repetitions, and seconds before each
# The service, the paginated operation, its result, the field with the name, and its options
_LISTS: dict[str, tuple[str, str, str, str | None, dict[str, Any]]] = {
    "role": ("iam", "list_roles", "Roles", "RoleName", {}),
    "policy": ("iam", "list_policies", "Policies", "PolicyName", {"Scope": "Local"}),
    "bucket": ("s3", "list_buckets", "Buckets", "Name", {}),
    "topic": ("sns", "list_topics", "Topics", "TopicArn", {}),
    # Without a page size, SQS answers only one page
    "queue": ("sqs", "list_queues", "QueueUrls", None, {"PaginationConfig": {"PageSize": 1000}}),
}


def clean_up(run: Run, accounts: list[Account]) -> list[str]:
    """Remove everything of a run. Return what is left and why, one line for each."""
    work = CleanUp(run, [*accounts[1:], accounts[0]])
    work.remove()
    left = work.left()
    for _ in range(_LOOKS_AGAIN if left else 0):  # IAM lists a deleted role for some seconds
        time.sleep(_PAUSE)
        if not (left := work.left()):
            break
    return left + work.troubles
