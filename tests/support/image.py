"""deploy/Dockerfile without a container engine: its instructions are carried out one by one, in a
folder.

In the image the service lies below WORKDIR. Here that folder lies somewhere else, so its path is
replaced in every word of the Dockerfile. The base image is this machine. An instruction that is not
known here is a mistake.
"""

import fnmatch
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pip
from packaging.requirements import Requirement

from dev.postgres import others_can_enter
from dev.stack import ROOT, end_with_parent

DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def instructions(text):
    """Each instruction in capitals, and its words; comments are left out, and continued lines
    joined.
    """
    lines = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        name, _, words = line.strip().partition(" ")
        yield name.upper(), words.strip()


class Ignored:
    """What .dockerignore keeps out of the build: the last pattern that fits a path, or a folder
    above it, decides.
    """

    def __init__(self, text):
        lines = [
            line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")
        ]
        self._rules = [(line.lstrip("!").strip("/"), line.startswith("!")) for line in lines]

    def __call__(self, path):
        ignored = False
        for pattern, negated in self._rules:
            if any(_fits(one, pattern) for one in (path, *path.parents[:-1])):
                ignored = not negated
        return ignored


def _fits(path, pattern):
    """As Docker compares: `*` stays within a name, and a leading `**/` means any folder."""
    parts, wanted = path.parts, pattern.removeprefix("**/").split("/")
    if pattern.startswith("**/"):
        parts = parts[-len(wanted) :]
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


