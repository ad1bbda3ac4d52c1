"""What counts as everything: actions of every service or all of one, and resources of every kind."""

import pytest

from app.permissions.everything import all_actions, all_resources


@pytest.mark.parametrize(
    "action",
    [
        "*",
        "**",
        "?*",
        "*:*",
        "*:?*",
        "s3:*",
        "s3:**",
        "s3:?*",
        "s3:*?",
        "iam:???*",
        "*:Get*",
        "?3:List*",
        "*Get*",
        "s3*",
    ],
)
def test_more_than_one_service_and_all_of_one_are_all_actions(action):
    assert all_actions(["s3:GetObject", action]) == [action]


@pytest.mark.parametrize("action", ["s3:Get*", "s3:*Object", "ec2:Describe?*", "s3:GetObject", "sts:*Identity"])
def test_a_part_of_a_service_is_not(action):
    assert all_actions([action]) == []


@pytest.mark.parametrize(
    "resource",
    [
        *("*", "**", "?*", "*?", "*:*", "a*", "arn*", "arn:*", "arn:aws:*", "arn:aws*:*", "arn:*:*", "arn:*:*:*:*:*"),
        *("arn:aws:?*", "*:s3:*", "arn:${AWS::Partition}:*", "arn:${AWS::Partition}:*:*:*:*", "arn:aws-cn:*:*:*:*"),
        *("arn:aws:s3:::*", "arn:aws:s3*", "arn:aws:s3:::?*", "arn:aws:s3:::*/*", "arn:aws:sqs:*:*:*", "arn:aws:ec2:*"),
        *("arn:aws:ec2:*:*:*/*", "arn:aws:rds:*:*:*:*", "arn:aws:iam::*:*", "arn:aws:iam::????????????:*"),
        *("arn:aws:iam::${aws:PrincipalAccount}:*", "arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:*"),
        *(
            "arn:aws:sqs:${aws:RequestedRegion}:${aws:ResourceAccount}:*",
            "arn:aws:s3:::???*",
            "arn:aws:sqs:?????????:????????????:?*",
        ),
    ],
)
def test_every_resource_and_all_of_a_service_are_all_resources(resource):
    assert all_resources(["arn:aws:s3:::a", resource]) == [resource]


@pytest.mark.parametrize(
    "resource",
    [
        *("arn:aws:s3:::a", "arn:aws:s3:::a*", "arn:aws:s3:::a/*", "arn:aws:s3:::*-reports", "arn:aws:s3:::*/public/*"),
        *("arn:${AWS::Partition}:s3:::${Bucket}", "arn:${AWS::Partition}:s3:::${Bucket}/*", "arn:aws:s3:::${*}"),
        *("arn:aws:iam::*:role/*", "arn:aws:sqs:eu-west-1:*:*", "arn:aws:sqs:*:111122223333:*"),
        *("arn:aws:s3:::${aws:PrincipalTag/team}", "arn:aws:s3:::${aws:PrincipalTag/team}/*"),
    ],
)
def test_what_is_named_is_not(resource):
    assert all_resources([resource]) == []
