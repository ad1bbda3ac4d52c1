variable "external_id" {
  type        = string
  description = "Your External ID, exactly as the vendor shows it to you."
}

variable "role_name" {
  type        = string
  description = "The role's name, which the vendor looks for."
}

variable "broker_principal_arn" {
  type        = string
  description = "The vendor's principal, the only one that may use the role."
}
