"""The Dockerfile, as far as it can be read without docker: what it copies, runs as, and leaves out.

The long test builds it, where docker or podman is.
"""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.helpers import ROOT

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
SECRET = re.compile(r"token|secret|password|credential|api_?key", re.IGNORECASE)


def instructions(text: str) -> list[tuple[str, str]]:
    """(name, rest) of every instruction, its continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    words = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, _, rest in words]


def problem(name: str, rest: str, args: set[str]) -> str:
    """What hadolint would say of the basics of an instruction, or what cannot work; args: those before it."""
    sources = shlex.split(rest)[:-1] if name == "COPY" else []
    lean = "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists/*" in rest
    wrong = {
        f"FROM {rest} is not pinned": name == "FROM" and not re.match(r"python:3\.1[12]", rest),
        f"{rest} is a secret": name in ("ARG", "ENV") and SECRET.search(rest),
        f"{name} uses what is no argument": set(re.findall(r"\$\{?(\w+)", rest)) - args,
        f"COPY {rest}: not there": any(not (ROOT / one).exists() for one in sources),
        f"COPY {rest}: ignored": any(f"!{one}" not in IGNORED for one in sources),
        "ADD, where COPY would do": name == "ADD",
        f"{name} is no list": name in ("ENTRYPOINT", "CMD") and not re.match(r'\[".*"\]$', rest),
        "apt-get leaves what nothing needs": "apt-get install" in rest and not lean,
        "pip keeps its cache": "pip install" in rest and "--no-cache-dir" not in rest,
    }
    return "; ".join(said for said, so in wrong.items() if so)


def problems(text: str) -> list[str]:
    """What is wrong with a Dockerfile."""
    found, args, user = [], set(), "root"
    for name, rest in instructions(text):
        args |= {rest.partition("=")[0]} if name in ("ARG", "ENV") else set()
        user = rest.partition(":")[0] if name == "USER" else user
        found.append(problem(name, rest, args))
    return [*filter(None, found), *["it runs as root"] * (user in ("root", "0"))]


def test_the_dockerfile_is_sound() -> None:
    assert problems(TEXT) == []
    assert IGNORED[1] == "*"  # all but what is named
    assert {name for name, _ in instructions(TEXT)} >= {"FROM", "RUN", "COPY", "USER", "ENTRYPOINT"}
    assert ("STOPSIGNAL", "SIGINT") in instructions(TEXT)  # on which claims are given back


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("USER 1000", "", "it runs as root"),
        ("USER 1000", "USER 0:0", "it runs as root"),
        ("python:3.12-slim-bookworm", "python:latest", "not pinned"),
        ("COPY configs", "COPY confgs", "confgs ./configs: not there"),
        ("COPY configs", "COPY docs", "docs ./configs: ignored"),
        ("ARG EXTRAS", "ARG OTHERS", "RUN uses what is no argument"),
        ("ARG EXTRAS", 'ARG HF_TOKEN=""\nARG EXTRAS', "is a secret"),
        ("--no-cache-dir", "", "pip keeps"),
        ("--no-install-recommends", "", "apt-get leaves"),
        ('["bua"]', "bua", "ENTRYPOINT is no list"),
    ],
)
def test_what_is_wrong_is_found(old: str, new: str, said: str) -> None:
    assert old in TEXT
    assert any(said in one for one in problems(TEXT.replace(old, new)))


def test_what_it_says_is_so() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "not built in CI" in TEXT
    for extra in re.findall(r"EXTRAS=(\w+)", TEXT):
        assert extra in project["optional-dependencies"]
    assert "bua" in project["scripts"]
    commands = re.sub(r"\\\n#\s*", "", TEXT)  # continued lines joined
    runs = re.findall(r"^#   docker run (.*) bua-jax\S* (\w+)", commands, re.MULTILINE)
    verbs = [verb for _, verb in runs]
    assert verbs
    for flags, _ in runs:
        assert '--user "$(id -u):$(id -g)"' in flags  # or root's new folder cannot be written
        for folder in re.findall(r":(/home/bua/[\w.]+)", flags):
            assert re.search(
                rf"--mode=1777 .*{re.escape(folder)}\b", TEXT
            )  # by whomever --user names
    assert all(Path(ROOT, "bua_jax", f"{verb}.py").is_file() for verb in verbs)
    needed = {project["readme"], *project["license-files"], "pyproject.toml"}
    copied = {word for name, rest in instructions(TEXT) if name == "COPY" for word in rest.split()}
    assert needed <= copied


def tried(engine: str, **also: str) -> subprocess.CompletedProcess[str]:
    command, env = [str(ROOT / "launch" / "container.sh")], {**os.environ, "ENGINE": engine, **also}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_without_an_engine_the_script_says_so(tmp_path: Path) -> None:
    dead = tmp_path / "docker"
    dead.write_text("#!/bin/sh\nexit 1\n")
    dead.chmod(0o755)
    for engine in (str(dead), str(tmp_path / "absent")):
        done = tried(engine)
        assert done.returncode == 2
        assert done.stderr == f"{engine} does not answer. Install it, or start its daemon.\n"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_image_is_built_and_runs() -> None:
    engines = filter(None, map(shutil.which, ("docker", "podman")))
    answers = [
        e for e in engines if subprocess.run([e, "info"], capture_output=True).returncode == 0
    ]
    if not answers:
        pytest.skip("neither docker nor podman answers")
    done = tried(answers[0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "was built and tried" in done.stdout
