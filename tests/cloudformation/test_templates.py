"""The templates as they lie in the repository: valid, and meaning what customers are told that they
mean.

Publishing replaces the example values by plain text substitution, so the tests also pin down those
literals.
"""

import json
import re
import textwrap
from pathlib import Path

import pytest
import yaml
from cfnlint.api import lint_all
from cfnlint.decode import decode

from tests.cloudformation.test_terraform import ACCEPTED, read_itself

CLOUDFORMATION = Path(__file__).parents[2] / "cloudformation"
CUSTOMER_ROLE = CLOUDFORMATION / "customer-role.yaml"
CUSTOMER_ORG = CLOUDFORMATION / "customer-org.yaml"

BROKER_ROOT = "arn:aws:iam::111122223333:root"
BROKER = "arn:aws:iam::111122223333:role/DeputyBroker"
EXTERNAL_ID = "dpy-" + "0f" * 32
NOTHING = {"Ref": "AWS::NoValue"}
NAMED_AS_THE_QUEUE = {
    "Fn::Sub": "arn:${AWS::Partition}:sns:*:${AWS::AccountId}:${RegistrationQueue.QueueName}"
}
TEMPLATES = {"Fn::Sub": "${TemplateBucket.Arn}/templates/*"}
LIMITS = ["AccessUntil", "RevokeSessionsBefore", "PermissionsBoundaryArn"]
PARAMETERS = [
    "ExternalId",
    "NextExternalId",
    "RoleName",
    "RegistrationTopicArn",
    "RegistrationToken",
    *LIMITS,
]


def load(path):
    template, faults = decode(str(path))
    assert faults == []
    return template


@pytest.fixture(scope="module")
def customer_template():
    return load(CUSTOMER_ROLE)


@pytest.fixture(scope="module")
def role_properties(customer_template):
    return customer_template["Resources"]["Role"]["Properties"]


@pytest.fixture(scope="module")
def broker_resources():
    return load(CLOUDFORMATION / "broker.yaml")["Resources"]


def policy_of(broker, name):
    policies = broker["Broker"]["Properties"]["Policies"]
    return next(policy["PolicyDocument"] for policy in policies if policy["PolicyName"] == name)


@pytest.mark.parametrize("path", [CUSTOMER_ROLE, CUSTOMER_ORG], ids=lambda path: path.stem)
def test_cfn_lint_has_no_errors_and_no_warnings(path):
    """In every region, as customers launch them; `make check` lints the others. Informational
    remarks are matters of taste and are left out.
    """
    faults = [
        str(one) for one in lint_all(path.read_text()) if one.rule.severity != "informational"
    ]
    assert faults == []


# What customers launch.


def test_no_literal_but_the_brokers_names_an_account():
    rest = CUSTOMER_ROLE.read_text()
    for literal in (BROKER_ROOT, BROKER, "arn:aws:sns:[a-z0-9-]+:111122223333:"):
        assert rest.count(literal) == 1
        rest = rest.replace(literal, "")
    assert re.findall(r"[0-9]{12}", rest) == []
    assert "DeputyBroker" not in rest


def test_the_broker_is_no_parameter_and_a_link_can_fill_in_each(customer_template):
    parameters = customer_template["Parameters"]
    assert list(parameters) == PARAMETERS
    assert {one["Type"] for one in parameters.values()} == {"String"}
    assert "NoEcho" not in str(parameters)
    defaults = {name: parameter.get("Default") for name, parameter in parameters.items()}
    assert defaults == dict.fromkeys(PARAMETERS, "") | {"ExternalId": None, "RoleName": None}


