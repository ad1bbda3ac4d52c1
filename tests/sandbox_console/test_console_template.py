"""What the console reads of a template, and from where it agrees to read one."""

from pathlib import Path

import pytest

from sandbox.console.template import TemplateRefused, object_named_by, read

SANDBOX = "http://localhost:4566"
CUSTOMER_ROLE = Path(__file__).parents[2] / "cloudformation" / "customer-role.yaml"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:4566/bucket/templates/a.yaml",
        "https://bucket.s3.amazonaws.com/templates/a.yaml",
        "https://bucket.s3.eu-west-1.amazonaws.com/templates/a.yaml",
        "https://s3.amazonaws.com/bucket/templates/a.yaml",
    ],
)
def test_s3_urls_of_the_sandbox_and_of_aws_name_an_object(url):
    assert object_named_by(url, aws_url=SANDBOX) == ("bucket", "templates/a.yaml")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "https://example.com/bucket/a.yaml",
        "https://bucket.s3.amazonaws.com.evil.example/a.yaml",
        "https://evils3.amazonaws.com/bucket/a.yaml",
        "https://user@s3.amazonaws.com/bucket/a.yaml",
        "https://s3.amazonaws.com:8443/bucket/a.yaml",
        "http://localhost:4566@evil.example/bucket/a.yaml",
        "http://[::1/bucket/a.yaml",
    ],
)
def test_every_other_url_is_refused_as_aws_refuses_it(url):
    with pytest.raises(TemplateRefused, match=r"^TemplateURL must be a supported URL\.$"):
        object_named_by(url, aws_url=SANDBOX)


@pytest.mark.parametrize("path", ["", "/", "/bucket", "/bucket/"])
def test_a_url_without_an_object_is_refused(path):
    with pytest.raises(TemplateRefused, match="must reference a valid S3 object"):
        object_named_by(SANDBOX + path, aws_url=SANDBOX)


def test_the_console_reads_the_template_that_customers_launch():
    template = read(CUSTOMER_ROLE.read_text())

    assert template.description.startswith("Gives Example Vendor access")
    assert template.capability == "CAPABILITY_NAMED_IAM"
    assert [(p.name, p.label) for p in template.parameters] == [
        ("ExternalId", "External ID"),
        ("NextExternalId", "Next External ID"),
        ("RoleName", "Role name"),
        ("RegistrationTopicArn", "Registration topic"),
        ("RegistrationToken", "Registration token"),
        ("AccessUntil", "Access until"),
        ("RevokeSessionsBefore", "Revoke sessions before"),
        ("PermissionsBoundaryArn", "Permissions boundary"),
    ]
    assert template.groups[0].label == "Who gains access"
    assert template.parameters[0].allowed_pattern == "dpy-[0-9a-f]{64}"


def test_parameters_without_a_group_come_last_and_by_name():
    template = read(
        """
        Metadata: {AWS::CloudFormation::Interface: {ParameterGroups: [{Parameters: [C, Unknown]}]}}
        Parameters: {B: {Type: String}, C: {Type: String}, A: {Type: String}}
        Resources: {T: {Type: AWS::SNS::Topic}}
        """
    )
    assert [(group.label, [p.name for p in group.parameters]) for group in template.groups] == [
        ("", ["C"]),
        ("Other parameters", ["A", "B"]),
    ]


def test_a_parameter_is_text_however_the_yaml_spells_it():
    [number, flag, secret] = read(
        """
        Parameters:
          A: {Type: Number, Default: 3, AllowedValues: [1, 3]}
          B: {Type: String, Default: true}
          C: {Type: String, NoEcho: true}
        Resources: {T: {Type: AWS::SNS::Topic}}
        """
    ).parameters

    assert (number.default, number.allowed_values) == ("3", ["1", "3"])
    assert flag.default == "true"
    assert (secret.default, secret.no_echo) == ("", True)


@pytest.mark.parametrize(
    ("resource", "capability"),
    [
        ("{Type: AWS::SNS::Topic}", ""),
        ("{Type: AWS::SNS::Topic, Properties: {RoleName: r}}", ""),
        ("{Type: AWS::IAM::Role, Properties: {Path: /}}", "CAPABILITY_IAM"),
        ("{Type: AWS::IAM::Role, Properties: {RoleName: !Ref Name}}", "CAPABILITY_NAMED_IAM"),
        (
            "{Type: AWS::IAM::ManagedPolicy, Properties: {ManagedPolicyName: p}}",
            "CAPABILITY_NAMED_IAM",
        ),
    ],
)
def test_the_console_knows_which_capability_a_template_needs(resource, capability):
    assert read(f"Resources: {{R: {resource}}}").capability == capability
