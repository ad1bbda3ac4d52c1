output "role_arn" {
  description = "The role's ARN. Give it to the vendor."
  value       = aws_iam_role.this.arn
}

output "external_id" {
  description = "The External ID that the role requires."
  value       = var.external_id
}
