"""AWS's managed policies that a permission set may not name, or not as reading."""

import re


def names(text: str) -> frozenset[str]:
    """Return the names in a text, which are separated by white space."""
    return frozenset(text.split())


# IAM ignores case in these names. The commands also check ADMINISTRATOR_POLICIES. A set that was
# published with one of those must not keep a process from starting.
ADMINISTRATORS = {"administratoraccess", "poweruseraccess", "iamfullaccess"}

READING_POLICIES = re.compile(
    r".*(ReadOnlyAccess|ReadOnly|ReadAccess|ViewOnlyAccess|SecurityAudit)"
)

# AWS's policies that allow privilege escalation in IAM, PassRole, AssumeRole or a NotAction on
# every resource without a condition. In lower case.
ADMINISTRATOR_POLICIES = names("""
    administratoraccess-amplify aidevopsagentactionspolicy amazondynamodbfullaccesswithdatapipeline
    amazonelasticmapreducefullaccess amazonelasticmapreducerole awselasticbeanstalkservice
    sagemakerstudioadminiamdefaultexecutionpolicy sagemakerstudioadminiampermissiveexecutionpolicy
    sagemakerstudiouseriamdefaultexecutionpolicy sagemakerstudiouseriampermissiveexecutionpolicy
    """)

# AWS's policies with a name that ends like those that only read. They allow one of
# SECRETS_AND_CREDENTIALS on every resource.
POLICIES_WITH_SECRETS = names("""
    readonlyaccess awsapplicationmigrationreadonlyaccess awscodeartifactreadonlyaccess
    awssecretsmanagerclientreadonlyaccess awsstoragegatewayreadonlyaccess amazoncognitoreadonly
    amazonconnectreadonlyaccess amazonec2containerregistryreadonly
    amazonelasticcontainerregistrypublicreadonly
    amazonssmreadonlyaccess
    """)
