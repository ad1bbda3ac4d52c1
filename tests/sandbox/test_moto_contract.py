"""The internals of moto that the sandbox leans on. If one of these fails after an update of moto, the sandbox needs
work.
"""

import inspect
from importlib.metadata import version

import pytest
from moto.cloudformation import models, parsing, responses
from moto.core.responses import BaseResponse
from moto.iam.models import ManagedPolicy, Role, iam_backends
from moto.moto_api._internal import moto_api_backend
from moto.moto_server import werkzeug_app
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import FakeBucket, s3_backends
from moto.sns.models import Topic, sns_backends
from moto.sqs import models as sqs_models
from moto.sqs.models import sqs_backends

ACCOUNT = "121212121212"
POLICY = '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}'


def parameters(function):
    return list(inspect.signature(inspect.unwrap(function)).parameters)


def test_the_version_is_the_one_that_was_read():
    assert version("moto") == "5.2.5"


@pytest.fixture
def iam():
    return iam_backends[ACCOUNT]["aws"]


def test_users_groups_and_keys(iam):
    iam.create_user("us-east-1", "contract")
    key = iam.create_access_key("contract", prefix="AKIA")
    user = iam.users["contract"]
    assert [(owned.access_key_id, owned.status) for owned in user.access_keys] == [(key.access_key_id, "Active")]
    assert (user.policies, user.managed_policies) == ({}, {})
    assert user.id
    assert user.arn == f"arn:aws:iam::{ACCOUNT}:user/contract"
    group = iam.create_group("contract", "/")
    assert (group.policies, group.managed_policies) == ({}, {})
    iam.add_user_to_group("contract", "contract")
    assert iam.get_groups_for_user("contract") == [group]


def test_roles(iam, sandbox):
    role = iam.create_role("contract", "{}", "/a/", "", "", [], "3600")
    assert iam.roles[role.id] is role
    assert role.arn == f"arn:aws:iam::{ACCOUNT}:role/a/contract"
    assert role.id.startswith("AROA")
    assert (role.assume_role_policy_document, role.max_session_duration) == ("{}", "3600")
    assert (role.policies, role.managed_policies, role.account_id) == ({}, {}, ACCOUNT)
    assert not role.permissions_boundary_arn


def test_managed_policies_have_versions(iam):
    policy = iam.create_policy("", "/", POLICY, "contract", {})
    assert [(version_.document, version_.is_default) for version_ in policy.versions] == [(POLICY, True)]
    assert iam.managed_policies[policy.arn] is policy
    assert parameters(ManagedPolicy.attach_to) == ["self", "obj"]


def test_an_account_can_be_named_in_a_header():
    assert "x-moto-account-id" in inspect.getsource(BaseResponse.get_current_account)


def test_buckets_know_their_owner():
    bucket = s3_backends[ACCOUNT]["aws"].create_bucket("contract-bucket", "us-east-1")
    assert s3_backends.bucket_accounts["contract-bucket"] == ("aws", ACCOUNT)
    assert (bucket.account_id, bucket.policy, bucket.public_access_block) == (ACCOUNT, None, None)
    assert bucket.keys.get("nothing") is None
    assert callable(FakeBucket.get_permission)


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (
            responses.CloudFormationResponse,
            ["create_stack", "update_stack", "create_change_set", "_get_stack_from_s3_url", "_validate_status"],
        ),
        (
            models.CloudFormationBackend,
            ["create_stack", "delete_stack", "execute_change_set", "describe_change_set", "create_stack_set"],
        ),
        (
            models.Stack,
            [
                "create_resources",
                "update",
                "outputs",
                "stack_resources",
                "_add_stack_event",
                "_create_output_map",
                "parse_template",
            ],
        ),
        (models.Stack, ["parameter_list", "_parse_template"]),
        (parsing.ResourceMap, ["load", "load_mapping", "transform_mapping", "load_parameters", "load_conditions"]),
        (parsing.ResourceMap, ["validate_outputs", "update", "delete", "_delete_resource"]),
        (parsing, ["get_model_map", "parse_and_create_resource", "parse_and_update_resource", "clean_json"]),
        (parsing, ["get_references_from_template", "CustomModel"]),
        (sqs_models, ["unix_time_millis"]),
        (sqs_models.Queue, ["_set_attributes"]),
        (
            Role,
            ["create_from_cloudformation_json", "update_from_cloudformation_json", "delete_from_cloudformation_json"],
        ),
        (Topic, ["has_cfn_attr", "get_cfn_attribute", "update_from_cloudformation_json"]),
        (moto_api_backend, ["reset"]),
        (werkzeug_app.backends, ["list_of_moto_modules"]),
    ],
)
def test_what_is_patched_or_called_exists(owner, names):
    assert [name for name in names if not hasattr(owner, name)] == []


def test_the_model_map_is_one_dictionary_for_good():
    assert parsing.get_model_map() is parsing.get_model_map()


def test_resources_are_kept_by_name():
    source = inspect.getsource(parsing.ResourceMap)
    assert "_parsed_resources" in source
    assert "_resource_json_map" in source
    assert "_output_json_map" in inspect.getsource(parsing.OutputMap)


def test_a_stack_knows_its_custom_resources_and_a_stack_set_its_instances():
    assert "self.custom_resources: dict" in inspect.getsource(models.Stack)
    stack_set = models.cloudformation_backends[ACCOUNT]["us-east-1"].create_stack_set(
        "contract", "{}", {}, {}, "SERVICE_MANAGED", None, None, None
    )
    assert stack_set.instances.stack_instances == []
    assert stack_set.status == "ACTIVE"


def test_topics_and_queues():
    topic = sns_backends[ACCOUNT]["us-east-1"].create_topic("contract")
    assert sns_backends[ACCOUNT]["us-east-1"].get_topic(topic.arn) is topic
    assert topic.policy
    sqs = sqs_backends[ACCOUNT]["us-east-1"]
    sqs.create_queue("contract", region="us-east-1")
    sqs.set_queue_attributes("contract", {"Policy": ""})
    assert "Statement" in sqs.get_queue("contract")._policy_json


def test_the_server_is_made_of_these():
    assert parameters(DomainDispatcherApplication.__init__) == ["self", "create_app"]
    assert callable(create_backend_app)
    assert issubclass(MotoRequestHandler, object)
