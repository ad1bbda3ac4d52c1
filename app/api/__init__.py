"""The REST API, one module a resource. A view loads its schema, calls one service method and
returns what that gave.
"""
