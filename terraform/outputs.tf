output "role_arn" {
  description = "The role's ARN, which the vendor asks for."
  value       = aws_iam_role.this.arn
}

output "external_id" {
  description = "The External ID without which the role refuses everybody."
  value       = var.external_id
}