@pytest.mark.parametrize("path", [CUSTOMER_ROLE, CUSTOMER_ORG], ids=lambda path: path.stem)
def test_the_console_shows_every_parameter_in_a_group_with_a_label(path):
    template = load(path)
    interface = template["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]
    assert grouped == list(interface["ParameterLabels"]) == list(template["Parameters"])
    assert all(parameter["Description"] for parameter in template["Parameters"].values())


def test_the_registration_waits_for_nobody_and_is_sent_again_when_any_parameter_changes(
    customer_template,
):
    registration = customer_template["Resources"]["Registration"]
    properties = registration["Properties"]
    assert registration["Condition"] == "HasRegistrationTopic"
    assert registration["DeletionPolicy"] == "RetainExceptOnCreate"
    assert registration["UpdateReplacePolicy"] == "Retain"
    assert properties["ServiceToken"] == {"Ref": "RegistrationTopicArn"}
    assert properties["ServiceTimeout"] == "1800"
    sent = {name for name, value in properties.items() if value == {"Ref": name}}
    assert sent == {*PARAMETERS} - {"RoleName", "RegistrationTopicArn"}
    assert properties["RoleArn"] == {"Fn::GetAtt": ["Role", "Arn"]}
    assert {"TemplateVersion", "PermissionSet"} <= {*properties}


def test_parameters_accept_only_what_they_should(customer_template):
    topic = "arn:aws:sns:us-east-1:111122223333:registrations"
    topics = {
        "": True,
        topic: True,
        topic.replace("111122223333", "444455556666"): False,
        topic.replace("aws:sns:us-east", "aws-us-gov:sns:us-gov-west"): False,
    }
    for name, values in {**ACCEPTED, "RegistrationTopicArn": topics}.items():
        parameter = customer_template["Parameters"][name]
        assert parameter["ConstraintDescription"]
        for value, accepted in values.items():
            matches = bool(re.fullmatch(parameter["AllowedPattern"], value))
            assert matches is accepted, (name, value)


def test_the_trust_policy_is_exactly_this(role_properties):
    both = [{"Ref": "ExternalId"}, {"Ref": "NextExternalId"}]
    assert role_properties["AssumeRolePolicyDocument"] == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": BROKER_ROOT},
                "Action": "sts:AssumeRole",
                "Condition": {
                    "StringEquals": {
                        "sts:ExternalId": {
                            "Fn::If": ["HasNextExternalId", both, {"Ref": "ExternalId"}]
                        }
                    },
                    "ArnEquals": {"aws:PrincipalArn": BROKER},
                    "DateLessThan": where(
                        "HasAccessUntil", {"aws:CurrentTime": {"Ref": "AccessUntil"}}
                    ),
                },
            }
        ],
    }


def where(condition, value):
    return {"Fn::If": [condition, value, NOTHING]}


def denial(condition, name, test):
    statement = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": test}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    return where(condition, {"PolicyName": name, "PolicyDocument": document})


def test_the_limits_deny_and_are_there_when_they_are_given(role_properties):
    assert role_properties["Policies"][2:] == [
        denial(
            "HasAccessUntil",
            "access-until",
            {"DateGreaterThanEquals": {"aws:CurrentTime": {"Ref": LIMITS[0]}}},
        ),
        denial(
            "HasRevokeSessionsBefore",
            "AWSRevokeOlderSessions",
            {"DateLessThan": {"aws:TokenIssueTime": {"Ref": LIMITS[1]}}},
        ),
    ]


def test_the_role_names_the_vendor_and_the_tenant(customer_template, role_properties):
    assert "Example Vendor" in customer_template["Description"]
    assert role_properties["Description"]["Fn::Sub"].startswith("Lets Example Vendor ")
    assert "${ExternalId}" in role_properties["Description"]["Fn::Sub"]
    assert role_properties["Tags"] == [
        {"Key": "deputy:vendor", "Value": "Example Vendor"},
        {"Key": "deputy:external-id", "Value": {"Ref": "ExternalId"}},
        {"Key": "deputy:permission-set", "Value": "example-set@1"},
    ]
    assert role_properties["MaxSessionDuration"] == 3600
    assert role_properties["RoleName"] == {"Ref": "RoleName"}


