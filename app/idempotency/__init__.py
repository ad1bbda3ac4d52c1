"""Requests that are sent again with the same Idempotency-Key take effect once."""
