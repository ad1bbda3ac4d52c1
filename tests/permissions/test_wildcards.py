"""What counts as everything: actions of every service or all of one, and resources of every
kind.
"""

from app.permissions.wildcards import all_actions, all_resources

ALL_ACTIONS = "* ** ?* *:* *:?* s3:* s3:?* s3:*? *:Get* ?3:List* *Get* s3*"
SOME_ACTIONS = "s3:Get* s3:*Object ec2:Describe?* s3:GetObject"
ALL_RESOURCES = """
* ?* *? a* arn* arn:* arn:aws:* arn:aws*:* arn:*:*:*:*:*:* arn:aws:?* *:s3:*
arn:${AWS::Partition}:*:*:*:* arn:aws-cn:*:*:*:* arn:aws:s3:::* arn:aws:s3* arn:aws:s3:::?*
arn:aws:s3:::*/* arn:aws:sqs:*:*:* arn:aws:ec2:* arn:aws:ec2:*:*:*/* arn:aws:rds:*:*:*:*
arn:aws:iam::????????????:*
arn:aws:iam::${aws:PrincipalAccount}:* arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:*
arn:aws:sqs:${aws:RequestedRegion}:${aws:ResourceAccount}:* arn:aws:s3:::???*
arn:aws:sqs:?????????:????????????:?*
"""
SOME_RESOURCES = """
arn:aws:s3:::a arn:aws:s3:::a* arn:aws:s3:::a/* arn:aws:s3:::*-reports arn:aws:s3:::*/public/*
arn:${AWS::Partition}:s3:::${Bucket} arn:${AWS::Partition}:s3:::${Bucket}/* arn:aws:s3:::${*}
arn:aws:iam::*:role/* arn:aws:sqs:eu-west-1:*:* arn:aws:sqs:*:111122223333:*
arn:aws:s3:::${aws:PrincipalTag/team} arn:aws:s3:::${aws:PrincipalTag/team}/*
"""


def test_more_than_one_service_and_all_of_one_are_all_actions():
    assert all_actions(["s3:GetObject", *ALL_ACTIONS.split()]) == ALL_ACTIONS.split()
    assert all_actions(SOME_ACTIONS.split()) == []


def test_every_resource_and_all_of_a_service_are_all_resources():
    assert all_resources(["arn:aws:s3:::a", *ALL_RESOURCES.split()]) == ALL_RESOURCES.split()
    assert all_resources(SOME_RESOURCES.split()) == []
