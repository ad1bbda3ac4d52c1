"""A vendor whose permission sets change: a folder of its own, and a deployment for each of its
versions.
"""

import json
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

from bs4 import BeautifulSoup

from app.factory import create_app
from app.identity.scopes import ALL_SCOPES
from app.ids import new_id
from tests.conftest import OPERATOR, make_config, publish_templates
from tests.support.cast import Api, World, root_client
from tests.support.sets import GOOD
from tests.support.waiting import until

[_STATEMENT] = GOOD["statements"]
READS = _STATEMENT | {
    "Sid": "Read",
    "why": "Shows your buckets.",
    "Action": ["s3:ListAllMyBuckets"],
    "Resource": "*",
}
READS.pop("Condition")
MORE = READS | {"Sid": "Tags", "why": "Shows their tags.", "Action": ["s3:GetBucketTagging"]}
WRITES = READS | {
    "Sid": "Write",
    "why": "Keeps old versions.",
    "Action": ["s3:PutBucketVersioning"],
}


def registered(world, app, customer):
    """Take what the customer's stacks send, until they are done."""

    def done():
        app.extensions["deputy"].registrations.receive(wait_seconds=0)
        with closing(root_client(world.aws, "cloudformation", customer.account)) as cloudformation:
            stacks = cloudformation.describe_stacks()["Stacks"]
        return not any(stack["StackStatus"].endswith("_IN_PROGRESS") for stack in stacks)

    until(done, "the stacks are done")


def page_of(world, tenant):
    """The onboarding page of a new link."""
    link = world.admin("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)
    return BeautifulSoup(
        world.admin.app.test_client().get(urlsplit(link["url"]).path).text, "html.parser"
    )


class Vendor:
    """Its sets have names that no other test has, as tests share a database."""

    def __init__(self, aws, database_url, stack, folder):
        self._aws, self._url, self._stack, self._folder = aws, database_url, stack, folder
        self.reads = f"r{new_id().hex[-12:]}"
        self.writes = f"w{new_id().hex[-12:]}"

    def write(self, name, version, *statements, **more):
        changes = {
            "version": version,
            "statements": list(statements),
            "title": f"Set {version}",
        } | more
        (self._folder / f"{name}.json").write_text(json.dumps(GOOD | changes))

    def withdraw(self, name):
        """Remove the set's file. What was published stays recorded."""
        (self._folder / f"{name}.json").unlink()

    @contextmanager
    def release(self, *, publish=True, default=None):
        """The service with the folder as it is now; the default set is the one that reads,
        unless another is named.
        """
        app = create_app(
            make_config(
                self._url,
                permission_sets=self._folder,
                default_permission_set=default or self.reads,
                registration_topic_arns=(self._stack.registration_topic_arn,),
                registration_queue_url=self._stack.registration_queue_url,
                console_url=f"{self._aws.url}/console",
            )
        )
        services = app.extensions["deputy"]
        try:
            if publish:
                publish_templates(app)
            _, key = services.api_keys.create_key(
                OPERATOR, name="x", scopes=ALL_SCOPES, tenant_id=None, expires_at=None
            )
            yield World(self._aws, Api(app, key)), app
        finally:
            services.db.engine.dispose()
