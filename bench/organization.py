"""Row 10: lost accounts and STS calls when all accounts of an organisation register at once.

No account may be lost, and the STS budget may not be exceeded. Everything is as in `make run`: the
sandbox's CloudFormation and SQS, a web process, and one background worker. AWS is moto on this
machine, which makes a thousand stacks while the service works. So the seconds depend on the
machine, and the counts depend on Deputy.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3
import psycopg

from bench.client import BenchError, Client
from bench.goals import ORGANIZATION, Result
from bench.servers import PLAIN
from bench.stage import Stage
from dev.ports import free_port
from dev.run_settings import Settings, StackError
from dev.stack import Stack

_STS_BUDGET = 100  # calls a second: the setting's default
_PATIENCE = 600  # seconds until an account that has not registered counts as lost
_DATABASE = "organization"


@dataclass(frozen=True, slots=True)
class Arrived:
    """The result for one organisation.

    Times are in seconds since the launch, or None if the event did not happen. An account that is
    not verified at the end counts as lost.
    """

    accounts: int  # including the one that launched it
    registered: float | None
    verified: float | None
    stacks: float | None
    lost: int
    twice: int
    complete: int  # stacks
    most_calls: int  # to STS in any one second

    def facts(self) -> dict[str, Any]:
        return {
            "seconds until all have registered": self.registered or "never",
            "seconds until all are verified": self.verified or "never",
            "seconds until the stack was complete": self.stacks or "never",
            "accounts lost": self.lost,
            "accounts twice": self.twice,
            "stacks in CREATE_COMPLETE": self.complete,
            "most STS calls in any one second": self.most_calls,
        }


def measure(stage: Stage) -> None:
    with contextlib.ExitStack() as running:
        try:
            stack = running.enter_context(_started(stage))
        except StackError as error:
            raise BenchError(str(error)) from error
        arrivals = []
        for number, count in enumerate(stage.scale.accounts):
            stage.say(f"organization: {count} accounts register at once")
            arrived = _Organization(stack, number, count).arrive()
            stage.findings.facts[
                f"{count} accounts of an organisation, and the one that launched it"
            ] = arrived.facts()
            arrivals.append(arrived)
    stage.findings.results.append(judge(arrivals))


def judge(arrivals: Sequence[Arrived]) -> Result:
    wrong = sum(arrived.lost + arrived.twice for arrived in arrivals)
    share = max(arrived.most_calls for arrived in arrivals) / _STS_BUDGET
    accounts = sum(arrived.accounts for arrived in arrivals)
    measured = f"{wrong} of {accounts:,} · {share:.2f}"
    values = {"accounts lost or twice": wrong, "share of the budget": share}
    return ORGANIZATION.judge(measured, wrong, share, values=values)


def _started(stage: Stage) -> Stack:
    with psycopg.connect(
        stage.postgres.url().replace("+psycopg", ""), autocommit=True
    ) as connection:
        connection.execute(f"CREATE DATABASE {_DATABASE}")
    given = {
        "DEPUTY_DATABASE_URL": stage.postgres.url(_DATABASE),
        "DEPUTY_STS_BUDGET": str(_STS_BUDGET),
        "LC_ALL": PLAIN["LC_ALL"],
        "PATH": PLAIN["PATH"],
    }
    stack = Stack(Settings(free_port(), free_port(), stage.folder / "organization"), given)
    try:
        stack.prepare()
        stack.start_sandbox()
        stack.publish()
        stack.start_web()
        stack.start_worker()
    except BaseException:
        stack.stop()
        raise
    return stack


class _Organization:
    """One tenant, and the organisation that is its customer."""

    def __init__(self, stack: Stack, number: int, count: int) -> None:
        self._stack = stack
        self._unit = f"ou-abcd-{number:08}"
        self._management = f"2{number:011}"
        self._members = [f"1{number:03}{member:08}" for member in range(count)]
        self._expected = count + 1
        self._began = time.monotonic()

    def arrive(self) -> Arrived:
        settings = self._stack.settings
        with (
            contextlib.closing(Client(settings.port, self._stack.admin_key)) as api,
            contextlib.closing(Client(settings.sandbox_port, timeout=120)) as aws,
            contextlib.closing(
                _cloudformation(settings.sandbox_url, self._management)
            ) as cloudformation,
        ):
            aws.must("POST", "/_sandbox/organization", {"ous": {self._unit: self._members}})
            tenant = api.must("POST", "/v1/tenants", {"name": self._unit}, expect=201)
            path = f"/v1/tenants/{tenant['id']}"
            link = api.must("GET", f"{path}/onboarding")["organization_launch_url"]
            since, self._began = time.time(), time.monotonic()
            stack_id = _launch(cloudformation, link, self._unit)
            registered = self._when(lambda: _summary(api, path)["total"] >= self._expected)
            verified = self._when(
                lambda: _summary(api, path)["by_status"].get("verified", 0) >= self._expected
            )
            stacks = self._when(lambda: _status(cloudformation, stack_id) == "CREATE_COMPLETE")
            proven = Counter(_verified_accounts(api, path))
            calls = aws.must("GET", "/_sandbox/calls")["sts_times"]
            times = [called_at for called_at in calls if called_at >= since]
            return Arrived(
                accounts=self._expected,
                registered=registered,
                verified=verified,
                stacks=stacks,
                lost=len({*self._members, self._management} - proven.keys()),
                twice=proven.total() - len(proven),
                complete=_complete(cloudformation, stack_id),
                most_calls=most_in_a_second(times),
            )

    def _when(self, condition: Callable[[], bool]) -> float | None:
        """Return the seconds from the launch until the condition holds, or None on timeout."""
        while time.monotonic() < self._began + _PATIENCE:
            if condition():
                return time.monotonic() - self._began
            time.sleep(0.25)
        return None


def most_in_a_second(times: Sequence[float]) -> int:
    """Return the largest number of these times, in seconds, within any one second."""
    ordered, first, most = sorted(times), 0, 0
    for last, latest in enumerate(ordered):
        while ordered[first] <= latest - 1:
            first += 1
        most = max(most, last - first + 1)
    return most


def _summary(api: Client, path: str) -> Any:
    return api.must("GET", f"{path}/connections/summary")


def _verified_accounts(api: Client, path: str) -> list[str]:
    account_ids, query = [], "limit=200&status=verified"
    while True:
        page = api.must("GET", f"{path}/connections?{query}")
        account_ids += [item["account_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return account_ids
        query = f"limit=200&status=verified&cursor={page['next_cursor']}"


def _cloudformation(url: str, account: str) -> Any:
    return boto3.session.Session().client(
        "cloudformation",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id=account,
        aws_secret_access_key="sandbox",  # noqa: S106  any will do
    )


def _launch(cloudformation: Any, link: str, unit: str) -> str:
    """Launch the stack as the organisation's administrator, and return its id."""
    query = dict(parse_qsl(urlsplit(link).fragment.partition("?")[2]))
    given = {"OrganizationalUnitIds": unit}
    for name, value in query.items():
        if name.startswith("param_"):
            given[name.removeprefix("param_")] = value
    stack = cloudformation.create_stack(
        StackName=query["stackName"],
        TemplateURL=query["templateURL"],
        Parameters=[
            {"ParameterKey": name, "ParameterValue": value} for name, value in given.items()
        ],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    return str(stack["StackId"])


def _status(cloudformation: Any, stack_id: str) -> str:
    return str(cloudformation.describe_stacks(StackName=stack_id)["Stacks"][0]["StackStatus"])


def _complete(cloudformation: Any, stack_id: str) -> int:
    """Return the number of complete stacks.

    The members' stacks are those that the StackSet lists. The stack of the StackSet counts too.
    """
    pages = cloudformation.get_paginator("list_stack_instances").paginate(
        StackSetName=stack_id.split("/")[1]
    )
    current = [*pages.search("Summaries[?Status=='CURRENT']")]
    return len(current) + int(_status(cloudformation, stack_id) == "CREATE_COMPLETE")
