"""`make aws-check`: tests Deputy on AWS, with two or three accounts of yours.

It creates broker.yaml's stack in VENDOR, canary.yaml's in CANARY, and the customer's in CUSTOMER.
Only this run uses their names and their tag. It changes nothing else, and removes everything at its
end. Deputy itself runs on this machine.
"""

import argparse
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

import requests
from botocore.exceptions import BotoCoreError, ClientError

from dev.aws_check import customers_part, stacks, trust_conditions, vendors_part
from dev.aws_check.accounts import Account, CheckError, ensure_fit, ensure_public_templates
from dev.aws_check.clean_up import clean_up
from dev.aws_check.stacks import Run
from dev.aws_check.stage import Stage
from dev.demo import DemoError, step
from dev.run_settings import StackError
from dev.stack import ROOT

FAILURES = (
    CheckError,
    DemoError,
    StackError,
    ClientError,
    BotoCoreError,
    requests.RequestException,
)
_ANNOUNCEMENT = """\
This takes about 15 minutes. It makes, and at the end removes:
  in VENDOR   {vendor}: the stack {prefix}broker (a role, a policy, a bucket, a topic, two queues)
  in CUSTOMER {customer}: the stack of a customer, and one for questions (a role each)
  in CANARY   {canary}
Region {region}. Everything has the tag {tag}={run}. IAM, STS and CloudFormation cost nothing;
some hundred requests to S3, SNS and SQS cost a cent at most. CloudTrail records some hundred
events, of which the first copy is free."""


def main() -> int:
    options = _options()
    with ExitStack() as closing:
        try:
            accounts = _accounts(options, closing)
            run = Run.parse(options.clean_up) if options.clean_up else Run.new()
            if options.clean_up:
                return _report_clean_up(run, clean_up(run, accounts))
            _announce(run, accounts)
            if not options.yes and not _agreed():
                return 1
        except FAILURES as error:
            print(error, file=sys.stderr)
            return 1
        data = Path(os.environ.get("DEPUTY_DATA_DIR") or ROOT / ".data").absolute()
        return check(Stage(run, accounts, data / f"aws-check-{run.id}", options.refused_role))


def _options() -> argparse.Namespace:
    usage = "make aws-check VENDOR=<profile> CUSTOMER=<profile> [CANARY=<profile>] [ARGS=…]"
    parser = argparse.ArgumentParser(usage=usage, prog="make aws-check", description=__doc__)
    parser.add_argument(
        "--vendor", required=True, help="a profile of the AWS CLI, with administrator's rights"
    )
    parser.add_argument(
        "--customer", required=True, help="a profile of another account, with the same"
    )
    parser.add_argument(
        "--canary", help="a profile of a third account; without it canary.yaml is left out"
    )
    parser.add_argument("--region", help="unless the profile VENDOR has one")
    parser.add_argument("--yes", action="store_true", help="do not ask before anything is made")
    parser.add_argument(
        "--refused-role", metavar="ARN", help="a role that an organization's policy refuses"
    )
    parser.add_argument(
        "--clean-up", metavar="RUN", help="only remove what the run with this id has left behind"
    )
    return parser.parse_args()


def _accounts(options: argparse.Namespace, closing: ExitStack) -> list[Account]:
    """Return the accounts VENDOR and CUSTOMER, and CANARY if there is one."""
    accounts: list[Account] = []
    for part in ("VENDOR", "CUSTOMER", "CANARY"):
        if profile := getattr(options, part.lower()):
            # A stack can register only in the topic's region
            region = accounts[0].region if accounts else options.region
            accounts.append(Account.of_profile(part, profile, region))
            closing.callback(accounts[-1].close)
    ensure_fit(accounts)
    return accounts


def _announce(run: Run, accounts: list[Account]) -> None:
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    print(f"Deputy's check of {f'the AWS at {endpoint}' if endpoint else 'AWS'}, run {run.id}\n")
    vendor, customer, *rest = accounts
    canary_part = "nothing: no profile was given"
    for canary in rest:
        canary_part = f"{canary.id}: the stack {run.prefix}canary (two roles)"
    print(
        _ANNOUNCEMENT.format(
            vendor=vendor.id,
            customer=customer.id,
            canary=canary_part,
            region=vendor.region,
            prefix=run.prefix,
            tag=stacks.TAG,
            run=run.id,
        )
    )
    if unknown := ensure_public_templates(vendor):
        print(
            "Whether VENDOR's Block Public Access refuses the template bucket is not known:"
            f" {unknown}."
        )
    for account in accounts:
        for earlier in sorted(dict(stacks.tagged(account))):
            print(
                f"{account.part} still has stacks of the run {earlier}; to remove them:"
                f" {_command(earlier)}"
            )


