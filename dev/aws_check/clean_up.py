"""Removes what a run has created, and lists what it could not remove.

It needs no stored state, because names and tags identify a run's resources. It deletes only stacks
that have the run's tag, and the bucket that such a stack leaves behind.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from botocore.exceptions import BotoCoreError, ClientError

from dev.aws_check import stacks
from dev.aws_check.accounts import Account, CheckError
from dev.aws_check.stacks import Run


@dataclass
class CleanUp:
    """The clean-up of a run.

    `accounts` are in the order in which they are emptied: the customer's role is removed before the
    broker that it trusts.
    """

    run: Run
    accounts: list[Account]
    troubles: list[str] = field(default_factory=list)

    def remove(self) -> None:
        """Delete the run's stacks, and in the vendor's account also the template bucket."""
        for account in self.accounts:
            with self._noting(account, "its stacks"):
                for stack in stacks.of_run(account, self.run):
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
        """List what is still there, by its name, a line each."""
        found: list[str] = []
        for account in self.accounts:
            for what, look in _LOOKS.items():
                with self._noting(account, f"looking for what is left ({what})"):
                    found += [
                        f"{account.part} {account.id}: {what} {name}"
                        for name in look(account, self.run)
                    ]
        return found

    @contextmanager
    def _noting(self, account: Account, what: str) -> Iterator[None]:
        """Record an error, so that one failed removal does not prevent the others."""
        try:
            yield
        except (ClientError, BotoCoreError, CheckError) as error:
            trouble = f"{account.part} {account.id}: {what}: {error}"
            if trouble not in self.troubles:  # the clean-up looks several times
                self.troubles.append(trouble)


def remove_bucket(account: Account, name: str) -> None:
    """Delete a bucket with all versions of its objects.

    Its name has the run's id, and it must be the account's own.
    """
    s3 = account.client("s3")
    try:
        s3.head_bucket(Bucket=name, ExpectedBucketOwner=account.id)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return
        raise
    print(f"     deleting the bucket {name} in {account.id} …", flush=True)
    # The policy refuses the deletion of templates.
    s3.delete_bucket_policy(Bucket=name, ExpectedBucketOwner=account.id)
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
        versions = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        doomed = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in versions]
        if doomed:
            s3.delete_objects(
                Bucket=name,
                Delete={"Objects": doomed, "Quiet": True},
                ExpectedBucketOwner=account.id,
            )
    s3.delete_bucket(Bucket=name, ExpectedBucketOwner=account.id)


def _stacks(account: Account, run: Run) -> list[str]:
    return [
        f"{stack['StackName']} ({stack['StackStatus']})" for stack in stacks.of_run(account, run)
    ]


def _roles(account: Account, run: Run) -> list[str]:
    pages = account.client("iam").get_paginator("list_roles").paginate()
    names = [role["RoleName"] for page in pages for role in page["Roles"]]
    return [name for name in names if name == run.broker_role or name.startswith(run.prefix)]


def _policies(account: Account, run: Run) -> list[str]:
    pages = account.client("iam").get_paginator("list_policies").paginate(Scope="Local")
    names = [policy["PolicyName"] for page in pages for policy in page["Policies"]]
    return [name for name in names if name.startswith(run.prefix)]


def _buckets(account: Account, run: Run) -> list[str]:
    buckets = account.client("s3").list_buckets()["Buckets"]
    return [bucket["Name"] for bucket in buckets if bucket["Name"].startswith(run.prefix)]


def _topics(account: Account, run: Run) -> list[str]:
    pages = account.client("sns").get_paginator("list_topics").paginate()
    names = [topic["TopicArn"].rpartition(":")[2] for page in pages for topic in page["Topics"]]
    return [name for name in names if name.startswith(run.prefix)]


def _queues(account: Account, run: Run) -> list[str]:
    urls = account.client("sqs").list_queues(QueueNamePrefix=run.prefix).get("QueueUrls", [])
    return [url.rpartition("/")[2] for url in urls]


_LOOKS_AGAIN, _PAUSE = 4, 5.0  # number of repetitions, and seconds before each
_LOOKS: dict[str, Callable[[Account, Run], list[str]]] = {
    "stack": _stacks,
    "role": _roles,
    "policy": _policies,
    "bucket": _buckets,
    "topic": _topics,
    "queue": _queues,
}


def clean_up(run: Run, customer: Account, canary: Account | None, vendor: Account) -> list[str]:
    """Remove everything of a run. Return what is left and why, a line each."""
    work = CleanUp(run, [account for account in (customer, canary, vendor) if account])
    work.remove()
    left = work.left()
    for _ in range(_LOOKS_AGAIN if left else 0):  # IAM lists a deleted role for some seconds
        time.sleep(_PAUSE)
        if not (left := work.left()):
            break
    return left + work.troubles
