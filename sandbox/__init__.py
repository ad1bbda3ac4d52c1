"""A local AWS for development, demos and tests: moto, and in front of it what moto lacks. Never for production.

    python -m sandbox --port 4566                   # with the vendor's stack and two customers
    with Sandbox() as aws:                          # in a test (from sandbox.server import Sandbox)
        aws.client("iam", "444455556666")           # the root of any account: its 12 digits are the access key

Enforced, as AWS does:
- AssumeRole: the role's trust policy, the caller's own policies (users, sessions, groups, permissions boundaries),
  session policies, MaxSessionDuration, the hour of role chaining, and AWS's checks of every parameter. An absent role
  and a refusing one answer alike. Sessions carry the role's own unique id. Every attempt is in `Sandbox.sts_calls`.
- Credentials: unknown, inactive and expired keys are refused by every service, and so is a wrong session token.
- S3: buckets belong to their account, bucket policies count, sessions may do what their policies allow, and without a
  signature one reads only what is public.
- Other services: the actions that a session's policies do not name are refused; resources and conditions on keys that
  only those services know are not looked at.
- CloudFormation: capabilities, parameters' constraints, NoEcho, conditions, updates of roles, rollback, and who may read
  a TemplateURL. What it has no support for fails loudly, and is never left out in silence.
- Custom resources behind an SNS topic: the stack stays in progress until somebody has PUT an answer to the ResponseURL,
  or ServiceTimeout is over. The URL is AWS's in path style on the sandbox's own address, and takes one answer:
    http://localhost:4566/cloudformation-custom-resource-response-useast1/<StackId>%7C<LogicalId>%7C<RequestId>?X-Amz-…
  They are made after everything else in their stack, so that no other resource can use what they return.
- StackSets, service-managed, as a resource of a stack (AWS::CloudFormation::StackSet): a stack in every account of the
  chosen organisational units, also in those that join later, and never in the account that launches it.

Not enforced: signatures (any secret will do), policies of IAM users outside STS, policies of topics and queues, service
control policies, quotas. IAM is consistent at once unless the fault "spreading" is set. Custom resources behind Lambda,
self-managed StackSets, STS's other calls, session tags and AssumeRole's PolicyArns are not supported, and say so.

Trouble on demand (see sandbox.faults), in Python by `Sandbox.faults.add("throttle", role_arn=…, times=1)`, over HTTP:
    POST /_sandbox/faults {"kind": "spreading", "seconds": 5}     DELETE /_sandbox/faults     GET /_sandbox/calls
    POST /_sandbox/organization {"ous": {"ou-abcd-11111111": ["100000000001"]}}     (replaces the organisation)
    POST /_sandbox/reset     GET /_sandbox/health     GET /_sandbox/broker-credentials     and the console: /console/
"""