def test_the_descriptions_fit_also_with_a_long_vendor_name(customer_template, role_properties):
    """CloudFormation's limit is 1,024 bytes for a template, IAM's 1,000 characters for a role;
    names have at most 64.
    """
    longest = "V" * 64
    assert len(customer_template["Description"].replace("Example Vendor", longest)) <= 1024
    filled = role_properties["Description"]["Fn::Sub"].replace("${ExternalId}", EXTERNAL_ID)
    assert len(filled.replace("Example Vendor", longest)) <= 1000


def test_the_customers_template_makes_a_role_and_a_registration_and_nothing_else(
    customer_template, role_properties
):
    assert list(customer_template["Resources"]) == ["Role", "Registration"]
    policies = [policy["PolicyName"] for policy in role_properties["Policies"][:2]]
    assert policies == ["permissions", "read-itself"]
    assert "ManagedPolicyArns" not in role_properties


def test_the_role_may_read_itself_and_no_other(role_properties):
    itself = {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/${RoleName}"}
    assert role_properties["Policies"][1]["PolicyDocument"] == read_itself(itself)


def test_the_permissions_between_the_marks_are_those_of_inventory(role_properties):
    path = CLOUDFORMATION / "permission-sets" / "inventory.json"
    inventory = json.loads(path.read_text())["statements"]
    for statement in inventory:
        statement.pop("why", None)
    marks = r"^ *# permissions: (?:begin|end)\n"
    _, block, _ = re.split(marks, CUSTOMER_ROLE.read_text(), flags=re.MULTILINE)
    assert yaml.safe_load(textwrap.dedent(block)) == inventory
    assert role_properties["Policies"][0]["PolicyDocument"] == {
        "Version": "2012-10-17",
        "Statement": inventory,
    }


# What they launch for a whole organisation.


@pytest.fixture(scope="module")
def organization():
    return load(CUSTOMER_ORG)


def test_the_organizations_template_takes_the_units_and_what_a_single_account_takes(
    customer_template, organization
):
    """Neither the broker nor a template is a parameter: a link could carry somebody else's."""
    parameters = organization["Parameters"]
    assert list(parameters) == ["OrganizationalUnitIds", "CallAs", *customer_template["Parameters"]]
    for name, parameter in customer_template["Parameters"].items():
        assert parameters[name] == parameter
    assert parameters["OrganizationalUnitIds"]["Type"] == "CommaDelimitedList"
    assert "Default" not in parameters["OrganizationalUnitIds"]
    assert parameters["CallAs"]["AllowedValues"] == ["SELF", "DELEGATED_ADMIN"]
    assert parameters["CallAs"]["Default"] == "SELF"
    assert all("NoEcho" not in parameter for parameter in parameters.values())


@pytest.mark.parametrize(
    ("unit", "accepted"),
    [
        ("r-ab12", True),
        ("ou-ab12-1a2b3c4d", True),
        ("ou-AB12-1a2b3c4d", False),
        ("123456789012", False),
        ("r-ab12\n", False),
    ],
)
def test_a_unit_is_a_unit_or_the_root(organization, unit, accepted):
    pattern = organization["Parameters"]["OrganizationalUnitIds"]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, unit)) is accepted


def test_the_stack_set_follows_the_organisation_and_one_account_stops_no_other(organization):
    properties = organization["Resources"]["Accounts"]["Properties"]
    assert properties["AutoDeployment"] == {"Enabled": True, "RetainStacksOnAccountRemoval": False}
    tolerated = {"FailureTolerancePercentage": 100, "MaxConcurrentPercentage": 100}
    assert tolerated.items() <= properties["OperationPreferences"].items()
    assert properties["Parameters"] == [
        {"ParameterKey": name, "ParameterValue": {"Ref": name}} for name in PARAMETERS
    ]
    assert properties["CallAs"] == {"Ref": "CallAs"}
    assert properties["PermissionModel"] == "SERVICE_MANAGED"


# The vendor's side.


