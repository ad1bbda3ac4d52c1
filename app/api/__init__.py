"""The REST API, one module for each resource.

A view loads its schema, calls one service method and returns the result.
"""
