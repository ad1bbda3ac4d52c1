# The role of cloudformation/customer-role.yaml, for those who use Terraform.

locals {
  # arn, partition, iam, (no region), account, name
  broker = split(":", var.broker_principal_arn)

  trust_policy = {
    Version = "2012-10-17"
    Statement = [
      {
        Effect = "Allow"
        # The vendor's AWS account. By itself this would admit every principal in it: the conditions narrow it.
        Principal = { AWS = "arn:${local.broker[1]}:iam::${local.broker[4]}:root" }
        Action    = "sts:AssumeRole"
        Condition = merge({
          # Without this, another customer of the vendor could name your role as theirs and be let in.
          StringEquals = { "sts:ExternalId" = compact([var.external_id, var.next_external_id]) }
          # Only the broker in that account. As the principal it would stop working when it is deleted and
          # recreated.
          ArnEquals = { "aws:PrincipalArn" = var.broker_principal_arn }
          # No session begins from access_until on. The policy access_until below ends those that live.
        }, { for until in compact([var.access_until]) : "DateLessThan" => { "aws:CurrentTime" = until } })
      },
    ]
  }
}

resource "aws_iam_role" "this" {
  name                 = var.role_name
  description          = "Lets ${var.vendor_name} reach this account for the customer with External ID ${var.external_id}"
  max_session_duration = var.max_session_duration
  permissions_boundary = one(compact([var.permissions_boundary_arn]))
  assume_role_policy   = jsonencode(local.trust_policy)

  # The tags say which vendor and which customer the role belongs to, and which permissions it was made with.
  tags = {
    "deputy:vendor"         = var.vendor_name
    "deputy:external-id"    = var.external_id
    "deputy:permission-set" = var.permission_set
  }
}

resource "aws_iam_role_policy" "permissions" {
  name   = "permissions"
  role   = aws_iam_role.this.id
  policy = var.permissions_policy
}

# Policies that AWS keeps.
resource "aws_iam_role_policy_attachment" "managed" {
  for_each = var.managed_policy_arns

  role       = aws_iam_role.this.name
  policy_arn = each.value
}

# Lets the role read itself: who may use it, and what it may do. So the vendor notices a trust policy that lets others
# in, and can tell you which permissions are missing. You may take this out; then the vendor only knows how the role
# answers its own calls.
resource "aws_iam_role_policy" "read_itself" {
  name = "read-itself"
  role = aws_iam_role.this.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect = "Allow"
        Action = [
          "iam:GetRole",
          "iam:GetRolePolicy",
          "iam:ListRolePolicies",
          "iam:ListAttachedRolePolicies",
          "iam:SimulatePrincipalPolicy",
        ]
        Resource = aws_iam_role.this.arn
      },
    ]
  })
}

resource "aws_iam_role_policy" "access_until" {
  count = length(compact([var.access_until]))

  name = "access-until"
  role = aws_iam_role.this.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect    = "Deny"
        Action    = "*"
        Resource  = "*"
        Condition = { DateGreaterThanEquals = { "aws:CurrentTime" = var.access_until } }
      },
    ]
  })
}

# The policy that IAM's own "Revoke active sessions" makes, under its name.
resource "aws_iam_role_policy" "revoke_older_sessions" {
  count = length(compact([var.revoke_sessions_before]))

  name = "AWSRevokeOlderSessions"
  role = aws_iam_role.this.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect    = "Deny"
        Action    = "*"
        Resource  = "*"
        Condition = { DateLessThan = { "aws:TokenIssueTime" = var.revoke_sessions_before } }
      },
    ]
  })
}