def test_the_broker_may_assume_roles_with_the_prefix_or_an_imported_name_and_no_others(
    broker_resources,
):
    """By one statement, which the canary tests."""
    allowed = policy_of(broker_resources, "assume-customers-roles")["Statement"][0]
    with_prefix = (
        "arn:${AWS::Partition}:iam::*:role/${RolePrefix}*"
        "|arn:${AWS::Partition}:iam::*:role/*/${RolePrefix}*"
    )
    named = "|arn:*:iam::*:role/${Names}|arn:*:iam::*:role/*/${NamesInPaths}"
    names = {
        "Names": {"Fn::Join": ["|arn:*:iam::*:role/", {"Ref": "ImportedRoleNames"}]},
        "NamesInPaths": {"Fn::Join": ["|arn:*:iam::*:role/*/", {"Ref": "ImportedRoleNames"}]},
    }
    with_names = {"Fn::Sub": [with_prefix + named, names]}
    resources = {"Fn::If": ["HasImportedRoles", with_names, {"Fn::Sub": with_prefix}]}
    assert allowed == {
        "Sid": "AssumeCustomersRoles",
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Resource": {"Fn::Split": ["|", resources]},
    }


def test_the_broker_may_assume_no_role_of_the_vendors_own(broker_resources):
    _, *denied = policy_of(broker_resources, "assume-customers-roles")["Statement"]
    assert {(s["Effect"], s["Action"]) for s in denied} == {("Deny", "sts:AssumeRole")}
    assert [(s["Resource"], s.get("Condition")) for s in denied] == [
        ("*", {"StringEquals": {"aws:ResourceAccount": {"Ref": "AWS::AccountId"}}}),
        ({"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/*"}, None),
        ("*", {"StringEquals": {"aws:ResourceAccount": {"Ref": "VendorAccountIds"}}}),
    ]


@pytest.mark.parametrize(
    ("service", "actions", "demands_the_account"),
    [
        ("ecs-tasks.amazonaws.com", "sts:AssumeRole", True),
        ("pods.eks.amazonaws.com", ["sts:AssumeRole", "sts:TagSession"], True),
        ("ec2.amazonaws.com", "sts:AssumeRole", False),
        ("lambda.amazonaws.com", "sts:AssumeRole", False),
    ],
)
def test_the_service_gets_the_broker_for_this_account_alone_where_it_says_for_which(
    service, actions, demands_the_account
):
    template = load(CLOUDFORMATION / "broker.yaml")
    holds = condition_of(template["Conditions"], {"BrokerService": service})
    statement = trust_of(template, "Broker")
    assert statement["Effect"] == "Allow"
    assert statement["Principal"] == {"Service": {"Ref": "BrokerService"}}
    chosen = {}
    for name in ("Action", "Condition"):
        condition, yes, no = statement[name]["Fn::If"]
        chosen[name] = yes if holds(condition) else no
    assert chosen["Action"] == actions
    if not demands_the_account:
        assert chosen["Condition"] == NOTHING
        return
    condition, of_ecs, otherwise = chosen["Condition"].pop("ArnLike")["Fn::If"]
    account = {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    assert chosen["Condition"] == {"StringEquals": account}
    assert holds(condition) is service.startswith("ecs")
    arn = "arn:${AWS::Partition}:ecs:*:${AWS::AccountId}:*"
    assert of_ecs == {"aws:SourceArn": {"Fn::Sub": arn}}
    assert otherwise == NOTHING


def condition_of(conditions, values):
    """Whether a template's condition holds, by name, for these values of its parameters."""

    def holds(what):
        if isinstance(what, str):
            return holds(conditions[what])
        ((kind, of),) = what.items()
        if kind == "Condition":
            return holds(of)
        if kind == "Fn::Or":
            return any(map(holds, of))
        assert kind == "Fn::Equals"
        parameter, wanted = of
        return values[parameter["Ref"]] == wanted

    return holds


def test_a_published_template_is_neither_overwritten_nor_removed(broker_resources):
    """`Null: true` holds for requests without the header. The sandbox's S3 shows what that
    refuses.
    """
    policy = broker_resources["TemplateBucketPolicy"]["Properties"]["PolicyDocument"]
    _, *denied, _ = policy["Statement"]
    assert {(s["Effect"], s["Principal"]) for s in denied} == {("Deny", "*")}
    put = {"Null": {"s3:if-none-match": "true"}}
    removes = ["DeleteObject", "DeleteObjectVersion", "ReplicateDelete", "ReplicateObject"]
    bucket = {"Fn::GetAtt": ["TemplateBucket", "Arn"]}
    assert [(s["Action"], s["Resource"], s.get("Condition")) for s in denied] == [
        ("s3:PutObject", TEMPLATES, put),
        ([f"s3:{action}" for action in removes], TEMPLATES, None),
        ("s3:PutLifecycleConfiguration", bucket, None),
    ]


def test_the_broker_demands_no_external_id(broker_resources):
    """Else the vendor's side would refuse the call without one, and every role would look safe."""
    assert "externalid" not in json.dumps(broker_resources).lower()


def test_the_broker_can_do_nothing_else(broker_resources):
    role = broker_resources["Broker"]["Properties"]
    policies = [policy["PolicyName"] for policy in role["Policies"]]

    assert policies == ["assume-customers-roles", "read-registrations"]
    assert "ManagedPolicyArns" not in role
    assert policy_of(broker_resources, "read-registrations")["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"],
            "Resource": {"Fn::GetAtt": ["RegistrationQueue", "Arn"]},
        },
        {
            "Effect": "Allow",
            "Action": "sqs:GetQueueAttributes",
            "Resource": [
                {"Fn::GetAtt": [queue, "Arn"]}
                for queue in ("RegistrationQueue", "RegistrationDeadLetters")
            ],
        },
        {
            "Effect": "Allow",
            "Action": ["sns:GetTopicAttributes", "sns:ListSubscriptionsByTopic"],
            "Resource": [{"Ref": "RegistrationTopic"}, NAMED_AS_THE_QUEUE],
        },
        {"Effect": "Allow", "Action": "sns:GetSubscriptionAttributes", "Resource": "*"},
    ]


