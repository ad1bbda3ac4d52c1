"""Is the service honest when it is deployed, busy, and out of luck? Real web processes of
gunicorn, real signals.
"""
