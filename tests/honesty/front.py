"""AWS as the deployed service sees it: the bench's instant STS, and in front of it a door that
has bad days.
"""

import asyncio
import contextlib
import http.client
import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlencode

from bench.instant_sts import BROKER_KEY
from dev.ports import free_port
from dev.stack import ONLY_THESE_CREDENTIALS, ROOT, end_with_parent
from tests.support.waiting import until

_THROTTLED = (
    "<ErrorResponse"
    ' xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
    "<Code>Throttling</Code><Message>Rate"
    " exceeded</Message></Error><RequestId>front</RequestId></ErrorResponse>"
)


class Aws:
    """Use it in a `with`. Every call goes through here, is noted, and on good days is answered
    by the instant STS.
    """

    def __init__(self):
        self.calls: list[tuple[str, str | None]] = []  # (action, role ARN)
        self._delay = 0.0
        self._silent = False
        self._throttling = False
        self._every = 0  # so many'th call is cut
        self._external_ids: dict[str, str] = {}
        self._open_roles: set[str] = set()
        self._accepted: dict[str, tuple[str, ...]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._sts_port, self._port = free_port(), free_port()

    def __enter__(self):
        command = [sys.executable, "-m", "bench.instant_sts", str(self._sts_port)]
        # one C call
        self._sts = subprocess.Popen(command, cwd=ROOT, preexec_fn=end_with_parent)  # noqa: PLW1509
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
            self._await_sts()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._sts.kill()
        self._sts.wait()

    @property
    def environment(self):
        """What makes any AWS SDK call this AWS, as the broker."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": BROKER_KEY,
            "AWS_SECRET_ACCESS_KEY": "secret",
            **ONLY_THESE_CREDENTIALS,
        }

    def register(self, role_arn, external_id):
        """A role that asks for this External ID."""
        self._external_ids[role_arn] = external_id
        self._tell(json.dumps({role_arn: external_id}))

    def stop_asking_for_external_id(self, role_arn):
        self._open_roles.add(role_arn)

    def accept(self, role_arn, *external_ids):
        """The role asks for one of these from now on."""
        self._accepted[role_arn] = external_ids

    def assumed(self, role_arn):
        """How many AssumeRole came for it."""
        return self.calls.count(("AssumeRole", role_arn))

    @contextmanager
    def _changed(self, name, value):
        good = getattr(self, name)
        setattr(self, name, value)
        try:
            yield
        finally:
            setattr(self, name, good)

    def slow(self, seconds):
        return self._changed("_delay", seconds)

    def silent(self):
        """It takes calls and never answers."""
        return self._changed("_silent", True)

    def cutting(self, every):
        """It cuts the connection of each call (1), or of each second one (2)."""
        return self._changed("_every", every)

    def throttling(self):
        return self._changed("_throttling", True)

    def _tell(self, roles):
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self._sts_port, timeout=5)
        ) as control:
            control.request("POST", "/_bench/roles", roles)
            assert control.getresponse().status == 200

    def _await_sts(self):
        def listens():
            assert self._sts.poll() is None, "the instant STS does not start"
            with contextlib.suppress(OSError):
                self._tell("{}")
                return True
            return False

        until(listens, "the instant STS is up")

    async def _listen(self):
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, backlog=1024
        )

    async def _end(self):
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader, writer):
        """One connection of the service's."""
        sts = None
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                query = dict(parse_qsl(body.decode()))
                self.calls.append((query["Action"], query.get("RoleArn")))
                if self._silent:
                    await reader.read()  # until the other side gives up
                    return
                if self._every and len(self.calls) % self._every == 0:
                    return
                await asyncio.sleep(self._delay)
                if self._throttling:
                    writer.write(_answer("400 Bad Request", _THROTTLED))
                    continue
                sts = sts or await asyncio.open_connection("127.0.0.1", self._sts_port)
                writer.write(await _asked(*sts, head, self._as_told(query)))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, sts[1] if sts else writer):
                end.close()

    def _as_told(self, query):
        """The call; for a role that lets anybody in, with the External ID that the role behind
        it wants.
        """
        role_arn, external_id = query.get("RoleArn"), query.get("ExternalId")
        accepted = self._accepted.get(role_arn, ())
        if role_arn in self._open_roles or external_id in accepted:
            query["ExternalId"] = self._external_ids[role_arn]
        elif accepted:
            query["ExternalId"] = "of-nobody"
        return urlencode(query).encode()


async def _asked(reader, writer, head, body):
    head = re.sub(rb"(?i)\r\ncontent-length:[^\r]*", b"", head).removesuffix(b"\r\n")
    writer.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
    answer = await reader.readuntil(b"\r\n\r\n")
    return answer + await reader.readexactly(_length(answer))


def _length(head):
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(length[1]) if length else 0


def _answer(status, body):
    header = f"HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return f"{header}{body}".encode()
