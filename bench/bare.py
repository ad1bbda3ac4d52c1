"""The baseline: Flask alone, with Deputy's route and the bytes of one answer (`BENCH_ANSWER`).

`gunicorn bench.bare:app`, under the same worker class and with as many web processes as Deputy.
"""

import os
from uuid import UUID

from flask import Flask, Response

app = Flask(__name__, static_folder=None)
_ANSWER = os.environ["BENCH_ANSWER"]


@app.post("/v1/tenants/<uuid:tenant_id>/connections/<uuid:connection_id>/credentials")
def answer(tenant_id: UUID, connection_id: UUID) -> Response:  # noqa: ARG001  the route's
    return Response(_ANSWER, mimetype="application/json")
