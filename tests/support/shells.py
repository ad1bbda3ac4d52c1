"""Scripts of the kit, run by real shells with the real AWS CLI."""

import shutil
import subprocess
import sys
from pathlib import Path

from sandbox.server import Sandbox


def run_as(
    aws: Sandbox, account: str, script: str, program: str = "sh", **given: str
) -> subprocess.CompletedProcess[str]:
    """As an administrator of the account would; `given` are more variables of the environment."""
    return subprocess.run(
        [shutil.which(program), "-s"],
        input=script,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "AWS_ENDPOINT_URL": aws.url,
            "AWS_ACCESS_KEY_ID": account,
            "AWS_SECRET_ACCESS_KEY": "sandbox",
            **given,
        },
        capture_output=True,
        text=True,
        check=False,
    )