# A further region.


@pytest.fixture(scope="module")
def region_template():
    return load(CLOUDFORMATION / "broker-region.yaml")


def test_a_further_region_has_a_topic_that_is_as_the_first_one_and_nothing_else(
    region_template, broker_resources
):
    resources = region_template["Resources"]
    assert [*resources] == ["RegistrationTopic", "RegistrationTopicPolicy"]
    assert resources["RegistrationTopicPolicy"] == broker_resources["RegistrationTopicPolicy"]
    queue = {"Ref": "RegistrationQueueArn"}
    assert resources["RegistrationTopic"]["Properties"] == {
        "TopicName": {"Fn::Select": [5, {"Fn::Split": [":", queue]}]},
        "Subscription": [{"Protocol": "sqs", "Endpoint": queue}],
    }


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("", True), ("eu-central-1", True), ("us-gov-west-1", True), ("*", False), ("EU", False)],
)
def test_further_regions_are_names_of_regions(name, accepted):
    parameter = load(CLOUDFORMATION / "broker.yaml")["Parameters"]["RegistrationRegions"]
    assert parameter["Type"] == "CommaDelimitedList"
    assert bool(re.fullmatch(parameter["AllowedPattern"], name)) is accepted


@pytest.mark.parametrize(
    ("queue", "accepted"),
    [
        ("arn:aws:sqs:us-east-1:111122223333:deputy-Registrations_1", True),
        ("arn:aws:sqs:ap-southeast-2:111122223333:q", True),
        ("arn:aws:sqs:ap-southeast-3:111122223333:q", False),
        ("arn:aws:sqs:eu-south-1:111122223333:q", False),
        ("arn:aws-cn:sqs:cn-north-1:111122223333:q", True),
        ("arn:aws-us-gov:sqs:us-gov-west-1:111122223333:q", True),
        ("arn:aws:sns:us-east-1:111122223333:q", False),
    ],
)
def test_the_queue_is_in_a_region_to_which_every_other_one_can_send(
    region_template, queue, accepted
):
    """SNS does not send from one region that has to be enabled to another."""
    [parameter] = region_template["Parameters"].values()
    assert bool(re.fullmatch(parameter["AllowedPattern"], queue)) is accepted