def _command(run: str) -> str:
    return f'make aws-check VENDOR=… CUSTOMER=… CANARY=… ARGS="--clean-up {run}"'


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print("Nothing was made: nobody can be asked here. Scripts give --yes.", file=sys.stderr)
        return False
    return input("Go on? [y/N] ").strip().lower() in {"y", "yes"}


def check(stage: Stage) -> int:
    """Run the steps, clean up in any case, and report.

    Return 0 if every step passed and nothing is left.
    """
    began, failure = time.monotonic(), None
    with _signals() as steps_run:
        try:
            for number, (title, act) in enumerate(STEPS, 1):
                step(number, title)
                act(stage)
        except KeyboardInterrupt:
            failure = "interrupted."
        except FAILURES as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001
            # A bug in the check itself must not prevent the clean-up
            failure = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        finally:
            steps_run.clear()
            if failure:
                print(f"\nNot finished: {failure}", file=sys.stderr, flush=True)
            left = _clean(stage)
    _report(stage, failure, time.monotonic() - began)
    return _report_clean_up(stage.run, left) or bool(failure)


STEPS: list[tuple[str, Callable[[Stage], None]]] = [
    ("broker.yaml", vendors_part.make_vendor),
    ("The broker's credentials", vendors_part.become_broker),
    ("canary.yaml", vendors_part.make_canary),
    ("Deputy on this machine, and its templates", vendors_part.start_deputy),
    ("What S3 answers about the templates", vendors_part.look_at_templates),
    ("The customer's stack registers its role, and Deputy proves it", customers_part.onboard),
    ("What STS answers to what proofs ask", customers_part.ask_sts),
    ("What conditions in a trust policy do", trust_conditions.ask_conditions),
    ("Credentials", customers_part.work),
    ("Drift: the trust policy is loosened, found, and mended", customers_part.drift),
    ("Rotation: another External ID, without an outage", customers_part.rotate),
    ("What doctor says of this deployment", customers_part.examine),
    ("Suspending and resuming", customers_part.suspend),
    ("The tenant is deleted, and then its stack", customers_part.leave),
]


def _clean(stage: Stage) -> list[str]:
    """Clean up, and stop Deputy last: it answers the messages of the customer's stack."""
    print("\nCleaning up", flush=True)
    with stage.ends:
        if hasattr(stage, "deputy"):  # the step that starts it may not have run
            with suppress(StackError):
                stage.deputy.ensure_worker()
        return clean_up(stage.run, stage.accounts)


def _report(stage: Stage, failure: str | None, seconds: float) -> None:
    answers = stage.answers
    print(
        f"\nAfter {seconds / 60:.0f} minutes:"
        f" {f'not finished: {failure}' if failure else 'every step passed.'}"
    )
    if len(stage.accounts) < 3:
        print("Without the canary and the stranger: no CANARY profile was given.")
    for condition, took in answers.took.items():
        print(f"  {condition}: {took:.0f} s")
    differences = answers.differences() or ["nowhere"]
    print("\nWhere AWS answered otherwise than the sandbox does:", *differences, sep="\n  ")
    if unasked := answers.unasked():
        print(f"Not looked at: {'; '.join(unasked)}.")
    if failure:
        print(f"Deputy's logs are in {stage.data}.")
    else:
        shutil.rmtree(stage.data, ignore_errors=True)


def _report_clean_up(run: Run, left: list[str]) -> int:
    if not left:
        print(f"\nNothing of the run {run.id} is left.")
        return 0
    print(f"\nLeft of the run {run.id}:", *left, sep="\n  ")
    print(f"Try again in some minutes: {_command(run.id)}")
    return 1


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Interrupt the steps on the first Ctrl-C, SIGTERM or SIGHUP.

    Once the yielded event is cleared, signals have no effect.
    """
    steps_run = threading.Event()
    steps_run.set()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if steps_run.is_set():
            steps_run.clear()
            raise KeyboardInterrupt
        print("     … still cleaning up: otherwise things are left in your accounts.", flush=True)

    before = {
        number: signal.signal(number, handle)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield steps_run
    finally:
        for number, old in before.items():
            signal.signal(number, old)


if __name__ == "__main__":
    sys.exit(main())
