"""The steps of the README's tour that curl can't do. `dev/tour.sh` calls it.

Usage:

    python -m dev.tour                        print addresses and key of `make run` for a shell
    python -m dev.tour launch ACCOUNT LINK    create the stack that a launch link opens
    python -m dev.tour verified TENANT        wait for a verified connection, and print its id
    python -m dev.tour webhooks TENANT        wait for its webhook, and print the tenant's webhooks
"""

import os
import shlex
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import requests
from botocore.exceptions import ClientError

from dev import demo
from dev.run_settings import Settings
from dev.stack import running


def main(words: list[str]) -> int:
    """Run a command, and return its exit status.

    The status is 1 if `make run` is not running, which the shell reports, or if the command fails.
    """
    name, *arguments = words or ["where"]
    if name not in _COMMANDS or len(arguments) != len(signature(_COMMANDS[name]).parameters) - 1:
        print(__doc__, file=sys.stderr)
        return 2
    run = running(Settings.of_running(os.environ))
    if run is None:
        return 1
    try:
        _COMMANDS[name](run, *arguments)
    except (demo.DemoError, requests.RequestException) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def where(run: dict[str, str]) -> None:
    print(f"DEPUTY_URL={shlex.quote(run['url'])}")
    print(f"AWS={shlex.quote(run['sandbox_url'])}")
    print(f"DEPUTY_API_KEY={shlex.quote(run['admin_key'])}")


def launch(run: dict[str, str], account: str, link: str) -> None:
    demo.forget_own_aws()
    try:
        demo.launch(run["sandbox_url"], account, link)
    except ClientError as error:
        if error.response["Error"]["Code"] != "AlreadyExistsException":
            raise demo.DemoError(str(error)) from error
        demo.fact("stack", "it is there already")


def verified(run: dict[str, str], tenant_id: str) -> None:
    api = demo.Api(run["url"], run["admin_key"])
    print(demo.await_connection(api, tenant_id, "verified")["id"])


def webhooks(run: dict[str, str], tenant_id: str) -> None:
    log = Path(run["receiver_log"])
    if not log.exists():
        sys.exit("Only make run has a receiver of webhooks.")
    print("\n".join(demo.await_webhook(log, tenant_id)))


_COMMANDS: dict[str, Callable[..., None]] = {
    "where": where,
    "launch": launch,
    "verified": verified,
    "webhooks": webhooks,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
