variable "external_id" {
  type        = string
  description = "Your External ID, exactly as the vendor shows it to you."

  validation {
    condition     = can(regex("^dpy-[0-9a-f]{64}$", var.external_id))
    error_message = "Must be \"dpy-\" and 64 hexadecimal digits in lower case, exactly as the vendor shows it."
  }
}

variable "next_external_id" {
  type        = string
  description = "Only while the vendor replaces your External ID: the one that the role accepts as well."
  default     = ""

  validation {
    condition     = can(regex("^(dpy-[0-9a-f]{64})?$", var.next_external_id))
    error_message = "Must be empty, or \"dpy-\" and 64 hexadecimal digits in lower case, exactly as the vendor shows it."
  }
}

variable "role_name" {
  type        = string
  description = "The role's name. Keep the name from the vendor, because the vendor looks for it."

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@-]{1,64}$", var.role_name))
    error_message = "Must be 1 to 64 letters, digits or any of _+=,.@-"
  }
}

variable "broker_principal_arn" {
  type        = string
  description = "The only principal that may use the role: broker_principal_arn of the onboarding kit."

  validation {
    condition     = can(regex("^arn:aws(-[a-z0-9]+)*:iam::[0-9]{12}:(role|user)/([!-.0-~]+/)*[A-Za-z0-9_+=,.@-]{1,64}$", var.broker_principal_arn))
    error_message = "Must be the ARN of one IAM role or IAM user, without any pattern."
  }

  # ArnEquals reads * and ? as patterns, and a path may hold them.
  validation {
    condition     = can(regex("^[^*?$]+$", var.broker_principal_arn))
    error_message = "Must not hold *, ? or $."
  }
}

variable "vendor_name" {
  type        = string
  description = "The vendor's name, for the role's description and its tags."

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9 .+-]{0,63}$", var.vendor_name))
    error_message = "Must be 1 to 64 letters, digits, spaces or any of .+- and begin with a letter or a digit."
  }
}

variable "permissions_policy" {
  type        = string
  description = "The vendor's permissions, as the JSON of an IAM policy: policy of one of the vendor's permission sets."

  validation {
    condition     = can(jsondecode(var.permissions_policy).Statement)
    error_message = "Must be an IAM policy document in JSON."
  }
}

variable "managed_policy_arns" {
  type        = set(string)
  description = "The policies of AWS's own that the vendor's permission set names."
  default     = []
}

variable "permission_set" {
  type        = string
  description = "Name and version of the vendor's permission set, such as inventory@1: the vendor then knows what the role has."
  default     = ""
}

variable "max_session_duration" {
  type        = number
  description = "The longest duration of a session, in seconds."
  default     = 3600

  validation {
    condition     = var.max_session_duration >= 3600 && var.max_session_duration <= 43200
    error_message = "Must be between 3600 and 43200."
  }
}

variable "access_until" {
  type        = string
  description = "Ends the access at this time, in UTC, such as 2027-12-31T00:00:00Z: for new sessions and for those that live."
  default     = ""

  validation {
    condition     = can(regex("^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)?$", var.access_until))
    error_message = "Must be empty, or a time in UTC, such as 2027-12-31T00:00:00Z."
  }
}

variable "revoke_sessions_before" {
  type        = string
  description = "Ends every session that began before this time, in UTC, such as 2027-01-31T12:00:00Z."
  default     = ""

  validation {
    condition     = can(regex("^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)?$", var.revoke_sessions_before))
    error_message = "Must be empty, or a time in UTC, such as 2027-01-31T12:00:00Z."
  }
}

variable "permissions_boundary_arn" {
  type        = string
  description = "The ARN of a policy of this account, or of AWS, that the role can never exceed."
  default     = ""

  validation {
    condition     = can(regex("^(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[A-Za-z0-9_+=,.@/-]+)?$", var.permissions_boundary_arn))
    error_message = "Must be empty, or the ARN of an IAM policy."
  }
}
