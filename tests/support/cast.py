"""Who plays in the tests: programs with API keys, and customers with AWS accounts."""

import copy
import itertools
import json
import random
import threading
from contextlib import closing
from functools import cache
from urllib.parse import parse_qsl, urlsplit

import botocore.session
from botocore.config import Config as BotoConfig
from botocore.credentials import Credentials, ReadOnlyCredentials

from app.identity.principals import OperatorPrincipal
from app.identity.scopes import ALL_SCOPES
from tests.support.plain_requests import install

_accounts = itertools.count(random.SystemRandom().randrange(200_000_000_000, 800_000_000_000))
_names = itertools.count(1)
UNSET = object()
OPERATOR = OperatorPrincipal("tests")
SESSION_NAME = r"deputy-([0-9a-f]{32})-[0-9a-f]{24}"  # of issuances and of proofs
_acting = threading.local()  # `account`: this thread's next request is made as its root


class _Root(Credentials):
    def get_frozen_credentials(self):
        return ReadOnlyCredentials(_acting.account, "sandbox", None)

    def load_credentials(self):
        """Be the provider of a session's credentials, too."""
        return self


@cache
def _shared_client(url, service, region):
    """Making one takes longer than what most tests ask of it."""
    session = botocore.session.get_session()
    session.register_component("credential_provider", _Root("", "sandbox"))
    settings = BotoConfig(retries={"total_max_attempts": 1}, max_pool_connections=50)
    return session.create_client(service, region, endpoint_url=url, config=settings)


class _RootClient:
    """A client as boto3 makes it; its requests are made as one account's root."""

    def __init__(self, client, account):
        self._client, self._account = client, account

    def __getattr__(self, name):
        _acting.account = self._account
        return getattr(self._client, name)

    def close(self):
        """Others use its connections."""


def root_client(aws, service, account, region="us-east-1"):
    """AWS as the root of an account."""
    return _RootClient(_shared_client(aws.url, service, region), account)


class Api:
    """The REST API with one key. `api("POST", path, body, expect=201)` returns the parsed
    answer.
    """

    def __init__(self, app, key):
        self.app = app
        self.key = key
        install(app)
        self._client = app.test_client()

    def raw(self, method, path, body=UNSET, **options):
        """The response itself. `headers` are added; a `body` is sent as JSON."""
        headers = dict(options.pop("headers", {}))
        if self.key is not None:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        if body is not UNSET:
            options["json"] = body
        return self._client.open(path, method=method, headers=headers, **options)

    def __call__(self, method, path, body=UNSET, *, expect=200, **options):
        response = self.raw(method, path, body, **options)
        assert response.status_code == expect, (
            f"{method} {path}: {response.status_code} {response.text}"
        )
        body = response.get_json() if response.data else None
        code = body["code"] if expect >= 400 else None
        assert response.headers.get("X-Deputy-Code") == code, f"{method} {path}: {response.headers}"
        return body

    def refused(self, method, path, body=UNSET, *, expect, code, **options):
        """The problem, which must have this status and code."""
        found = self(method, path, body, expect=expect, **options)
        assert found["code"] == code, found
        return found

    def with_key(self, key):
        return Api(self.app, key)


class Customer:
    """An AWS account of a customer's, whose administrator we can be."""

    def __init__(self, aws, account=None):
        self.account = account or f"{next(_accounts):012d}"
        self._aws = aws

    def role(self, name, trust, **options):
        """Create a role; returns its ARN."""
        return self.make_role(name, trust, **options)["Arn"]

    def make_role(self, name, trust, **options):
        """Create a role; returns what AWS says of it."""
        with closing(root_client(self._aws, "iam", self.account)) as iam:
            return iam.create_role(
                RoleName=name, AssumeRolePolicyDocument=json.dumps(trust), **options
            )["Role"]

    def reading_itself(self, name, trust, **options):
        """Create a role with the kit's policy read-itself; returns its ARN."""
        role_arn = self.role(name, trust, **options)
        reads = [
            "iam:GetRole",
            "iam:GetRolePolicy",
            "iam:ListRolePolicies",
            "iam:ListAttachedRolePolicies",
            "iam:SimulatePrincipalPolicy",
        ]
        statement = {"Effect": "Allow", "Action": reads, "Resource": role_arn}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        with closing(root_client(self._aws, "iam", self.account)) as iam:
            iam.put_role_policy(RoleName=name, PolicyName="read-itself", PolicyDocument=policy)
        return role_arn

    def forbid_reading_itself(self, name):
        with closing(root_client(self._aws, "iam", self.account)) as iam:
            iam.delete_role_policy(RoleName=name, PolicyName="read-itself")

    def retrust(self, name, trust):
        with closing(root_client(self._aws, "iam", self.account)) as iam:
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust))

    def remove_role(self, name):
        with closing(root_client(self._aws, "iam", self.account)) as iam:
            for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
                iam.delete_role_policy(RoleName=name, PolicyName=policy)
            iam.delete_role(RoleName=name)

    def launch(self, link, **changes):
        """Create the stack that a launch link opens, with some parameters changed; returns the
        role's ARN.
        """
        name = self.create_stack(link, **changes)
        with closing(root_client(self._aws, "cloudformation", self.account)) as cloudformation:
            stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        return next(o["OutputValue"] for o in stack["Outputs"] if o["OutputKey"] == "RoleArn")

    def create_stack(self, link, **changes):
        """As `launch`, but a stack that registers its role is not done yet; returns its name.

        It is in the link's region, as in the console.
        """
        [(_, region)] = parse_qsl(urlsplit(link).query)
        wanted = dict(parse_qsl(urlsplit(link).fragment.partition("?")[2]))
        options = {
            "StackName": wanted.pop("stackName"),
            "TemplateURL": wanted.pop("templateURL"),
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
        }
        parameters = {name.removeprefix("param_"): value for name, value in wanted.items()}
        options["Parameters"] = [
            {"ParameterKey": name, "ParameterValue": value}
            for name, value in (parameters | changes).items()
        ]
        with closing(
            root_client(self._aws, "cloudformation", self.account, region)
        ) as cloudformation:
            cloudformation.create_stack(**options)
        return options["StackName"]


