"""Requests to addresses that somebody else chose: the only way out to them."""
