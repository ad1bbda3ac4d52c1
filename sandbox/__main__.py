"""`python -m sandbox`: the local AWS with the vendor's stack and two customers to onboard."""

import argparse
import gc
import os
import signal
import sys
import threading
from pathlib import Path

# Garbage collection is off until the server listens. A scan of moto, which stays in memory, takes
# nearly half of the start-up time.
gc.disable()

from sandbox.organization import organization
from sandbox.server import Sandbox
from sandbox.vendor import (
    CUSTOMERS,
    ORGANIZATION,
    VENDOR_ACCOUNT,
    VENDOR_STACK,
    Vendor,
    deploy_canary,
    deploy_regions,
    deploy_vendor,
    seed_customers,
)

_TEMPLATES = Path(__file__).parent.parent / "cloudformation"
_EPILOG = f"""\
Point anything that speaks AWS at it:
  export AWS_ENDPOINT_URL=http://localhost:4566 AWS_DEFAULT_REGION=us-east-1
  export AWS_ACCESS_KEY_ID=444455556666 AWS_SECRET_ACCESS_KEY=any     # 12 digits: \
the root of that account

Accounts to start with: {VENDOR_ACCOUNT} (the vendor), \
{", ".join(f"{a} ({name})" for a, name in CUSTOMERS.items())};
any other 12 digits are an empty account. Acme's is the management account of an organisation with
the units {", ".join(ORGANIZATION["ous"])}. To run a service as the vendor's
broker, give it no key but
  export AWS_CONTAINER_CREDENTIALS_FULL_URI=http://localhost:4566/_sandbox/broker-credentials

Open http://localhost:4566/console/ for the console. Everything is in memory and gone when it stops.
"""


def main() -> int:
    options = _parser().parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sandbox = Sandbox(options.port, options.host)
    try:
        sandbox.start()
    except OSError as error:
        sys.stderr.write(
            f"the sandbox cannot listen on {options.host}:{options.port}:"
            f" {os.strerror(error.errno or 0)}\n"
        )
        return 1
    try:
        vendor = Vendor(
            options.vendor_account, options.vendor_stack, dict(options.vendor_parameter)
        )
        broker, region, canary = (
            (_TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8")
            for name in ("broker", "broker-region", "canary")
        )
        deployed = deploy_vendor(sandbox.url, broker, vendor)
        deployed = deploy_regions(sandbox.url, region, deployed, vendor)
        sandbox.use_vendor(deploy_canary(sandbox.url, canary, deployed, vendor))
        seed_customers(sandbox.url)
        organization.change(ORGANIZATION)
        sys.stdout.write(
            f"sandbox ready at {sandbox.url} (console: {sandbox.url}/console/, Ctrl-C stops it)\n"
        )
        sys.stdout.flush()
        gc.freeze()
        gc.enable()
        stop.wait()
    finally:
        sandbox.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="A local AWS that enforces role trust policies, for development and demos.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port",
        type=int,
        default=4566,
        help="where to listen; 0 takes a free port (default: 4566)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; it has no authentication (default: 127.0.0.1)",
    )
    parser.add_argument("--vendor-account", default=VENDOR_ACCOUNT, help="the vendor's account id")
    parser.add_argument(
        "--vendor-stack", default=VENDOR_STACK, help="the name of the vendor's stack"
    )
    parser.add_argument(
        "--vendor-parameter",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=VALUE",
        help="a parameter of cloudformation/broker.yaml; repeat for several",
    )
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
