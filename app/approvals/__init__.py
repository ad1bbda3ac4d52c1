"""Requests for permission sets: approvals by the vendor, and moves of roles to other sets."""
