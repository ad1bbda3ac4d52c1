"""Deputy: External IDs, proven roles, and short-lived credentials for a SaaS vendor's workers."""
