"""Scripts of the kit, run by real shells with the real AWS CLI."""

import atexit
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from dev.stack import ROOT, end_with_parent
from tests.support.waiting import until


def run_as(aws, account, script, program="sh", **given):
    """As an administrator of the account would; `given` are more variables of the environment."""
    return subprocess.run(
        [shutil.which(program), "-s"],
        input=script,
        env={
            "PATH": f"{_aws_cli()}:/usr/bin:/bin",
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


@cache
def _aws_cli():
    """The folder with the program `aws`, for as long as this process lives."""
    folder = Path(tempfile.mkdtemp(prefix="deputy-aws-cli-"))
    command = [sys.executable, "-m", "tests.support.aws_cli", str(folder)]
    server = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        preexec_fn=end_with_parent,  # noqa: PLW1509  one C call
    )

    def end():
        server.kill()
        server.wait()
        shutil.rmtree(folder)

    atexit.register(end)
    until((folder / "aws").exists, "the AWS CLI listens")
    return folder
