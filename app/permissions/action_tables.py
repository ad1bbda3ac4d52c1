"""Tables of risky actions, in lower case.

AWS's list of access levels does not single them out. app/permissions/action_data.py adds what that
list calls "Permissions management".
"""

from app.permissions.managed_policies import names

# Each lets its caller act as another role. It assumes the role, or runs code where the role's
# credentials are.
ACT_AS_ANOTHER_ROLE = names("""
    sts:assumerole sts:assumeroot iam:acceptdelegationrequest
    rolesanywhere:createtrustanchor rolesanywhere:updatetrustanchor
    organizations:attachpolicy organizations:detachpolicy organizations:updatepolicy
    sso:createaccountassignment identitystore:creategroupmembership
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
# Each decides what an IAM principal may do, or who uses it, up to AdministratorAccess. The
# principal's name and tags limit none of that. The condition keys on the right do.
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

# Each returns secrets or creates credentials, whatever its access level is. Settings that may
# contain a secret, such as Lambda's environment variables, are left out: half of all reading
# actions return some.
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
    """)
