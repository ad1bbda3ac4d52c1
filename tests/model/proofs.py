"""The model's proofs and rotations: what a proof finds, what becomes of the connection, and of
its tenant's rotation.
"""

from dataclasses import dataclass
from datetime import timedelta

from tests.model.state import (
    BROKEN,
    CURRENT,
    ENDED,
    INSECURE,
    NEXT,
    PENDING,
    RETIRED,
    RETIRING,
    VERIFIED,
    Rotation,
)

PROVEN, UNASSUMABLE, INCONCLUSIVE = "proven", "unassumable", "inconclusive"
_CONFIRMED_AFTER = timedelta(minutes=2)
_APART = timedelta(minutes=1)


@dataclass(frozen=True)
class Finding:
    """`pair`: the External ID that the connection has if the proof succeeds."""

    verdict: str
    pair: str


def verdict_on(connection, external_id):
    """What the role's policy, as the customer last wrote it, makes of a proof with this External
    ID.
    """
    role = connection.role
    if not role.lets_in(external_id):
        return UNASSUMABLE
    seen_open = role.reads and role.trust.reads_open(connection.tenant.external_ids)
    return INSECURE if role.trust.lets_in_strangers(external_id) or seen_open else PROVEN


def prove(model, connection, at, mark, *, routine):
    """Returns the verdict that Deputy must come to."""
    tenant, rotated = connection.tenant, connection.tenant.rotates
    found = _found(connection, at)
    refused, verdict = found.verdict == UNASSUMABLE, found.verdict
    if refused and routine and connection.status in {VERIFIED, INSECURE}:
        # Nobody asked for this proof, so a refusal counts the second time only, a minute later.
        since = connection.refusing_since
        verdict = UNASSUMABLE if since is not None and at >= since + _APART else INCONCLUSIVE
    if verdict == PROVEN and found.pair != connection.pair:
        connection.pair, connection.void_before = found.pair, mark
    connection.tried_at = at
    connection.refusing_since = (connection.refusing_since or at) if refused else None
    _apply(connection, verdict, at, mark)
    if rotated:
        settle(model, tenant, at)
    return verdict


def _apply(connection, verdict, at, mark):
    connection.passed_at = at if verdict == PROVEN else None
    after = connection.status
    before = after, connection.unique_id
    if verdict == PROVEN:
        connection.unique_id = connection.role.unique_id
        after = PENDING if connection.awaiting else VERIFIED
        connection.proven_at = connection.proven_at if connection.awaiting else at
    elif verdict == INSECURE:
        after = INSECURE
    elif verdict == UNASSUMABLE and after in {VERIFIED, INSECURE}:
        after = BROKEN
    if (after, connection.unique_id) != before:
        connection.become(after, mark)


def _keeps_own(connection):
    return (
        connection.status == VERIFIED and connection.tenant.external_ids[connection.pair] != RETIRED
    )


def _candidates(connection):
    """The External IDs that may be, or become, the connection's own, in the order in which they
    are tried.
    """
    tenant = connection.tenant
    current, upcoming, own = tenant.current, tenant.with_state(NEXT), connection.pair
    if _keeps_own(connection):
        return list(dict.fromkeys([own, upcoming or current]))
    order = [current, upcoming, own]
    is_new = upcoming and connection.proven_at is None
    if is_new and connection.created_at >= tenant.rotation.started_at:
        order = [upcoming, current]
    return [
        it
        for it in dict.fromkeys(order)
        if it and it not in tenant.withdrawn and tenant.external_ids[it] != RETIRED
    ]


def _found(connection, at):
    candidates = _candidates(connection)
    verdicts = {external_id: verdict_on(connection, external_id) for external_id in candidates}
    accepted = next((it for it in candidates if verdicts[it] != UNASSUMABLE), None)
    if accepted is None:
        return Finding(UNASSUMABLE, connection.pair)
    if verdicts[accepted] != PROVEN:
        return Finding(verdicts[accepted], accepted)
    tenant = connection.tenant
    upcoming = tenant.with_state(NEXT) or tenant.current
    found = Finding(PROVEN, accepted)
    if _keeps_own(connection) and upcoming not in {connection.pair, accepted}:
        if verdicts[upcoming] == INSECURE:
            return Finding(INSECURE, accepted)
        found = _upcoming(connection, upcoming, verdicts[upcoming], found, at)
    retiring = tenant.with_state(RETIRING)
    if retiring is not None and retiring != accepted:
        _note_retiring(connection, retiring, at)
    return found


def _upcoming(connection, upcoming, verdict, found, at):
    """A verified connection switches when its role has accepted the next External ID for two
    minutes, or at once if its own was withdrawn.
    """
    if verdict == UNASSUMABLE:
        connection.accepts_since.pop(upcoming, None)
        return found
    since = connection.accepts_since.setdefault(upcoming, at)
    at_once = connection.pair in connection.tenant.withdrawn
    return Finding(PROVEN, upcoming) if at_once or since <= at - _CONFIRMED_AFTER else found


def _note_retiring(connection, retiring, at):
    """Two refusals at least a minute apart, each beside its own ID accepted."""
    times = connection.refused_at.setdefault(retiring, [])
    if connection.role.lets_in(retiring):
        times.clear()
    elif not times or (len(times) == 1 and times[0] <= at - _APART):
        times.append(at)


def start(tenant, new, at):
    """A new rotation. One that has completed ends here, whatever roles have refused."""
    if tenant.rotation and tenant.external_ids[tenant.rotation.old] == RETIRING:
        tenant.external_ids[tenant.rotation.old] = RETIRED
    tenant.rotation = Rotation(tenant.current, new, at)
    tenant.external_ids[new] = NEXT


def withdraw(tenant, at):
    """An emergency: nothing is issued any more with an External ID but the next one."""
    tenant.rotation.emergency = True
    for external_id, state in tenant.external_ids.items():
        if external_id != tenant.rotation.new and state != RETIRED:
            tenant.withdrawn.setdefault(external_id, at)


def abandon(tenant):
    tenant.external_ids[tenant.rotation.new] = RETIRED
    began = tenant.rotation.started_at
    tenant.withdrawn = {it: since for it, since in tenant.withdrawn.items() if since < began}


def waiting(model, tenant):
    return sum(it.pair != tenant.rotation.new for it in model.verified(tenant))


def complete(model, tenant, at):
    tenant.external_ids[tenant.rotation.old] = RETIRING
    tenant.external_ids[tenant.rotation.new] = CURRENT
    settle(model, tenant, at)


def settle(model, tenant, at):
    """As far as the proofs allow: to the end a day after all have switched, to retirement when
    all have refused.
    """
    rotation = tenant.rotation
    if rotation is None or tenant.status == ENDED:
        return
    if tenant.is_open:
        if waiting(model, tenant):
            rotation.ready_at = None
        elif rotation.ready_at is None:
            rotation.ready_at = at
        elif rotation.ready_at <= at - timedelta(days=1):
            tenant.external_ids[rotation.old], tenant.external_ids[rotation.new] = RETIRING, CURRENT
    old = rotation.old
    if tenant.external_ids[old] == RETIRING and _all_have_refused(model, tenant, old, at):
        tenant.external_ids[old] = RETIRED


def _all_have_refused(model, tenant, old, at):
    """A role that broke lately under the old External ID counts as well."""
    for it in model.verified(tenant):
        if it.pair == old or len(it.refused_at.get(old, [])) < 2:
            return False
    day_ago = at - timedelta(days=1)
    for it in model.live(tenant):
        if it.status == BROKEN and it.pair == old and (it.proven_at or day_ago) > day_ago:
            return False
    return True
