"""A local AWS for development, demos and tests: moto, and code in front that adds what moto lacks.

Not for production.

    python -m sandbox --port 4566                   # with the vendor's stack and two customers

    with Sandbox() as aws:                          # in a test (from sandbox.server import Sandbox)
        aws.client("iam", "444455556666")           # the root of any account: its 12 digits are the
                                                    # access key

Enforced, as at AWS:

- AssumeRole: the role's trust policy, the caller's own policies (users, sessions, groups,
  permissions boundaries), session policies, MaxSessionDuration, the one-hour limit of role
  chaining, and AWS's checks of every parameter. An absent role and a refusing one get the same
  answer. Sessions have the role's unique id. `Sandbox.sts_calls` records every attempt.
- Credentials: every service refuses unknown, inactive and expired keys, and wrong session tokens.
- S3: buckets belong to their account, bucket policies are evaluated, sessions may do what their
  policies allow, and an unsigned request reads only what is public.
- Other services: actions that a session's policies do not allow are refused. Resources, and
  conditions on keys of those services, are not evaluated.
- CloudFormation: capabilities, parameters' constraints, NoEcho, conditions, updates of roles,
  rollback, and the permission to read a TemplateURL. An unsupported feature raises an error.
- Custom resources behind an SNS topic: the stack stays in progress until an answer is PUT to the
  ResponseURL, or ServiceTimeout ends. The URL has AWS's path style on the sandbox's own address,
  and takes one answer:
    http://localhost:4566/cloudformation-custom-resource-response-useast1/<StackId>%7C<LogicalId>%7C<RequestId>?X-Amz-…
  Custom resources are created last in their stack, so no other resource can use their data.
- StackSets, service-managed, as a resource of a stack (AWS::CloudFormation::StackSet): a stack in
  every account of the chosen organisational units, also in accounts that join later. The account
  that launches the StackSet gets none.

Not enforced: signatures (any secret is accepted), policies of IAM users outside STS, policies of
topics and queues, service control policies, quotas. IAM is consistent at once unless the fault
"spreading" is set. Custom resources behind Lambda, self-managed StackSets, STS's other calls,
session tags and AssumeRole's PolicyArns are not supported, and raise an error that says so.

Faults (see sandbox.faults), in Python with `Sandbox.faults.add("throttle", role_arn=…, times=1)`,
over HTTP:

    POST /_sandbox/faults {"kind": "spreading", "seconds": 5}
    DELETE /_sandbox/faults
    GET /_sandbox/calls
    POST /_sandbox/organization {"ous": {"ou-abcd-11111111": ["100000000001"]}}
        (replaces the organisation)
    POST /_sandbox/reset
    GET /_sandbox/health
    GET /_sandbox/broker-credentials

The console is at /console/.
"""
