"""The model: what tenants, keys, roles and connections are, as far as credentials depend on it.

docs/architecture.md lists the invariants. Nothing here is Deputy's code, and nothing here asks
Deputy.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.model.trust import Trust

ACTIVE, SUSPENDED, ENDED = "active", "suspended", "ended"
PENDING, VERIFIED, BROKEN, INSECURE, DELETED = (
    "pending",
    "verified",
    "broken",
    "insecure",
    "deleted",
)
CURRENT, NEXT, RETIRING, RETIRED = "current", "next", "retiring", "retired"
PROOF_MAX_AGE = timedelta(days=1)
WRITES = (
    "bucket-sync"  # the permission set that needs approval where a tenant's own key asks for it
)


@dataclass(eq=False)
class Role:
    """A role in a customer's account. `reads`: it may read itself, so a proof sees its trust
    policy.
    """

    account: str
    name: str
    unique_id: str
    trust: Trust
    reads: bool
    exists: bool = True

    @property
    def arn(self):
        return f"arn:aws:iam::{self.account}:role/{self.name}"

    def lets_in(self, external_id):
        return self.exists and self.trust.lets_in(external_id)


@dataclass(eq=False)
class Rotation:
    old: str
    new: str
    started_at: datetime
    emergency: bool = False
    ready_at: datetime | None = None
    by_bound: bool = (
        True  # what the vendor began, or made an emergency, the tenant's key can't abandon
    )


@dataclass(eq=False)
class Tenant:
    """`external_ids`: each with its state; `withdrawn`: since when nothing is issued with it any
    more.
    """

    id: str
    name: str
    external_ids: dict[str, str]
    withdrawn: dict[str, datetime] = field(default_factory=dict)
    rotation: Rotation | None = None
    status: str = ACTIVE
    suspended_by_bound: bool | None = None
    made_by: "Key | None" = None
    made_at: datetime | None = None

    def with_state(self, state):
        return next((value for value, known in self.external_ids.items() if known == state), None)

    @property
    def current(self):
        return self.with_state(CURRENT) or next(iter(self.external_ids))

    @property
    def rotates(self):
        return bool({NEXT, RETIRING} & set(self.external_ids.values()))

    @property
    def is_open(self):
        """Whether its latest rotation can be completed or abandoned."""
        return self.rotation is not None and self.external_ids[self.rotation.new] == NEXT


@dataclass(eq=False)
class Key:
    id: str
    text: str
    scopes: frozenset[str]
    tenant: Tenant | None = None
    expires_at: datetime | None = None
    permission_set: str | None = None
    made_by: "Key | None" = None
    replaced_by: "Key | None" = None
    revoked: bool = False

    @property
    def is_gone(self):
        """Revoked, or its tenant has ended; an expired one can still be revoked."""
        return self.revoked or (self.tenant is not None and self.tenant.status == ENDED)

    def is_live(self, at):
        return not self.is_gone and (self.expires_at is None or self.expires_at > at)

    def may_see(self, tenant):
        return self.tenant in {None, tenant}

    def refused(self, scope, tenant, at):
        """The status of a refusal that this key meets before anything of the tenant is looked
        at; None: it is let in.
        """
        if not self.is_live(at):
            return 401
        if scope not in self.scopes:
            return 403
        return 404 if not self.may_see(tenant) or tenant.status == ENDED else None

    def may_sign_up(self, tenant, at):
        """Whether the tenant was made within 24 hours, by this key or by one that it succeeded."""
        maker = tenant.made_by
        while maker is not None and maker is not self:
            maker = maker.replaced_by
        return (
            maker is self
            and tenant.made_at is not None
            and at < tenant.made_at + timedelta(hours=24)
        )


@dataclass(eq=False)
class Connection:
    """`pair`: the External ID that it is issued with. `void_before`: sessions that were opened by
    an earlier call to AWS than this one are not handed out any more.
    """

    id: str
    tenant: Tenant
    role: Role
    permission_set: str
    created_at: datetime
    pair: str
    awaiting: bool = False
    status: str = PENDING
    suspended_by_bound: bool | None = None
    deleted_by_bound: bool | None = None
    ended_at: datetime | None = None  # of its deletion
    proven_at: datetime | None = None  # of the latest proof that counts for issuing
    passed_at: datetime | None = None  # of the latest proof, if it succeeded
    unique_id: str | None = None
    tried_at: datetime | None = None
    refusing_since: datetime | None = None
    reported_at: datetime | None = None
    # Another External ID of the tenant's
    accepts_since: dict[str, datetime] = field(default_factory=dict)
    refused_at: dict[str, list[datetime]] = field(default_factory=dict)
    void_before: int = 0
    pairs: set[str] = field(default_factory=set)  # all that it had

    def become(self, status, mark):
        if status != self.status or status == VERIFIED:
            self.void_before = mark
        self.status = status

    def recreated(self, mark):
        """A session showed another role under the ARN than the proven one."""
        self.become(PENDING, mark)
        self.unique_id = None


class Model:
    def __init__(self):
        self.tenants = []
        self.keys = []
        self.roles = []
        self.connections = []

    def live(self, tenant=None):
        return [
            it for it in self.connections if it.status != DELETED and tenant in {None, it.tenant}
        ]

    def to_role(self, tenant, role):
        return next((it for it in self.live(tenant) if it.role is role), None)

    def is_buried(self, tenant, role):
        """Whether the vendor deleted the tenant's latest connection to the role: only the vendor
        adds it again.
        """
        earlier = [it for it in self.connections if it.tenant is tenant and it.role is role]
        return bool(earlier) and earlier[-1].status == DELETED and not earlier[-1].deleted_by_bound

    def is_emptied(self, tenant, account):
        """Whether the vendor deleted a connection of the tenant's in the account, and has added
        none there since.
        """
        own = [it for it in self.connections if it.tenant is tenant]
        there = [it for it in own if it.role.account == account]
        return any(
            it.status == DELETED and not it.deleted_by_bound and there[-1].created_at <= it.ended_at
            for it in there
        )

    def is_closed(self, tenant, account):
        """Whether the vendor suspended a connection of the tenant's in the account, which keeps
        new roles there out.
        """
        suspended = (
            it for it in self.live(tenant) if it.status == SUSPENDED and not it.suspended_by_bound
        )
        return any(it.role.account == account for it in suspended)

    def other(self, tenant):
        return next(it for it in self.tenants if it is not tenant)

    def verified(self, tenant):
        return (it for it in self.live(tenant) if it.status == VERIFIED)

    def family(self, key):
        """The key, what it made, and what those made. It stops at a revoked one."""
        found = set()
        more = {key}
        while more:
            found |= more
            more = {
                it for it in self.keys if not it.revoked and {it.made_by, it.replaced_by} & found
            } - found
        return found

    def why_not(self, key, tenant, connection, at):
        """Status and code of the refusal that a request for credentials must meet; None: the model
        allows it, if the proof is young enough. A bad key and a foreign thing come first: they
        learn nothing else.
        """
        status = key.refused("credentials:issue", tenant, at)
        if status is not None or connection.tenant is not tenant or connection.status == DELETED:
            return status or 404, None
        if SUSPENDED in {tenant.status, connection.status}:
            return 409, "suspended"
        if connection.status != VERIFIED:
            return 409, "connection_not_verified"
        if connection.pair in tenant.withdrawn or tenant.external_ids[connection.pair] == RETIRED:
            return 409, "external_id_withdrawn"
        if key.permission_set not in {None, connection.permission_set}:
            return 403, "forbidden"
        return None

    def end(self, tenant, mark):
        tenant.status = ENDED
        tenant.external_ids = dict.fromkeys(tenant.external_ids, RETIRED)
        for connection in self.live(tenant):
            connection.become(DELETED, mark)
