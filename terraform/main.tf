# The role of cloudformation/customer-role.yaml, for those who use Terraform.

locals {
  # arn, partition, iam, (no region), account, name
  broker = split(":", var.broker_principal_arn)

  trust_policy = {
    Version = "2012-10-17"
    Statement = [
      {
        Effect = "Allow"
        # The vendor's AWS account. By itself this would admit everything in it: the conditions narrow it down.
        Principal = { AWS = "arn:${local.broker[1]}:iam::${local.broker[4]}:root" }
        # The last two only let the broker's session carry tags and the name of its source into your CloudTrail.
        Action = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
        Condition = {
          # Without this, another customer of the vendor could name your role as theirs and be let in.
          StringEquals = { "sts:ExternalId" = var.external_id }
          # The broker, and nobody else in that account. As the principal it would lose its meaning when it is deleted
          # and made again.
          ArnEquals = { "aws:PrincipalArn" = var.broker_principal_arn }
        }
      },
    ]
  }
}

resource "aws_iam_role" "this" {
  name                 = var.role_name
  description          = "Lets ${var.vendor_name} reach this account for the customer with External ID ${var.external_id}"
  max_session_duration = var.max_session_duration
  assume_role_policy   = jsonencode(local.trust_policy)

  # So that whoever finds the role in a year knows whose it is.
  tags = {
    "deputy:vendor"      = var.vendor_name
    "deputy:external-id" = var.external_id
  }
}

resource "aws_iam_role_policy" "permissions" {
  name   = "permissions"
  role   = aws_iam_role.this.id
  policy = var.permissions_policy
}
