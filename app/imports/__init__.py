"""Bringing customers over from another system of the vendor (docs/migrate.md)."""
