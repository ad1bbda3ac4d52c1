# The three values come from the vendor's onboarding page, or from its onboarding kit.

module "deputy_role" {
  source = "../.."

  external_id          = var.external_id
  role_name            = var.role_name
  broker_principal_arn = var.broker_principal_arn
  vendor_name          = "Example Vendor"
  permissions_policy   = file("${path.module}/permissions.json")
  permission_set       = "inventory@1"
}
