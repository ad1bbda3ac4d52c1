"""Calls that must not block gevent's hub, in a patched process of their own."""

import subprocess
import sys

WITH_A_DEAD_DNS = """
import gevent.monkey
gevent.monkey.patch_all()
import _socket, socket, time
import gevent
from app.concurrency.gevent import Threads

hanging, real = [], gevent.monkey.get_original("time", "sleep")
_socket.getaddrinfo = lambda *_, **__: (hanging.append(True), real(60))
for _ in range(50):
    gevent.spawn(socket.getaddrinfo, "aws.test", 80)
while len(hanging) < gevent.get_hub().threadpool.maxsize:
    gevent.sleep(0.005)
with gevent.Timeout(10):
    print(Threads(1).run(sum, [1, 2]), flush=True)
import os
os._exit(0)
"""


def test_other_blocking_calls_do_not_wait_for_a_dead_dns():
    """gevent looks names up in ten threads of its hub's; ours must not be among them."""
    command = [sys.executable, "-c", WITH_A_DEAD_DNS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == "3", done.stderr
