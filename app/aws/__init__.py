"""The only folder that speaks to AWS. Nothing outside it imports botocore, and nothing leaves it but plain values."""
