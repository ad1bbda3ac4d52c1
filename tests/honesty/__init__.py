"""Is the service honest when it is deployed, busy, and out of luck? Real gunicorn workers, real signals."""
