"""The AWS CLI, loaded once: each call by a script is a fork of this process, which takes a tenth of
a start.

`python -m tests.support.aws_cli FOLDER` listens at FOLDER/door, and writes FOLDER/aws, the program
that scripts find. It hands its words, its environment and its files on to the fork, and ends as the
fork does.
"""

import gc
import marshal
import os
import signal
import socket
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from awscli.clidriver import create_clidriver

_OWN = os.environ["AWS_DATA_PATH"]  # which the CLI sets when it is imported
_OFTEN = {
    "cloudformation": "describe-stacks",
    "iam": "get-role",
    "s3api": "list-buckets",
    "sts": "get-caller-identity",
}
# It imports only what Python has loaded anyway: to start it is half of its work.
_CALLER = """\
#!{python} -IS
import _socket, marshal, posix, sys
door = _socket.socket(_socket.AF_UNIX)
door.connect({door!r})
said = marshal.dumps((sys.argv[1:], posix.environ, posix.getcwd()))
files = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
sent = door.sendmsg([said], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
door.sendall(said[sent:])
door.shutdown(_socket.SHUT_WR)
sys.exit(door.recv(1)[0])
"""


def load():
    """Return the CLI of the forks, after loading the modules and descriptions that each would
    load again.
    """
    os.environ["AWS_CONFIG_FILE"] = os.devnull  # each of them would read this process's
    unused = create_clidriver()
    for service, operation in _OFTEN.items():
        driver = create_clidriver()
        driver.session.register_component(
            "data_loader", unused.session.get_component("data_loader")
        )
        with redirect_stdout(StringIO()):
            driver.main([service, operation, "--generate-cli-skeleton"])  # which sends nothing
        driver.session.create_client(service.removesuffix("api"), "us-east-1")
    return unused


def serve(folder):
    gc.disable()  # forks are short, and what they do not touch is not copied for them
    driver = load()
    gc.freeze()
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
                _act(caller, driver)
            caller.close()


def _act(caller, driver):
    """In the fork: be the CLI that the caller has started, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    said, files, *_ = socket.recv_fds(caller, 1 << 16, 3)
    while more := caller.recv(1 << 16):
        said += more
    words, environment, place = marshal.loads(said)  # noqa: S302  of our own caller
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.environb.clear()
    os.environb.update(environment)
    os.environ["AWS_DATA_PATH"] = _OWN
    os.chdir(place)
    try:
        code = driver.main(words)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    caller.send(bytes([code]))
    os._exit(0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
