"""Limits on AWS's managed policies in permission sets: their number, and their names."""

import re

MANAGED_MAX = 10  # per permission set, AWS's default quota for a role


def names(text: str) -> frozenset[str]:
    """Return the names in a text. White space separates them."""
    return frozenset(text.split())


# In lower case, because IAM ignores case in these names. Only the commands check
# ADMINISTRATOR_POLICIES. A permission set that was published with one of those must not keep a
# process from starting.
ADMINISTRATORS = {"administratoraccess", "poweruseraccess", "iamfullaccess"}

READING_POLICIES = re.compile(
    r".*(ReadOnlyAccess|ReadOnly|ReadAccess|ViewOnlyAccess|SecurityAudit)"
)

# AWS's policies, in lower case, that allow one of these on every resource without a condition:
# privilege escalation in IAM, PassRole, AssumeRole, or a NotAction.
ADMINISTRATOR_POLICIES = names("""
    administratoraccess-amplify aidevopsagentactionspolicy amazondynamodbfullaccesswithdatapipeline
    amazonelasticmapreducefullaccess amazonelasticmapreducerole awselasticbeanstalkservice
    sagemakerstudioadminiamdefaultexecutionpolicy sagemakerstudioadminiampermissiveexecutionpolicy
    sagemakerstudiouseriamdefaultexecutionpolicy sagemakerstudiouseriampermissiveexecutionpolicy
    """)

# AWS's policies that are named like policies that only read, but allow one of
# SECRETS_AND_CREDENTIALS on every resource.
POLICIES_WITH_SECRETS = names("""
    readonlyaccess awsapplicationmigrationreadonlyaccess awscodeartifactreadonlyaccess
    awssecretsmanagerclientreadonlyaccess awsstoragegatewayreadonlyaccess amazoncognitoreadonly
    amazonconnectreadonlyaccess amazonec2containerregistryreadonly
    amazonelasticcontainerregistrypublicreadonly
    amazonssmreadonlyaccess
    """)
