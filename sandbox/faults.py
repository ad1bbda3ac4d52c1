"""Faults for tests: errors and delays of STS and of sessions' calls, and roles in propagation."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sandbox.errors import AwsError, access_denied
from sandbox.roles import trust_changed_at


class FaultKind(StrEnum):
    THROTTLE = "throttle"
    TIMEOUT = "timeout"
    ERROR = "error"
    DENY = "deny"
    REGION_DISABLED = "region_disabled"
    EXPIRED_TOKEN = "expired_token"
    PACKED_POLICY_TOO_LARGE = "packed_policy_too_large"
    SPREADING = "spreading"


class Dropped(Exception):  # noqa: N818 - an event, not an error of ours
    """The fault that closes the connection without an answer."""

    code = "dropped"


@dataclass(frozen=True)
class Fault:
    """One fault, and the calls that it matches: calls to STS, or a session's calls such as GetRole.

    `external_id` is "missing", "own" (sent, and in the role's trust policy), "foreign" (sent, and
    not in the trust policy) or the exact value. `caller` is the name of the calling role. `seconds`
    is how long a timeout hangs, or for how long a changed role is in propagation. `times` is how
    often the fault strikes; None: without limit.
    """

    kind: FaultKind
    role_arn: str | None = None
    external_id: str | None = None
    action: str = "AssumeRole"
    caller: str | None = None
    seconds: float = 30
    times: int | None = None


@dataclass(frozen=True)
class Attempt:
    """A call that a fault may match. `role` is moto's role, or None if no role has the ARN."""

    action: str
    caller_arn: str
    account: str
    role_arn: str | None = None
    external_id: str | None = None
    role: Any = None


class Faults:
    def __init__(self, stopping: threading.Event) -> None:
        self._lock = threading.Lock()
        self._stopping = stopping
        self._faults: list[tuple[Fault, int | None]] = []

    def add(self, kind: FaultKind | str, **matchers: Any) -> Fault:
        """Add a fault: `add("throttle", role_arn=…, times=1)`. `Fault` describes the arguments.

        Raises ValueError or TypeError for unknown kinds or fields.
        """
        fault = Fault(FaultKind(kind), **matchers)
        with self._lock:
            self._faults.append((fault, fault.times))
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def strike(self, attempt: Attempt) -> None:
        """Raise the error of the first fault that matches, and count it."""
        fault = self._take(attempt)
        if fault is None:
            return
        if fault.kind is FaultKind.TIMEOUT:
            # An event instead of a sleep, so that the sandbox can stop during the delay
            self._stopping.wait(fault.seconds)
            raise Dropped
        raise _error(fault.kind, attempt)

    def _take(self, attempt: Attempt) -> Fault | None:
        with self._lock:
            for place, (fault, left) in enumerate(self._faults):
                if left == 0 or not _matches(fault, attempt):
                    continue
                if left is not None:
                    self._faults[place] = (fault, left - 1)
                return fault
        return None


def _matches(fault: Fault, attempt: Attempt) -> bool:
    if fault.action != attempt.action or fault.role_arn not in {None, attempt.role_arn}:
        return False
    if fault.caller is not None and f"/{fault.caller}/" not in attempt.caller_arn:
        return False
    if fault.kind is FaultKind.SPREADING and not _is_spreading(attempt.role, fault.seconds):
        return False
    return fault.external_id is None or _external_id_matches(fault.external_id, attempt)


def _external_id_matches(expected: str, attempt: Attempt) -> bool:
    sent = attempt.external_id
    if sent is None or expected == "missing":
        return sent is None and expected == "missing"
    named = attempt.role is not None and f'"{sent}"' in attempt.role.assume_role_policy_document
    return expected in {sent, "own" if named else "foreign"}


def _is_spreading(role: Any, seconds: float) -> bool:
    return (
        role is not None and (datetime.now(UTC) - trust_changed_at(role)).total_seconds() < seconds
    )


def _error(kind: FaultKind, attempt: Attempt) -> AwsError:
    account = (attempt.role_arn or "").split(":")[4] if attempt.role_arn else attempt.account
    match kind:
        case FaultKind.THROTTLE:
            return AwsError(400, "Throttling", "Rate exceeded")
        case FaultKind.ERROR:
            return AwsError(
                500,
                "InternalFailure",
                "The request processing has failed because of an unknown error.",
            )
        case FaultKind.REGION_DISABLED:
            message = (
                f"STS is not activated in this region for account:{account}. Your account"
                " administrator can activate STS in this region using the IAM Console."
            )
            return AwsError(403, "RegionDisabledException", message)
        case FaultKind.EXPIRED_TOKEN:
            return AwsError(
                403, "ExpiredToken", "The security token included in the request is expired"
            )
        case FaultKind.PACKED_POLICY_TOO_LARGE:
            return AwsError(
                400, "PackedPolicyTooLarge", "Packed policy consumes 157% of allotted space"
            )
        case _:  # deny, and a role in propagation: AWS answers both alike
            return access_denied(
                attempt.caller_arn, f"sts:{attempt.action}", attempt.role_arn or "*"
            )
