"""A local STS that answers at once and counts calls: `python -m bench.instant_sts PORT`.

It listens on 127.0.0.1 only. It has the roles that the bench registers, each with its External ID,
and refuses every other call as AWS does, so connections are proven as in production. Each role can
read its own trust policy in IAM's format. It checks no signatures: the bench measures Deputy, so
the STS must be cheap.

Its control API under /_bench: `POST roles` {"<role ARN>": "<External ID>"}, `POST delay`
{"seconds": 0.05} (for calls that must overlap), `POST denies` {"<role ARN>": statement} (one more
in the role's trust policy), `POST role-ids` [ARN, …] → their unique ids, and `GET calls` →
{"AssumeRole": …, "refused": …, "GetCallerIdentity": …}.
"""

import asyncio
import base64
import json
import sys
import time
from typing import Any
from urllib.parse import parse_qsl, quote

BROKER_KEY = "AKIABENCHBROKER00000"
ACCOUNT = "111122223333"
BROKER_ARN = f"arn:aws:iam::{ACCOUNT}:role/DeputyBroker"
_BROKER_SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/DeputyBroker/bench"
_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
# STS's tokens have 700 to 900 characters.
_TOKEN = "FwoGZXIvYXdzE" + base64.b64encode(bytes(range(256)) * 2).decode()


class Roles:
    """The roles, the counts of calls, and the sessions.

    A session's key encodes its role and its number.
    """

    def __init__(self) -> None:
        self.delay = 0.0
        self.calls = {"AssumeRole": 0, "refused": 0, "GetCallerIdentity": 0}
        self._external_ids: dict[str, str] = {}
        self.denies: dict[str, Any] = {}
        self._numbers: dict[str, int] = {}
        self._arns: list[str] = []

    def register(self, roles: dict[str, str]) -> None:
        for arn, external_id in roles.items():
            self._external_ids[arn] = external_id
            if arn not in self._numbers:
                self._numbers[arn] = len(self._arns)
                self._arns.append(arn)

    def role_id(self, arn: str) -> str:
        return _role_id(self._numbers[arn])

    def assume(self, query: dict[str, str]) -> bytes | None:
        """Return the answer's XML, or None for a refusal.

        A call is refused if the role is absent, or if the External ID is missing or wrong.
        """
        self.calls["AssumeRole"] += 1
        arn = query.get("RoleArn", "")
        if arn not in self._external_ids or query.get("ExternalId") != self._external_ids[arn]:
            self.calls["refused"] += 1
            return None
        return self._session(arn, query["RoleSessionName"], int(query.get("DurationSeconds", 3600)))

    def identity(self, access_key: str) -> bytes | None:
        """Return STS's answer to the broker or to one of its sessions about itself."""
        self.calls["GetCallerIdentity"] += 1
        if access_key == BROKER_KEY:
            return _identity(ACCOUNT, _BROKER_SESSION, "AROABENCHBROKER000000:bench")
        number = self._of_session(access_key)
        if number is None:
            return None
        arn = self._arns[number]
        user_id = f"{_role_id(number)}:session"
        return _identity(arn.split(":")[4], _assumed(arn, "session"), user_id)

    def role(self, access_key: str) -> bytes | None:
        """Return IAM's answer to a session about its own role, with the kit's trust policy."""
        number = self._of_session(access_key)
        if number is None:
            return None
        arn = self._arns[number]
        policy = _trust_policy(self._external_ids[arn])
        if arn in self.denies:
            policy["Statement"].append(self.denies[arn])
        trust = quote(json.dumps(policy))
        return (
            f"<GetRoleResponse><GetRoleResult><Role><RoleId>{_role_id(number)}</RoleId>"
            f"<AssumeRolePolicyDocument>{trust}</AssumeRolePolicyDocument></Role>"
            "</GetRoleResult></GetRoleResponse>"
        ).encode()

    def _of_session(self, access_key: str) -> int | None:
        if access_key.startswith("ASIA"):
            number = int(access_key[4:10], 32)
            if number < len(self._arns):
                return number
        return None

    def _session(self, arn: str, name: str, seconds: int) -> bytes:
        number, given = self._numbers[arn], self.calls["AssumeRole"]
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        key = f"ASIA{_base32(number, 6)}{_base32(given, 10)}"
        return (
            f'<AssumeRoleResponse xmlns="{_NAMESPACE}"><AssumeRoleResult><AssumedRoleUser>'
            f"<AssumedRoleId>{_role_id(number)}:{name}</AssumedRoleId>"
            f"<Arn>{_assumed(arn, name)}</Arn></AssumedRoleUser>"
            f"<Credentials><AccessKeyId>{key}</AccessKeyId>"
            f"<SecretAccessKey>wJalrXUtnFEMIK7MDENGbPxRfiCY{given:012d}</SecretAccessKey>"
            f"<SessionToken>{_TOKEN}{given:012d}</SessionToken>"
            f"<Expiration>{expires}</Expiration></Credentials>"
            f"</AssumeRoleResult><ResponseMetadata><RequestId>bench-{given}</RequestId>"
            "</ResponseMetadata>"
            "</AssumeRoleResponse>"
        ).encode()


