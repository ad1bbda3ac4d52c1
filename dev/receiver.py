"""A receiver of webhooks for `make run`: it prints a line for each event, and answers 204."""

import json
import logging
import os
import sys

from deputy_client.webhooks import VerificationError, verify
from flask import Flask, request
from werkzeug.serving import make_server


def receiver(secret: str) -> Flask:
    app, handled = Flask("receiver"), set[str]()

    @app.post("/webhooks/deputy")
    def receive() -> tuple[str, int]:
        try:
            event = verify(secret, request.headers, request.get_data())
        except VerificationError as error:
            return str(error), 400
        if request.headers["webhook-id"] not in handled:
            handled.add(request.headers["webhook-id"])
            print(event["timestamp"][:19], event["type"], json.dumps(event["data"]), flush=True)
        return "", 204

    return app


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs each request
    app = receiver(os.environ["WEBHOOK_SECRET"])
    make_server("127.0.0.1", int(sys.argv[1]), app).serve_forever()
