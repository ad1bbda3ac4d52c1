"""All requests to addresses that somebody else chose."""
