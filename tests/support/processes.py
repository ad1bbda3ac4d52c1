"""Processes that tests start: what they say is in a file, and they end with the tests."""

import subprocess

from dev.stack import ROOT, end_with_parent


def spawn(words, log, *, mode="ab", cwd=ROOT, env=None):
    """Start a command as the leader of its own group."""
    with log.open(mode) as output:
        return subprocess.Popen(
            words,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  one C call
        )
