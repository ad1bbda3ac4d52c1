"""deputy-credential-process: prints credentials in the format of the AWS CLI and all AWS SDKs.

Standard output has only the JSON of credential_process. The reason for a failure goes to standard
error.

After a failure, some SDKs try the next source of credentials, which may be the worker's own role.
For these SDKs, `--fail-closed` prints a key that AWS does not know. They use this key, and AWS
refuses the call.
"""

import argparse
import base64
import json
import os
import secrets
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from datetime import UTC, datetime, timedelta
from io import StringIO

from deputy_client.errors import (
    BadRequest,
    ConfigurationError,
    DeputyError,
    NotPermitted,
    NotVerified,
    RoleRefused,
    Suspended,
    Unreachable,
)
from deputy_client.service import Issued, Question, Service

_CLOSED_SECONDS = 60

# The exit status for each error
_EXIT: dict[type[DeputyError], int] = {
    ConfigurationError: 2,  # argparse exits with 2 as well
    BadRequest: 2,
    NotPermitted: 3,
    NotVerified: 4,
    Suspended: 4,
    RoleRefused: 4,
    Unreachable: 5,
}

_HELP = """\
example ~/.aws/config:

  [profile acme]
  region = eu-west-1
  credential_process = deputy-credential-process --url https://deputy.example.com
      --key-file /run/secrets/deputy-key --tenant TENANT_ID --connection CONNECTION_ID

(on one line). Then: aws --profile acme s3 ls
With AWS_PROFILE=acme, unset AWS_ACCESS_KEY_ID and the like: they would win.

The API key needs the scope credentials:issue, and should be bound to the tenant. It is never
given on the command line, where every user of the machine could read it.

JavaScript, PyArrow, DuckDB and minio-go (restic) need --fail-closed (or DEPUTY_FAIL_CLOSED=1):
they would go on as the worker's own role when there are no credentials. With it the answer is
then a key that AWS does not know, the reason goes to standard error (unless that and standard
output are one pipe, as in DuckDB), and the exit status is 0.

exit status: 2 wrong usage or settings, 3 the key is not permitted, 4 the connection is not
verified, suspended, or refused by AWS, 5 Deputy can't be reached (try again), 1 anything else
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if not _closed(words):
        return _answer(words)
    with redirect_stderr(StringIO()) if _joined() else nullcontext():
        try:
            status = _answer(words)
        except Exception:  # noqa: BLE001  even a bug of ours must print the unknown key
            traceback.print_exc()
            status = 1
    return _fail_closed() if status else 0


def _closed(words: Sequence[str]) -> bool:
    """Return True if `--fail-closed` or DEPUTY_FAIL_CLOSED is set.

    The option counts even if other arguments are wrong. The variable counts as set unless it is
    empty or 0.
    """
    return "--fail-closed" in words or os.environ.get("DEPUTY_FAIL_CLOSED", "0") not in {"", "0"}


def _joined() -> bool:
    """Return True if standard output and standard error are the same pipe.

    Some versions of the SDK for C++ read both streams together. With an error message in between,
    they could not read the key, and would try the next source of credentials.
    """
    return sys.stderr is None or (not os.isatty(1) and os.path.sameopenfile(1, 2))


def _answer(words: Sequence[str]) -> int:
    try:
        options = _parser().parse_args(words)
        question = Question.of(
            options.tenant,
            options.connection,
            duration_seconds=options.duration,
            reason=options.reason,
        )
        issued = Service(options.url, key_file=options.key_file).issue(question)
    except SystemExit as end:  # from argparse, which has printed its help or the error
        return int(end.code or 0)
    except DeputyError as error:
        sys.stderr.write(f"deputy-credential-process: {error}\n")
        return _EXIT.get(type(error), 1)
    _print(issued)
    return 0


def _fail_closed() -> int:
    """Print random credentials that AWS does not know, and that expire after a minute."""
    ends = datetime.now(UTC) + timedelta(seconds=_CLOSED_SECONDS)
    _print(
        Issued(
            "ASIA" + base64.b32encode(secrets.token_bytes(10)).decode(),
            base64.b64encode(secrets.token_bytes(30)).decode(),
            base64.b64encode(secrets.token_bytes(300)).decode(),
            ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            account_id=None,
        )
    )
    return 0


def _print(issued: Issued) -> None:
    printed = {
        "Version": 1,
        "AccessKeyId": issued.access_key_id,
        "SecretAccessKey": issued.secret_access_key,
        "SessionToken": issued.session_token,
        "Expiration": issued.expiration,
    }
    if issued.account_id:
        printed["AccountId"] = issued.account_id
    sys.stdout.write(json.dumps(printed) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deputy-credential-process",
        description=(
            "Prints short-lived credentials for a customer's AWS account, from Deputy, as"
            " credential_process."
        ),
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--tenant", required=True, metavar="ID", help="the customer")
    parser.add_argument(
        "--connection", required=True, metavar="ID", help="the customer's connected role"
    )
    parser.add_argument("--url", help="Deputy's address (default: DEPUTY_URL)")
    parser.add_argument(
        "--key-file",
        metavar="PATH",
        help="file with the API key (default: DEPUTY_API_KEY_FILE, DEPUTY_API_KEY)",
    )
    parser.add_argument(
        "--duration", type=int, metavar="SECONDS", help="how long the credentials live"
    )
    parser.add_argument("--reason", metavar="TEXT", help="goes to Deputy's audit log")
    parser.add_argument(
        "--fail-closed",
        action="store_true",
        help="instead of failing, answer with a key that AWS refuses (default: DEPUTY_FAIL_CLOSED)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
