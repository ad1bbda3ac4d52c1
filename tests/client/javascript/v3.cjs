// Prints who a worker on the AWS SDK for JavaScript v3 is, or which error it got.
// v3.cjs chain|fromProcess|fromHttp|fromContainerMetadata
const { STSClient, GetCallerIdentityCommand } = require("@aws-sdk/client-sts");
const providers = require("@aws-sdk/credential-providers");

const way = process.argv[2];
const given = way === "chain" ? {} : { credentials: providers[way]() };
new STSClient({ region: "us-east-1", ...given }).send(new GetCallerIdentityCommand({})).then(
  (who) => console.log(who.Account),
  (error) => console.log(`${error.Code ?? error.name}: ${error.Message ?? error.message}`),
);
