"""Tables of risky actions, in lower case.

AWS's access levels do not identify these actions. app/permissions/action_checks.py adds the actions
with the access level "Permissions management".
"""

from app.permissions.managed_policies import names

# Each of these actions lets its caller act as another role: it assumes the role, or runs code where
# the role's credentials are.
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
    """)
