// Prints who a worker on the AWS SDK for JavaScript v2 is, or which error it got.
const AWS = require("aws-sdk");

new AWS.STS({ endpoint: process.env.AWS_ENDPOINT_URL, region: "us-east-1" }).getCallerIdentity((error, who) =>
  console.log(error ? `${error.code}: ${error.message}` : who.Account),
);
