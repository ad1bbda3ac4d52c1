"""Values for the examples in the OpenAPI document."""

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/deputy-7a2b6c18"
EXTERNAL_ID = "dpy-" + "0123456789abcdef" * 4
NEXT_EXTERNAL_ID = "dpy-" + "fedcba9876543210" * 4
UUID_EXAMPLE = "019c1f6e-8a00-7c3b-9d41-5f0e7a2b6c18"
