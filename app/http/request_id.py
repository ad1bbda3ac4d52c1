"""The id of a request, for the log, the audit log and the answer."""

# In the WSGI environ, where no header of a client's gets.
REQUEST_ID = "deputy.request_id"
