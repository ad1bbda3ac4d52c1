"""A real RabbitMQ, for tests that kill it, on machines that have one."""

import os
import shutil
import signal
import socket
import subprocess
import time

from dev.ports import free_port

# First where Debian has the server itself: its command in the PATH starts it as another user.
_PATH = f"/usr/lib/rabbitmq/bin:{os.environ.get('PATH', '')}"
SERVER = shutil.which("rabbitmq-server", path=_PATH)


class RabbitMQ:
    """Started, killed and started again on the same port and the same data."""

    def __init__(self, folder):
        port, epmd_port = free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{port}//"
        self._address = ("127.0.0.1", port)
        self._log = folder / "rabbitmq.log"
        plugins = folder / "enabled_plugins"
        plugins.write_text("[].")
        self._env = os.environ | {
            "HOME": str(folder),  # Erlang's cookie
            "RABBITMQ_NODENAME": f"deputy-{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_CONFIG_FILE": str(folder / "none"),
            # Erlang's threads would wait for work without rest, and one is enough.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(epmd_port),
        }
        # Its own, and our child: Erlang would leave one behind.
        self._epmd = subprocess.Popen([shutil.which("epmd") or "epmd"], env=self._env)
        self.start()

    def start(self):
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                [str(SERVER)], env=self._env, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                return socket.create_connection(self._address, 1).close()
            except OSError:
                assert self._server.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, "it does not start"
                time.sleep(0.1)

    def kill(self):
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()

    def close(self):
        if self._server.poll() is None:
            self.kill()
        self._epmd.kill()
        self._epmd.wait()
