output "role_arn" {
  description = "The role's ARN. Give it to the vendor."
  value       = module.deputy_role.role_arn
}
