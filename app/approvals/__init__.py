"""Requests for permission sets: what the vendor approves, and the moves of roles between sets."""
