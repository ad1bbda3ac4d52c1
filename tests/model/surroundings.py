"""The rest of the machine: what customers do in their accounts, keys, tenants, rotations, and
time that passes.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.model import proofs
from tests.model.machine import (
    _A_TURN,
    _ISSUE,
    _ROUTINE,
    REASON,
    SIGN_UP,
    Deputy,
    any_,
    app_,
    whose_,
)
from tests.model.stage import ALL
from tests.model.state import (
    ACTIVE,
    ENDED,
    NEXT,
    RETIRED,
    RETIRING,
    SUSPENDED,
    VERIFIED,
    WRITES,
    Key,
)
from tests.model.trust import HANDS, LOOSE, written

_MOST_ROLES = 5
_ROTATION = "/external-id/rotation"


if_there_is_room = precondition(lambda self: len(self.model.roles) < _MOST_ROLES)
on_a_tenant = rule(app=app_, whose=any_, by=whose_)
if_any_rotated = precondition(lambda self: any(it.rotation for it in self.model.tenants))


class Surroundings(Deputy):
    # Customers, who write what they like

    def _written(self, hand, tenant):
        before = tenant.with_state(RETIRING) or tenant.with_state(RETIRED)
        foreign = self.model.other(tenant).current
        return written(hand, tenant.current, tenant.with_state(NEXT), before, foreign)

    def begin_on(self, place):
        """Begin a step of a tenant's."""
        self.begin()
        return self.tenant_named(place)

    def _owner(self, account):
        return self.model.tenants[[it.account for it in self.model.roles].index(account)]

    @rule(which=any_, hand=st.sampled_from(HANDS), proven=st.booleans())
    def a_customer_edits_a_trust_policy(self, which, hand, proven):
        """And perhaps somebody looks at once."""
        self.begin()
        role = self.role_named(which)
        if role.exists:
            self.stage.retrust(role, self._written(hand, self._owner(role.account)))
        connections = [it for it in self.model.live() if it.role is role]
        if proven and connections:
            self._verify(which % 2, connections[which % len(connections)], "vendor")

    @rule(which=any_, hand=st.sampled_from(LOOSE))
    def a_customer_loosens_a_trust_policy(self, which, hand):
        self.a_customer_edits_a_trust_policy(which, hand, proven=True)

    @rule(which=any_)
    def a_customer_does_as_the_kit_says(self, which):
        """Proven twice at once, which is too soon, and once more: a connection switches to the next
        External ID where there is one.
        """
        for _ in range(2):
            self.a_customer_edits_a_trust_policy(which, HANDS[0], proven=True)
        self.a_background_worker_comes_back(3)

    @if_there_is_room
    @rule(
        app=app_,
        whose=any_,
        by=whose_,
        hand=st.sampled_from(HANDS[:1] * 6 + HANDS),
        reads=st.booleans(),
        permission_set=st.sampled_from([None, WRITES]),
        approved=st.booleans(),
    )
    def a_customer_makes_a_role(self, app, whose, by, *, hand, reads, permission_set, approved):
        """And connects it; perhaps the vendor approves it at once, or the tenant tries to."""
        self.begin()
        place, tenant = whose % 2, self.tenant_named(whose)
        role = self.stage.new_role(
            self.model.roles[place].account, self._written(hand, tenant), reads=reads
        )
        self.model.roles.append(role)
        self._connect(app, by, tenant, role, permission_set)
        connection = self.model.to_role(tenant, role)
        if approved and connection and connection.awaiting:
            self._approve(app, connection, "owner")
            self._approve(app, connection, "vendor")

    @if_there_is_room
    @rule(app=app_, whose=any_, reads=st.booleans())
    def a_tenant_adds_a_role_that_writes(self, app, whose, reads):
        """Which the tenant may not approve itself, and the vendor does."""
        self.a_customer_makes_a_role(
            app, whose, "owner", hand=HANDS[0], reads=reads, permission_set=WRITES, approved=True
        )

    @rule(which=any_, comes_back=st.booleans())
    def a_customer_deletes_a_role(self, which, comes_back):
        """And perhaps makes it again: under the same ARN it is another one."""
        self.begin()
        role = self.role_named(which)
        if role.exists:
            self.stage.remove(role)
        if comes_back:
            self.stage.make(role)

    # Keys

    @rule(
        app=app_,
        whose=any_,
        by=whose_,
        life=st.sampled_from([None, timedelta(minutes=10)]),
        scopes=st.sampled_from([_ISSUE, ALL - _ISSUE, ALL]),
        permission_set=st.sampled_from([None, "inventory"]),
    )
    def make_a_key(self, app, whose, by, *, life, scopes, permission_set):
        tenant = self.begin_on(whose)
        maker = self.actor(tenant, by)
        ends = maker.expires_at
        if life:
            ends = min(self.at + life, ends or datetime.max.replace(tzinfo=UTC))
        more = {"expires_at": ends.isoformat()} if ends else {}
        if permission_set:
            more["permission_sets"] = [permission_set]
        key = Key("", "", scopes, tenant, ends, permission_set, maker)
        self._make(app, key, maker.refused("keys:write", tenant, self.at) or 201, **more)

    def _make(self, app, key, expect, **more):
        """Ask its maker for this key."""
        body = {"name": "a program", "scopes": sorted(key.scopes), "tenant_id": key.tenant.id}
        answer = self.stage.ask(app, key.made_by, "POST", "/v1/api-keys", body | more)
        assert answer.status_code == expect, f"{expect} expected: {answer.text}"
        if expect == 201:
            self._add(key, answer)

    def _add(self, key, answer):
        made = answer.get_json()
        key.id, key.text = made["id"], made["key"]
        self.model.keys.append(key)

    @rule(app=app_, whose=any_, which=any_, scopes=st.sampled_from([_ISSUE, _ISSUE, ALL]))
    def a_sign_up_service_makes_a_key(self, app, whose, which, scopes):
        """The maker of the tenant tries, and another one."""
        tenant = self.begin_on(whose)
        makers = [it for it in self.model.keys if it.scopes == SIGN_UP]
        for place in (which, which + 1):
            maker, expect = makers[place % len(makers)], 404
            if not maker.is_live(self.at):
                expect = 401
            elif scopes != _ISSUE:
                expect = 403
            elif tenant.status != ENDED and maker.may_sign_up(tenant, self.at):
                expect = 201
            self._make(app, Key("", "", scopes, tenant, maker.expires_at, None, maker), expect)
            self.seen[f"signed up {expect}"] += 1

    def _key_named(self, place):
        """Any but the vendor's own."""
        return self.model.keys[1 + place % (len(self.model.keys) - 1)]

    @rule(app=app_, which=any_)
    def revoke_a_key(self, app, which):
        key = self._key_named(which)
        self.begin()
        answer = self.stage.ask(app, self.vendor, "DELETE", f"/v1/api-keys/{key.id}")
        # An expired one can be revoked
        assert answer.status_code == (404 if key.is_gone else 204), answer.text
        if not key.is_gone:
            for relative in self.model.family(key):
                relative.revoked = True

    @rule(app=app_, which=any_, grace=st.sampled_from([0, 600]))
    def replace_a_key(self, app, which, grace):
        self.begin()
        key = self._key_named(which)
        path = f"/v1/api-keys/{key.id}/replace"
        answer = self.stage.ask(app, self.vendor, "POST", path, {"grace_seconds": grace})
        expect = 409 if key.replaced_by else 201
        assert answer.status_code == (expect if key.is_live(self.at) else 404), answer.text
        if answer.status_code != 201:
            return
        ends, over = answer.get_json()["expires_at"], self.at + timedelta(seconds=grace)
        assert (ends is None) == (key.expires_at is None), (
            "it lives as long as the old one was made to live"
        )
        successor = replace(key, made_by=self.vendor)
        successor.expires_at = ends and datetime.fromisoformat(ends)
        for each in self.model.keys:
            if each.made_by is key and not each.revoked:
                each.made_by = successor
        key.replaced_by, key.expires_at = successor, min(over, key.expires_at or over)
        self._add(successor, answer)

    # Tenants

    @on_a_tenant
    def suspend_a_tenant(self, app, whose, by):
        tenant = self.begin_on(whose)
        already = tenant.status == SUSPENDED and (by == "owner" or not tenant.suspended_by_bound)
        expect = 409 if already else 200
        if self.do(app, by, tenant, "POST /suspend", expect=expect):
            tenant.status, tenant.suspended_by_bound = SUSPENDED, by == "owner"

    @precondition(lambda self: any(it.status == SUSPENDED for it in self.model.tenants))
    @on_a_tenant
    def resume_a_tenant(self, app, whose, by):
        tenant = self.begin_on(whose)
        may = tenant.status == SUSPENDED and self._may_undo(tenant, by)
        expect = 200 if may else 409
        if self.do(app, by, tenant, "POST /resume", expect=expect):
            tenant.status = ACTIVE

    @rule(app=app_, whose=any_, sure=st.integers(0, 3))
    def end_a_tenant(self, app, whose, sure):
        """Rarely, as little happens to it afterwards."""
        tenant = self.begin_on(whose)
        if not sure and self.do(app, "vendor", tenant, "DELETE ", expect=204):
            self.model.end(tenant, self.mark)

    # Rotations

    @rule(app=app_, whose=any_, by=whose_, emergency=st.booleans())
    def start_a_rotation(self, app, whose, by, emergency):
        tenant = self.begin_on(whose)
        expect = 201 if not tenant.is_open else 200 if emergency else 409
        body = REASON | {"emergency": emergency}
        made = self.do(app, by, tenant, f"POST {_ROTATION}", body, expect=expect)
        if not made:
            return
        if expect == 201:
            proofs.start(tenant, made["next_external_id"], self.at)
        rotation = tenant.rotation
        assert made["external_id"] == rotation.old
        assert made["next_external_id"] == rotation.new
        rotation.by_bound = rotation.by_bound and by == "owner"
        if emergency and not rotation.emergency:
            proofs.withdraw(tenant, self.at)
            self._ask_at_once(app, tenant)

    @rule(app=app_, whose=any_)
    def an_emergency(self, app, whose):
        self.start_a_rotation(app, whose, "vendor", emergency=True)

    @if_any_rotated
    @on_a_tenant
    def complete_a_rotation(self, app, whose, by):
        tenant = self.begin_on(whose)
        ready = tenant.is_open and not proofs.waiting(self.model, tenant)
        expect = 404 if tenant.rotation is None else 200 if ready else 409
        path = f"{_ROTATION}/complete"
        if self.do(app, by, tenant, f"POST {path}", expect=expect):
            proofs.complete(self.model, tenant, self.at)

    @rule(app=app_, whose=any_, emergency=st.booleans())
    def a_rotation_is_carried_through(self, app, whose, emergency):
        """Begun, followed by one customer at least, and completed if that was enough."""
        self.start_a_rotation(app, whose, "vendor", emergency)
        self.a_customer_does_as_the_kit_says(whose % 2)
        self.complete_a_rotation(app, whose, "vendor")

    @if_any_rotated
    @on_a_tenant
    def abandon_a_rotation(self, app, whose, by):
        tenant = self.begin_on(whose)
        rotation, expect = tenant.rotation, 409
        if rotation is None:
            expect = 404
        elif tenant.is_open and (by == "vendor" or rotation.by_bound):
            pairs = {it.pair for it in self.model.live(tenant)}
            expect = 409 if rotation.new in pairs else 204
        if self.do(app, by, tenant, f"DELETE {_ROTATION}", expect=expect):
            proofs.abandon(tenant)

    # Time

    @rule(minutes=st.sampled_from([1.5, 3, 12, 50, *[26 * 60] * 4]))
    def time_passes(self, minutes):
        """And no background worker is there."""
        self.begin()
        self.clock.shift(timedelta(minutes=minutes))
        for tenant in self.model.tenants:
            self._ask_at_once(0, tenant)

    def _ask_at_once(self, app, tenant):
        """Ask for a connection that is verified, before anything proves it."""
        connection = next(self.model.verified(tenant), None)
        if connection is not None:
            self.begin()
            self.ask(app, self.vendor, tenant, connection)
            self._look()
            self.handed_out = []

    @rule(minutes=st.sampled_from([0, 3, 75]))
    def a_background_worker_comes_back(self, minutes):
        self.clock.shift(timedelta(minutes=minutes))
        self.begin()
        for connection_id, why in self.stage.work():
            if not connection_id:
                for tenant in self.model.tenants:
                    if tenant.status != ENDED and tenant.rotates:
                        proofs.settle(self.model, tenant, self.at)
                continue
            connection = next(it for it in self.model.connections if it.id == connection_id)
            pair = connection.pair
            if connection.tenant.status == ACTIVE and not self.is_kept_out(connection):
                proofs.prove(self.model, connection, self.at, self.mark, routine=why in _ROUTINE)
            connection.tried_at = self.at
            self.seen[f"proven {why}"] += 1
            self.seen["switched"] += connection.pair != pair
        for connection in self.model.live():
            if connection.status == VERIFIED and connection.tenant.status == ACTIVE:
                assert connection.tried_at > self.at - _A_TURN, "not proven for longer than a turn"