# The canary and the stranger.


@pytest.fixture(scope="module")
def canary():
    return load(CLOUDFORMATION / "canary.yaml")


def trust_of(template, name):
    [statement] = template["Resources"][name]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    return statement


BROKERS_ROOT = {
    "Fn::Sub": [
        "arn:${AWS::Partition}:iam::${Account}:root",
        {"Account": {"Fn::Select": [4, {"Fn::Split": [":", {"Ref": "BrokerPrincipalArn"}]}]}},
    ]
}


def test_the_canary_trusts_broker_and_stranger_as_a_customers_role_does_but_for_the_external_id(
    canary, role_properties
):
    [customers] = role_properties["AssumeRolePolicyDocument"]["Statement"]
    assert trust_of(canary, "Canary") == {
        "Effect": "Allow",
        "Principal": {
            "AWS": [BROKERS_ROOT, {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}]
        },
        "Action": customers["Action"],
        "Condition": {
            "ArnEquals": {
                "aws:PrincipalArn": [
                    {"Ref": "BrokerPrincipalArn"},
                    {"Fn::GetAtt": ["Stranger", "Arn"]},
                ]
            }
        },
    }
    assert {*customers["Condition"]} == {"StringEquals", "ArnEquals", "DateLessThan"}


def test_the_stranger_trusts_the_broker_alone(canary):
    trust = trust_of(canary, "Stranger")
    assert trust["Action"] == "sts:AssumeRole"
    assert trust["Principal"] == {"AWS": BROKERS_ROOT}
    broker = {"aws:PrincipalArn": {"Ref": "BrokerPrincipalArn"}}
    assert trust["Condition"] == {"ArnEquals": broker}


def test_the_stranger_may_what_the_broker_may_and_the_canary_nothing(canary, broker_resources):
    [policy] = canary["Resources"]["Stranger"]["Properties"]["Policies"]
    allowed, *denied = policy["PolicyDocument"]["Statement"]
    brokers, *brokers_denied = policy_of(broker_resources, "assume-customers-roles")["Statement"]
    assert allowed == {name: brokers[name] for name in ("Effect", "Action", "Resource")}
    account = BROKERS_ROOT["Fn::Sub"][1]["Account"]
    assert [(one["Effect"], one["Resource"], one.get("Condition")) for one in denied] == [
        ("Deny", "*", {"StringEquals": {"aws:ResourceAccount": account}}),
        (
            "Deny",
            {"Fn::Sub": ["arn:${AWS::Partition}:iam::${Account}:role/*", {"Account": account}]},
            None,
        ),
        ("Deny", "*", {"StringEquals": {"aws:ResourceAccount": {"Ref": "VendorAccountIds"}}}),
    ]
    assert len(denied) == len(brokers_denied)
    assert {"Policies", "ManagedPolicyArns"}.isdisjoint(canary["Resources"]["Canary"]["Properties"])


def test_the_broker_reaches_both_by_its_statement_for_customers(canary, broker_resources):
    names = [canary["Resources"][name]["Properties"]["RoleName"] for name in ("Canary", "Stranger")]
    assert names == [{"Fn::Sub": "${RolePrefix}canary"}, {"Fn::Sub": "${RolePrefix}stranger"}]
    assert not re.search("canary|stranger", json.dumps(broker_resources).lower())


