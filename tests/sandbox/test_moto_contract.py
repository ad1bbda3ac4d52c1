"""The internals of moto that the sandbox patches. Where one has gone, the sandbox needs work
before moto is updated.
"""

from importlib.metadata import version

import pytest
from moto.cloudformation import models, parsing, responses
from moto.iam.models import Role
from moto.moto_api._internal import moto_api_backend
from moto.moto_server import werkzeug_app
from moto.sns.models import Topic
from moto.sqs import models as sqs_models

ACCOUNT = "121212121212"
POLICY = '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}'


def test_the_version_is_the_one_that_was_read():
    assert version("moto") == "5.2.5"


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (
            responses.CloudFormationResponse,
            [
                "create_stack",
                "update_stack",
                "create_change_set",
                "_get_stack_from_s3_url",
                "_validate_status",
            ],
        ),
        (
            models.CloudFormationBackend,
            [
                "create_stack",
                "delete_stack",
                "execute_change_set",
                "describe_change_set",
                "create_stack_set",
            ],
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
        (
            parsing.ResourceMap,
            ["load", "load_mapping", "transform_mapping", "load_parameters", "load_conditions"],
        ),
        (parsing.ResourceMap, ["validate_outputs", "update", "delete", "_delete_resource"]),
        (
            parsing,
            [
                "get_model_map",
                "parse_and_create_resource",
                "parse_and_update_resource",
                "clean_json",
            ],
        ),
        (parsing, ["get_references_from_template", "CustomModel"]),
        (sqs_models, ["unix_time_millis"]),
        (sqs_models.Queue, ["_set_attributes"]),
        (
            Role,
            [
                "create_from_cloudformation_json",
                "update_from_cloudformation_json",
                "delete_from_cloudformation_json",
            ],
        ),
        (Topic, ["has_cfn_attr", "get_cfn_attribute", "update_from_cloudformation_json"]),
        (moto_api_backend, ["reset"]),
        (werkzeug_app.backends, ["list_of_moto_modules"]),
    ],
)
def test_what_is_patched_or_called_exists(owner, names):
    assert [name for name in names if not hasattr(owner, name)] == []
