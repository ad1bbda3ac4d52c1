"""Deputy: External IDs, proven roles, and short-lived credentials for a SaaS vendor's workers."""

VERSION = "0.1.0"  # CHANGELOG.md has a heading for each version
