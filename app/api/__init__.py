"""The REST API: a thin module for each resource. A view loads its schema, calls one service method, dumps the result."""
