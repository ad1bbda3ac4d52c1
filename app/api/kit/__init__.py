"""Parts that the resources of the API share: fields, schemas, problems, pages, OpenAPI."""