def _trust_policy(external_id: str) -> dict[str, Any]:
    conditions = {
        "StringEquals": {"sts:ExternalId": external_id},
        "ArnEquals": {"aws:PrincipalArn": BROKER_ARN},
    }
    allow = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
        "Action": "sts:AssumeRole",
    }
    return {"Version": "2012-10-17", "Statement": [allow | {"Condition": conditions}]}


def _assumed(arn: str, session: str) -> str:
    account, role = arn.split(":")[4], arn.rsplit("/", 1)[-1]
    return f"arn:aws:sts::{account}:assumed-role/{role}/{session}"


def _role_id(number: int) -> str:
    return f"AROABENCH{number:012d}"


def _base32(number: int, width: int) -> str:
    """Format digits that `int(text, 32)` parses, in the capitals of AWS's keys."""
    text = ""
    for _ in range(width):
        number, digit = divmod(number, 32)
        text = "0123456789ABCDEFGHIJKLMNOPQRSTUV"[digit] + text
    return text


def _error(code: str) -> bytes:
    message = (
        "is not authorized to perform: sts:AssumeRole"
        if code == "AccessDenied"
        else "The call is not valid."
    )
    return (
        f'<ErrorResponse xmlns="{_NAMESPACE}"><Error><Type>Sender</Type><Code>{code}</Code>'
        f"<Message>{message}</Message></Error><RequestId>bench</RequestId></ErrorResponse>"
    ).encode()


def _identity(account: str, arn: str, user_id: str) -> bytes:
    return (
        f'<GetCallerIdentityResponse xmlns="{_NAMESPACE}"><GetCallerIdentityResult><Arn>{arn}</Arn>'
        f"<UserId>{user_id}</UserId><Account>{account}</Account></GetCallerIdentityResult>"
        "<ResponseMetadata><RequestId>bench</RequestId></ResponseMetadata>"
        "</GetCallerIdentityResponse>"
    ).encode()


class Http(asyncio.Protocol):
    """Just enough HTTP/1.1 with keep-alive for boto3 and the bench.

    A framework would be the bottleneck.
    """

    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  what create_server gives
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, gap, rest = self._buffer.partition(b"\r\n\r\n")
            if not gap:
                return
            lines = head.decode("latin-1").split("\r\n")
            headers = {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._serve(lines[0], headers, rest[:length])

    def _serve(self, line: str, headers: dict[str, str], body: bytes) -> None:
        _, path, _ = line.split(" ")
        if path.startswith("/_bench/"):
            self._send("200 OK", "application/json", json.dumps(self._control(path, body)).encode())
            return
        status, answer = self._call(dict(parse_qsl(body.decode())), headers)
        if self._roles.delay:
            loop = asyncio.get_running_loop()
            loop.call_later(self._roles.delay, self._send, status, "text/xml", answer)
        else:
            self._send(status, "text/xml", answer)

    def _control(self, path: str, body: bytes) -> Any:
        if path == "/_bench/roles":
            self._roles.register(json.loads(body))
        elif path == "/_bench/delay":
            self._roles.delay = float(json.loads(body)["seconds"])
        elif path == "/_bench/denies":
            self._roles.denies.update(json.loads(body))
        elif path == "/_bench/role-ids":
            return [self._roles.role_id(arn) for arn in json.loads(body)]
        return self._roles.calls

    def _call(self, query: dict[str, str], headers: dict[str, str]) -> tuple[str, bytes]:
        access_key = headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]
        action, refusal = query.get("Action"), "InvalidClientTokenId"
        if action == "GetCallerIdentity":
            answer = self._roles.identity(access_key)
        elif action == "GetRole":
            answer = self._roles.role(access_key)
        elif action == "AssumeRole":
            refusal = "AccessDenied"
            answer = self._roles.assume(query) if access_key == BROKER_KEY else None
        else:
            return "400 Bad Request", _error("InvalidAction")
        if answer is None:
            return "403 Forbidden", _error(refusal)
        return "200 OK", answer

    def _send(self, status: str, kind: str, body: bytes) -> None:
        if self._transport is not None:
            head = (
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            self._transport.write(head.encode() + body)


async def serve(port: int) -> None:
    roles = Roles()
    server = await asyncio.get_running_loop().create_server(
        lambda: Http(roles), "127.0.0.1", port, backlog=1024
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
