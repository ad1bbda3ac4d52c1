"""A sandbox that is reset is a new one. In a process of its own, because moto's state is the
process's.
"""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
from contextlib import closing
from sandbox.server import Sandbox

with Sandbox() as aws:
    s3, sts = aws.client("s3", "444455556666"), aws.client("sts", "444455556666")
    with closing(s3), closing(sts):
        s3.create_bucket(Bucket="gone")
        aws.faults.add("throttle", action="GetCallerIdentity")
        aws.reset()
        assert s3.list_buckets()["Buckets"] == [], "buckets"
        assert sts.get_caller_identity()["Account"] == "444455556666", "faults"
        assert aws.sts_calls == [] and aws.broker_arn is None
try:
    aws.url
except RuntimeError:
    print("ok")
"""


def test_reset_and_stop():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("ok\n", "")
