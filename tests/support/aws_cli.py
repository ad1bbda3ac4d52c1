"""The AWS CLI, loaded once: each call by a script is a fork of this process, which takes a quarter of a start.

`python -m tests.support.aws_cli FOLDER` listens at FOLDER/door, and writes FOLDER/aws, the program that scripts find. It
hands its words, its environment and its files on to the fork, and ends as the fork does.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

from awscli.clidriver import main as aws

_OWN = os.environ["AWS_DATA_PATH"]  # which the CLI sets when it is imported
_CALLER = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as door:
    door.connect({door!r})
    said = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
    sent = socket.send_fds(door, [said], [0, 1, 2])
    door.sendall(said[sent:])
    door.shutdown(socket.SHUT_WR)
    sys.exit(door.recv(1)[0])
"""


def serve(folder: Path) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "door"))
        listener.listen()
        program = folder / "aws.new"
        program.write_text(_CALLER.format(python=sys.executable, door=str(folder / "door")))
        program.chmod(0o700)
        program.rename(folder / "aws")
        while True:
            caller, _ = listener.accept()
            if os.fork() == 0:
                _act(caller)
            caller.close()


def _act(caller: socket.socket) -> None:
    """In the fork: be the CLI that the caller has started, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    said, files, *_ = socket.recv_fds(caller, 1 << 16, 3)
    while more := caller.recv(1 << 16):
        said += more
    words, environment, place = json.loads(said)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(environment, AWS_DATA_PATH=_OWN)
    os.chdir(place)
    sys.argv = ["aws", *words]
    try:
        code = aws()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    caller.send(bytes([code]))
    os._exit(0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
