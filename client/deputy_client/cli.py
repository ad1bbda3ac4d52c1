"""deputy-credential-process: prints credentials the way the AWS CLI and every AWS SDK read them.

To standard output goes the JSON of credential_process and nothing else; to standard error, why there is none.
"""

import argparse
import json
import sys
from collections.abc import Sequence

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
from deputy_client.service import Question, Service

_EXIT: dict[type[DeputyError], int] = {
    ConfigurationError: 2,  # as argparse's own
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

exit status: 2 wrong usage or settings, 3 the key is not permitted, 4 the connection is not
verified, suspended, or refused by AWS, 5 Deputy can't be reached (try again), 1 anything else
"""


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        question = Question.of(
            given.tenant, given.connection, duration_seconds=given.duration, reason=given.reason
        )
        issued = Service(given.url, key_file=given.key_file).issue(question)
    except DeputyError as error:
        sys.stderr.write(f"deputy-credential-process: {error}\n")
        return _EXIT.get(type(error), 1)
    printed = {
        "Version": 1,
        "AccessKeyId": issued.access_key_id,
        "SecretAccessKey": issued.secret_access_key,
        "SessionToken": issued.session_token,
        "Expiration": issued.expiration,
    }
    sys.stdout.write(json.dumps(printed) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deputy-credential-process",
        description="Prints short-lived credentials for a customer's AWS account, from Deputy, as credential_process.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--tenant", required=True, metavar="ID", help="the customer")
    parser.add_argument("--connection", required=True, metavar="ID", help="the customer's connected role")
    parser.add_argument("--url", help="Deputy's address (default: DEPUTY_URL)")
    parser.add_argument(
        "--key-file",
        metavar="PATH",
        help="file with the API key (default: DEPUTY_API_KEY_FILE, DEPUTY_API_KEY)",
    )
    parser.add_argument("--duration", type=int, metavar="SECONDS", help="how long the credentials live")
    parser.add_argument("--reason", metavar="TEXT", help="goes to Deputy's audit log")
    return parser


if __name__ == "__main__":
    sys.exit(main())
