"""`make run`: Deputy and its sandbox on this machine, until Ctrl-C."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from dev.run_settings import Settings, StackError, ensure_fresh_shell
from dev.stack import Stack

S = TypeVar("S", bound=Stack)
Steps = list[tuple[str, Callable[[], object]]]


def main() -> int:
    return run(Stack, os.environ, steps_of, summary)


def run(
    make: Callable[[Settings, Mapping[str, str]], S],
    env: Mapping[str, str],
    steps: Callable[[S], Steps],
    summarize: Callable[[S], str],
) -> int:
    """Start the stack that `make` returns, print its summary, and stop it after Ctrl-C."""
    parent = os.getppid()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    try:
        ensure_fresh_shell(env)
        with make(Settings.from_environment(env), env) as stack:
            start(steps(stack), stop)
            if not stop.is_set():
                print(summarize(stack), flush=True)
            return serve(stack, stop, parent)
    except StackError as error:
        sys.exit(str(error))


def steps_of(stack: Stack) -> Steps:
    """Return the steps that start everything, in order, with their names."""
    return [
        ("database and admin key", stack.prepare),
        ("sandbox (a local AWS)", stack.start_sandbox),
        ("CloudFormation templates", stack.publish),
        ("background worker", stack.start_worker),
        ("web", stack.start_web),
        ("receiver of webhooks", stack.start_receiver),
        ("a first customer's onboarding link", stack.onboard),
    ]


def start(steps: Steps, stop: threading.Event) -> None:
    """Run the steps, and print each one's name. Ctrl-C takes effect between two steps."""
    for name, step in steps:
        if stop.is_set():
            return
        print(f"starting  {name} …", flush=True)
        step()


def serve(stack: Stack, stop: threading.Event, parent: int) -> int:
    """Wait for Ctrl-C, the end of make, or the unexpected end of a process."""
    while os.getppid() == parent and not stop.wait(0.5):
        stack.answer_publish_request()
        if name := stack.dead():
            print(f"The {name} process ended by itself; see {stack.log(name)}", file=sys.stderr)
            return 1
    print("\nstopping …", flush=True)
    return 0


def summary(stack: Stack) -> str:
    settings, link = stack.settings, ""
    state = "fresh: database and sandbox both start empty at each run"
    if not stack.embedded:
        state = (
            "the database is yours and persists; the sandbox's AWS is in memory and starts fresh"
        )
    if stack.onboarding_url:
        link = f"""
  onboarding   {stack.onboarding_url}
               (what Acme's administrator sees: open it, launch the stack, watch it turn green)
  webhooks     {stack.log("receiver")}
               (the events that Deputy sends to your product)"""
    return f"""
Deputy is ready.
{link}
  API          {settings.url}/v1
  API docs     {settings.url}/docs/
  sandbox      {settings.sandbox_url}          (the AWS that it talks to)
  console      {settings.sandbox_url}/console/ (where launch links open)
  admin key    {stack.admin_key}
  database     {stack.database}
  logs         {stack.log("web")}, {stack.log("worker").name}, {stack.log("sandbox").name}
  settings     {stack.environment_file}          (source it before: .venv/bin/flask --app wsgi …)
  state        {state}

Try next, in another terminal:

  make demo                            every step, two attacks that fail, and a loosened role
  make publish                         publish permission sets that you changed, and restart \
Deputy with them
  curl -s {settings.url}/v1/tenants -H "Authorization: Bearer {stack.admin_key}" \\
       -H "Content-Type: application/json" -d '{{"name": "Acme"}}'

Ctrl-C stops everything."""


if __name__ == "__main__":
    sys.exit(main())
