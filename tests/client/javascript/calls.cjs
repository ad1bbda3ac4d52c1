// calls.cjs v2|fromProcess|fromHttp: calls AWS again and again with one client, until a call fails.
const way = process.argv[2];

function client() {
  if (way === "v2") {
    const AWS = require("aws-sdk");
    const sts = new AWS.STS({ endpoint: process.env.AWS_ENDPOINT_URL, region: "us-east-1" });
    return () => sts.getCallerIdentity().promise();
  }
  const { STSClient, GetCallerIdentityCommand } = require("@aws-sdk/client-sts");
  const credentials = require("@aws-sdk/credential-providers")[way]();
  const sts = new STSClient({ region: "us-east-1", credentials });
  return () => sts.send(new GetCallerIdentityCommand({}));
}

(async () => {
  for (const call = client(); ; ) await call();
})();
