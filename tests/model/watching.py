"""What holds after each step, whatever the step was."""

import json
from datetime import UTC, datetime, timedelta

import time_machine
from hypothesis.stateful import RuleBasedStateMachine, invariant

from app.aws.sts import INERT_POLICY
from app.clock import now
from tests.model.stage import ALL, Issued
from tests.model.state import Model

_BEGINNING = datetime(2026, 6, 1, 12, tzinfo=UTC)
# How much life a session has that is handed out, or half of its life
_GOOD_FOR = timedelta(minutes=25)
NARROW = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}],
}


class Watched(RuleBasedStateMachine):
    """The model beside Deputy. `seen` counts, over all runs, what happened: an assertion about
    nothing proves nothing.
    """

    def __init__(self):
        super().__init__()
        self.travelling = time_machine.travel(_BEGINNING, tick=False)
        self.clock = self.travelling.start()
        self.model = Model()
        self.vendor = self.stage.new_key(None, ALL)
        self.model.keys.append(self.vendor)
        self.first_call = self.mark = self.checked = len(self.stage.calls)
        self.handed_out = []
        self.at = _BEGINNING
        self.seen["runs"] += 1

    def teardown(self):
        self.stage.clear(self.model, self.first_call)
        self.travelling.stop()

    def begin(self):
        """A step begins, a second after the one before."""
        self.clock.shift(timedelta(seconds=1))
        self.mark = len(self.stage.calls)
        for connection in self.model.connections:
            connection.pairs.add(connection.pair)
        self.handed_out = []
        self.at = now()

    @invariant()
    def no_credentials_exist_that_the_model_forbids(self):
        """After what the step did, and after somebody has asked for credentials."""
        self._look()
        if self.model.connections:
            self.begin()
            self.seen["somebody asks"] += 1
            self.somebody_asks()
            self._look()

    def somebody_asks(self):
        raise NotImplementedError

    def _look(self):
        for call in self.stage.calls[self.checked :]:
            if call.role_arn != self.stage.canary:
                self._check_call(call)
        self.checked = len(self.stage.calls)
        assert self.stage.new_issuances() == self.handed_out, (
            "each hand-out is recorded, and nothing else is"
        )
        for tenant in self.model.tenants:
            status, external_ids, connections = self.stage.rows(tenant)
            assert status == {"ended": "deleted"}.get(tenant.status, tenant.status)
            known = {
                it: (state, it in tenant.withdrawn) for it, state in tenant.external_ids.items()
            }
            assert external_ids == known, tenant.name
            latest = {it.role.arn: it for it in self.model.connections if it.tenant is tenant}
            assert connections == {
                it.id: (it.status, it.pair, it.awaiting) for it in latest.values()
            }, tenant.name

    def _check_call(self, call):
        """Each External ID that was sent is of a tenant with a connection to this role, or was
        never issued.
        """
        to_role = [it for it in self.model.connections if it.role.arn == call.role_arn]
        owners = [it for it in self.model.tenants if call.external_id in it.external_ids]
        assert {it.tenant.id for it in to_role} >= {it.id for it in owners}, (
            f"another tenant's External ID: {call}"
        )
        if self._is_probe(call):
            return
        assert owners, f"a session without a tenant's External ID: {call}"
        key = next(
            it
            for it in self.model.keys
            if it.id.replace("-", "") == str(call.session_name).split("-")[1]
        )
        assert key.tenant in {None, owners[0]}, f"a session for another tenant's key: {call}"
        pairs = {pair for it in to_role for pair in (it.pair, *it.pairs) if it.tenant is owners[0]}
        assert call.external_id in pairs, f"an External ID that was never the connection's: {call}"

    def _is_probe(self, call):
        """Whether it was made for a proof: a session named after no key, that can do nothing but
        read its role.
        """
        named = str(call.session_name).split("-")[1] in {
            it.id.replace("-", "") for it in self.model.keys
        }
        harmless = call.policy is not None and (
            call.policy == INERT_POLICY or '"iam:GetRole"' in call.policy
        )
        assert named is not harmless, f"neither a probe nor a key's session: {call}"
        return harmless

    def sessions_since(self, mark, connection, key):
        """The calls to AWS for sessions of this role, named after this key."""
        wanted = f"deputy-{key.id.replace('-', '')}-"
        return [
            call
            for call in self.stage.calls[mark:]
            if call.role_arn == connection.role.arn and str(call.session_name).startswith(wanted)
        ]

    def check_session(self, body, connection, key, seconds, *, narrow):
        """The credentials in an answer are this role's, opened as the model allows, and long
        enough to live.
        """
        session = self.stage.session(body["AccessKeyId"])
        assert session.token == body["SessionToken"]
        assert session.secret_access_key == body["SecretAccessKey"]
        name = session.caller.arn.rpartition("/")[2]
        names = [call.session_name for call in self.stage.calls]
        place = names.index(name)
        call = self.stage.calls[place]
        assert place >= connection.void_before, "a session from before the connection changed"
        assert session.caller.unique_id.split(":")[0] == connection.unique_id, (
            "another role than the proven one"
        )
        assert name.split("-")[1] == key.id.replace("-", ""), "a session in another key's name"
        policy = json.loads(call.policy) if call.policy else None
        assert call.role_arn == connection.role.arn
        assert call.external_id == connection.pair
        assert call.outcome == "allowed"
        assert call.duration == seconds
        assert policy == (NARROW if narrow else None)
        assert session.expires_at - now() >= min(
            _GOOD_FOR, timedelta(seconds=seconds) / 2
        ) - timedelta(seconds=1)
        issued = Issued(connection.tenant.id, connection.id, key.id, session.access_key_id, name)
        self.handed_out.append(issued)
        self.seen["handed out from " + ("AWS" if place >= self.mark else "memory")] += 1

    def tenant_named(self, place):
        return self.model.tenants[place % len(self.model.tenants)]

    def keys_of(self, tenant):
        return [it for it in self.model.keys if it.tenant in {None, tenant}]