class World:
    """Makes what a test needs, through the API and through AWS."""

    def __init__(self, aws, admin):
        self.aws = aws
        self.admin = admin

    @classmethod
    def of(cls, aws, app):
        """With a key of its own for everything."""
        _, key = app.extensions["deputy"].api_keys.create_key(
            OPERATOR, name="tests' admin", scopes=ALL_SCOPES
        )
        return cls(aws, Api(app, key))

    @property
    def services(self):
        return self.admin.app.extensions["deputy"]

    def tenant(self, name="Acme", **more):
        body = {"name": f"{name} {next(_names)}", **more}
        return self.admin("POST", "/v1/tenants", body, expect=201)

    def kit(self, tenant):
        return self.admin("GET", f"/v1/tenants/{tenant['id']}/onboarding")

    def role(self, tenant, customer=None, **options):
        """A role as the kit asks for it, in the customer's account; returns its ARN."""
        kit = self.kit(tenant)
        return (customer or Customer(self.aws)).role(
            kit["role_name"], kit["trust_policy"], **options
        )

    def connect(self, tenant, role_arn, *, status="verified"):
        made = self.admin(
            "POST", f"/v1/tenants/{tenant['id']}/connections", {"role_arn": role_arn}, expect=201
        )
        assert made["status"] == status, made
        return made

    def connection(self, tenant=None, customer=None):
        """A verified connection; of a new tenant unless one is given. For tests that are not
        about its proof.
        """
        from tests.support import proven  # noqa: PLC0415  it needs rows.py, which needs this module

        return proven.connection(self, tenant or self.tenant(), customer or Customer(self.aws))

    def proven(self, tenant=None):
        """As `connection`, by a proof of its own: for tests that look at it, and for tenants in
        a rotation.
        """
        tenant = tenant or self.tenant()
        return self.connect(tenant, self.role(tenant))

    def awaiting_approval(self, tenant):
        """A connection that may write, and that a key of the tenant's made."""
        body = {"role_arn": self.role(tenant), "permission_set": "bucket-sync"}
        own = self.key("connections:write", tenant=tenant)
        return own("POST", f"/v1/tenants/{tenant['id']}/connections", body, expect=201)

    def read(self, connection):
        return self.admin("GET", path_of(connection))

    def verify(self, connection):
        return self.admin("POST", path_of(connection, "/verify"))

    def suspend(self, connection, reason="a test"):
        return self.admin("POST", path_of(connection, "/suspend"), {"reason": reason})

    def key(self, *scopes, tenant=None, **more):
        """A program with a key of its own."""
        wanted = {
            "name": "a program",
            "scopes": list(scopes),
            "tenant_id": tenant and tenant["id"],
            **more,
        }
        return self.admin.with_key(self.admin("POST", "/v1/api-keys", wanted, expect=201)["key"])

    def worker(self, tenant):
        return self.key("credentials:issue", tenant=tenant)

    def audit(self, **wanted):
        """Audit events, newest first."""
        query = "&".join(f"{name}={value}" for name, value in wanted.items())
        return self.admin("GET", f"/v1/audit-events?limit=200&{query}")["items"]

    def calls_for(self, role_arn):
        """Every AssumeRole that AWS saw for this role."""
        return [call for call in self.aws.sts_calls if call.role_arn == role_arn]


def path_of(connection, what=""):
    return f"/v1/tenants/{connection['tenant_id']}/connections/{connection['id']}{what}"


def without_external_id(trust):
    """The trust policy as people get it wrong most often."""
    open_trust = copy.deepcopy(trust)
    del open_trust["Statement"][0]["Condition"]["StringEquals"]
    return open_trust