def test_the_broker_may_be_a_role_or_a_user_with_a_path(canary):
    pattern = re.compile(canary["Parameters"]["BrokerPrincipalArn"]["AllowedPattern"])
    for arn in (BROKER, BROKER.replace("role/", "user/a/b/"), BROKER.replace("aws", "aws-us-gov")):
        assert pattern.fullmatch(arn)
    for arn in (
        BROKER_ROOT,
        f"{BROKER}*",
        BROKER.replace("role/", "role/*/"),
        "arn:aws:sts::111122223333:assumed-role/a/b",
    ):
        assert not pattern.fullmatch(arn)


def test_publishing_templates_is_not_the_brokers(broker_resources):
    publisher = broker_resources["TemplatePublisher"]["Properties"]

    assert {"Roles", "Users", "Groups"}.isdisjoint(publisher)
    assert publisher["PolicyDocument"]["Statement"] == [
        {"Effect": "Allow", "Action": "s3:PutObject", "Resource": TEMPLATES},
        {
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": {"Fn::GetAtt": ["TemplateBucket", "Arn"]},
            "Condition": {"StringLike": {"s3:prefix": "templates/sets/*"}},
        },
    ]


def statements(resources):
    for one in resources.values():
        yield from one["Properties"].get("PolicyDocument", {}).get("Statement", ())


def test_bucket_topic_and_queues_refuse_what_comes_without_tls(broker_resources):
    kinds = ("AWS::S3::Bucket", "AWS::SNS::Topic", "AWS::SQS::Queue")
    open_to_requests = {name for name, one in broker_resources.items() if one["Type"] in kinds}
    refusing, names = {}, re.compile(r"'(?:Ref|Fn::GetAtt|Fn::Sub)': \[?'(?:\$\{)?(\w+)")
    for statement in statements(broker_resources):
        if statement.get("Sid") == "OnlyOverTls":
            assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
            assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            [name] = {*names.findall(str(statement["Resource"]))}
            refusing[name] = statement["Action"]
    actions = {"TemplateBucket": "s3:*", "RegistrationTopic": "sns:Publish"}
    assert refusing == {name: actions.get(name, "sqs:*") for name in open_to_requests}


def test_only_published_templates_and_the_topic_are_open_to_anyone(broker_resources):
    to_anyone = [
        s
        for s in statements(broker_resources)
        if s.get("Principal") == "*" and s["Effect"] == "Allow"
    ]
    assert [(s["Action"], s["Resource"]) for s in to_anyone] == [
        ("s3:GetObject", TEMPLATES),
        ("sns:Publish", {"Ref": "RegistrationTopic"}),
    ]


def test_the_template_bucket_outlives_the_stack_and_is_public_by_policy_alone(broker_resources):
    bucket = broker_resources["TemplateBucket"]
    properties = bucket["Properties"]

    for kept in (bucket, broker_resources["TemplateBucketPolicy"]):
        assert (kept["DeletionPolicy"], kept["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert properties["OwnershipControls"] == {
        "Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]
    }
    assert properties["PublicAccessBlockConfiguration"] == {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": False,
        "RestrictPublicBuckets": False,
    }


def test_only_the_topic_fills_the_queue_and_bad_messages_leave_it(broker_resources):
    policy = broker_resources["RegistrationQueuePolicy"]["Properties"]["PolicyDocument"]
    statement, further, _ = policy["Statement"]
    queue = broker_resources["RegistrationQueue"]["Properties"]

    assert statement["Principal"] == {"Service": "sns.amazonaws.com"}
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Ref": "RegistrationTopic"}}}
    condition, statement, otherwise = further["Fn::If"]
    assert (condition, otherwise) == ("HasRegistrationRegions", NOTHING)
    # tests/onboarding/test_regions.py has what the policy means
    assert statement["Condition"]["ArnEquals"] == {"aws:SourceArn": NAMED_AS_THE_QUEUE}
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["RegistrationDeadLetters", "Arn"]},
        "maxReceiveCount": 5,
    }
    assert broker_resources["RegistrationTopic"]["Properties"]["Subscription"] == [
        {"Protocol": "sqs", "Endpoint": {"Fn::GetAtt": ["RegistrationQueue", "Arn"]}}
    ]