@dataclass
class Image:
    """`build` it, and then `start` what it runs. `at`: the folder that is the file system's
    root.
    """

    at: Path
    target: str = ""  # the stage; otherwise the last one
    full: bool = False  # install from the package index; otherwise from what is installed here
    base: Path | None = None  # the folder of another image's base image
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = ""
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    health_options: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    _args: dict[str, str] = field(default_factory=dict)
    _stages: dict[str, Path] = field(default_factory=dict)
    _stage: str = ""

    def build(self):
        for name, words in instructions(DOCKERFILE.read_text()):
            if name == "FROM" and self.target and self._stage == self.target:
                break
            getattr(self, f"_{name.lower()}")(words)
        self._protect()
        return self

    @property
    def root(self):
        return self.at / "root"

    @property
    def uid(self):
        """Whom its processes run as, if this process may decide it."""
        return int(self.user.partition(":")[0]) if os.geteuid() == 0 else None

    def here(self, text):
        """The same words with this machine's folder instead of the image's."""
        return (
            text.replace(self.workdir, str(self.root) + self.workdir)
            if self.workdir != "/"
            else text
        )

    def start(self, words, env, **options):
        """A process of the image, as a container starts it: with its variables and these alone."""
        whole = {**self._variables(), **env}
        program = shutil.which(self.here(words[0]), path=whole["PATH"])
        assert program, f"the image has no {words[0]}"
        return subprocess.Popen(
            [program, *map(self.here, words[1:])],
            cwd=self.here(self.workdir),
            env=whole,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  one C call
            **({"user": self.uid, "group": self.uid, "extra_groups": []} if self.uid else {}),
            **options,  # type: ignore[call-overload]
        )

    def output(self, words, env, *, ends=(0,)):
        """Run a process to its end, and return what it wrote to standard output and error.

        `ends`: its exit codes.
        """
        process = self.start(words, env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        printed, errors = (text.decode() for text in process.communicate(timeout=120))
        assert process.returncode in ends, errors + printed
        return printed, errors

    def files(self):
        """Every file below WORKDIR with its size and its time: the same after a run that could
        write nothing.
        """
        top = Path(self.here(self.workdir))
        found = (
            (path, path.lstat())
            for path in top.rglob("*")
            if path.is_symlink() or not path.is_dir()
        )
        return {
            str(path.relative_to(top)): (seen.st_size, seen.st_mtime_ns) for path, seen in found
        }

    @property
    def _base(self):
        return self.base or self.at / "base"

    @property
    def _base_path(self):
        return f"{self._base}/bin:{os.defpath}"

    def _variables(self):
        given = {"PATH": self._base_path, "LD_LIBRARY_PATH": f"{self._base}/lib", **self.env}
        return {name: self.here(value) for name, value in given.items()}

    # --- the instructions ---

    def _arg(self, words):
        name, _, default = words.partition("=")
        self._args[name] = default

    def _from(self, words):
        """A new root, or a copy of a stage's; the last one is kept for COPY --from."""
        if self._stage:
            self.root.rename(self.at / self._stage)
            self._stages[self._stage] = self.at / self._stage
        source = self._stages.get(words.partition(" ")[0])
        if source is not None:
            shutil.copytree(source, self.root, copy_function=os.link, symlinks=True)
            self._stage = words.rpartition(" AS ")[2]
            return
        assert words.partition(" ")[0].endswith("@${PYTHON_DIGEST}")
        self.root.mkdir(parents=True)
        self._stage = words.rpartition(" AS ")[2] if " AS " in words else "final"
        self.env, self.workdir, self.user = {}, "/", "0"
        if not self._base.exists():
            _make_base(self._base)

    def _env(self, words):
        for pair in shlex.split(words):
            name, _, value = pair.partition("=")
            self.env[name] = value.replace("${PATH}", self._base_path)

    def _workdir(self, words):
        self.workdir = words
        Path(self.here(words)).mkdir(parents=True, exist_ok=True)

    def _copy(self, words):
        *options, source, target = shlex.split(words)
        into = Path(self.here(self.workdir)) / target
        if options:
            (stage,) = (option.removeprefix("--from=") for option in options)
            shutil.copytree(
                f"{self._stages[stage]}{source}",
                into,
                copy_function=os.link,
                symlinks=True,
                dirs_exist_ok=True,
            )
            return
        for path in _context(PurePosixPath(source)):
            (into / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, into / path)

    def _run(self, words):
        assert self.user == "0", "the Dockerfile runs commands before USER alone"
        if " install " in words and not self.full:
            assert "--require-hashes" in words
            return _install(
                Path(self.here(self.workdir)),
                self.here(".venv"),
                words.rpartition("--requirement ")[2],
            )
        done = subprocess.run(
            ["/bin/sh", "-c", self.here(words)],
            cwd=self.here(self.workdir),
            env=self._variables() | {"PYTHONPATH": str(self._base / "pip")} | _settings_of_pip(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"RUN {words}\n{done.stdout}{done.stderr}"
        return None

    def _user(self, words):
        self.user = words

    def _volume(self, words):
        self.volumes.append(words)

    def _expose(self, words):
        assert words == "8000"

    def _healthcheck(self, words):
        options, _, command = words.partition("CMD ")
        self.health_options = dict(re.findall(r"--([a-z-]+)=(\S+)", options))
        self.health = json.loads(command)

    def _cmd(self, words):
        self.command = json.loads(words)

    def _protect(self):
        """No user may write, not even the one who runs the tests: in the image, the files are
        root's.
        """
        self.at.chmod(0o755)  # the image's user must get in
        for path in (self.root, *self.root.rglob("*")):
            if not path.is_symlink():
                path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


def _make_base(folder):
    """What the base image has: Python and pip. Python is copied if the image's user could not
    enter its folder here.
    """
    made = Path(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for part in ("bin", "lib", "pip"):
        (folder / part).mkdir(parents=True)
    (folder / "pip" / "pip").symlink_to(Path(next(iter(pip.__path__))))
    python = made / "bin" / version
    if os.geteuid() == 0 and not others_can_enter(made):
        unused = shutil.ignore_patterns("site-packages", "test", "tests", "idlelib", "config-*")
        shutil.copytree(
            made / "lib" / version, folder / "lib" / version, symlinks=True, ignore=unused
        )
        for library in made.glob("lib/libpython*"):
            shutil.copy(library, folder / "lib", follow_symlinks=False)
        python = Path(shutil.copy(python, folder / "bin"))
    script = folder / "bin" / "python"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} "$@"\n')
    script.chmod(0o755)


def _settings_of_pip():
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_")}


def _context(source):
    """The files that the build is sent, as paths in the checkout."""
    ignored = Ignored((ROOT / ".dockerignore").read_text())
    found = []
    for folder, folders, names in os.walk(ROOT / source):
        here = PurePosixPath(Path(folder).relative_to(ROOT))
        if here == PurePosixPath("."):  # what is named nowhere need not be looked through
            folders[:] = [name for name in folders if not ignored(PurePosixPath(name))]
        found += [here / name for name in names]
    return [path for path in found or [source] if not ignored(path)]


def _install(folder, venv, lock):
    """What the lock pins, and nothing else, out of this environment: pip would take half a
    minute for it.
    """
    packages = next((folder / venv).glob("lib/python*/site-packages"))
    for pin in re.findall(r"^[^\s#].*?(?= \\$)", (folder / lock).read_text(), re.MULTILINE):
        wanted = Requirement(pin)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        found = importlib.metadata.distribution(wanted.name)
        assert found.version in wanted.specifier, (
            f"{wanted} is pinned, and {found.version} is installed"
        )
        names = {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}
        if all((packages / name).exists() for name in names):
            continue  # by the stage before
        for name in names:
            _share(Path(str(found.locate_file(name))), packages / name)
        for script in found.entry_points.select(group="console_scripts"):
            _script(folder / venv / "bin", script)


def _share(source, target):
    """As it is, or a copy if the image's user could not enter its folder."""
    if target.exists():
        assert not (source / "__init__.py").exists()  # one folder of several packages
    elif os.geteuid() != 0 or others_can_enter(source.parent):
        target.symlink_to(source)
    elif source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def _script(folder, script):
    path = folder / script.name
    path.write_text(
        f"#!{folder / 'python'}\nimport sys\nfrom {script.module} import"
        f" {script.attr.partition('.')[0]}\nsys.exit({script.attr}())\n"
    )
    path.chmod(0o755)
