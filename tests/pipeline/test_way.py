"""The way of what `build_stage` is given to the training loop: how many files it passes, and whether it
climbs."""

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from bua_jax.basics.config import View
from bua_jax.feed.batches import Batches
from bua_jax.pipeline import stages
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.steps import Run, ensure
from tests.support.imports import LINE, PACKAGE
from tests.support.steps import config_of

MOST, STAGE = 25, "stage1"
HANDED_IN = {  # called from below, where a protocol or an argument from above says so
    "HFTokenizer.encode",  # the protocol Tokenizer of dialogue/
    "to_host",  # an argument of files.sha256_arrays
    "_load.<locals>.<lambda>",  # where huggingface.load is to place weights
}
TINY: dict[str, Any] = {
    "data__num_users": 8,
    "data__num_days": 8,
    "windows__train": 24,
    "windows__validation": 4,
    "encoder__epochs": 1,
    "encoder__num_layers": 1,
    "encoder__dim": 4,
    "methods__bua__warm_steps": 1,
    "methods__bua__warm_windows": 4,
    "stage1__row_length": 512,
    "stage1__batch_dialogues": 4,
}


class Begun(Exception):
    """The loop asks for its first batch."""


class Trace:
    """Which files of the package see what was given, and which calls go up its line of rooms."""

    def __init__(self, workdir: Path, package: Path = PACKAGE) -> None:
        self._workdir, self._package = workdir, f"{package}/"
        self.passed: dict[str, set[str]] = {}  # functions by file
        self.climbs: set[tuple[str, str]] = set()  # (caller, called)

    @contextmanager
    def on(self) -> Iterator[None]:
        sys.setprofile(self._see)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        if event != "call" or not (file := self._file(code)):
            return
        count = code.co_argcount + code.co_kwonlyargcount
        count += bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)  # *args, **kwargs
        seen = (frame.f_locals.get(name) for name in code.co_varnames[:count])
        if any(map(self._is_given, seen)):
            self.passed.setdefault(file, set()).add(code.co_qualname)
        caller = frame.f_back
        while caller is not None and not self._file(caller.f_code):
            caller = caller.f_back
        if caller is not None and _height(file) > _height(self._file(caller.f_code)):
            self.climbs.add((caller.f_code.co_qualname, code.co_qualname))

    def _file(self, code: CodeType) -> str:
        """Path in the package; empty: it is another's."""
        name = code.co_filename
        return name.removeprefix(self._package) if name.startswith(self._package) else ""

    def _is_given(self, value: Any) -> bool:
        """Stage, run, config and any part of it, folder and what lies there; in containers too."""
        if isinstance(value, Path):
            return value.is_relative_to(self._workdir)
        if isinstance(value, tuple | list | dict) and len(value) < 20:
            return any(map(self._is_given, value.values() if isinstance(value, dict) else value))
        return isinstance(value, Run | View) or value is STAGE


def _height(file: str) -> int:
    """Of a file's room in the line; the verbs are above all."""
    room, _, below = file.partition("/")
    return LINE.index(room) if below else len(LINE)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """From the entry to `build_stage` until its loop asks for a batch."""
    workdir = tmp_path_factory.mktemp("run")
    trace, run = Trace(workdir), Run(config_of(**TINY), workdir)

    def build(run: Run) -> dict[str, Any]:
        with trace.on():
            return stages.build_stage(run, STAGE)

    def begun(self: Batches) -> Any:
        raise Begun

    table = {**STEPS, STAGE: dataclasses.replace(STEPS[STAGE], build=build)}
    for step in ("encoder", "dialogues", "windows/train"):
        ensure(run, step, table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "__next__", begun)
        with pytest.raises(Begun):
            ensure(run, STAGE, table)
    return trace


def test_what_a_stage_is_given_passes_few_files_on_its_way_to_the_loop(traced: Trace) -> None:
    """A file is passed if one of its functions is called with what `build_stage` was given as an argument.

    Given are: the stage's name, the run, its view of the config and every part of that (a view too, such as
    `execution`), its folder and the paths in it; in a tuple, list or dict too. A value that was read from a
    config, and what is made of it (settings, records, arrays), is no longer what was given.
    Counted are the package's files alone, from the entry to `build_stage` until the loop of `fit` asks for
    its first batch.
    """
    assert {"pipeline/stages.py", "alignment/parts.py", "training/loop.py"} <= {*traced.passed}
    assert len(traced.passed) <= MOST, traced.passed


def test_no_call_on_the_way_goes_up(traced: Trace) -> None:
    """From a room into one that stands behind it in the line; through other packages too."""
    assert {called for _, called in traced.climbs} <= HANDED_IN, traced.climbs
    assert ("encode_dialogue", "HFTokenizer.encode") in traced.climbs  # which is seen at all


def test_the_trace_can_fail(tmp_path: Path) -> None:
    """A stand-in for the package: a function above is called from below, with a folder, a path, a part."""
    for name, text in {
        "basics/a.py": "def below(call, **given):\n    return call(3)\n",
        "pipeline/b.py": "def above(x):\n    return x\n",
        "models/c.py": "def nothing(x, *rest):\n    return [y for y in rest]\n",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    found: dict[str, Any] = {}
    for path in sorted(tmp_path.rglob("*.py")):
        exec(compile(path.read_text(), str(path), "exec"), found)
    trace, view = Trace(tmp_path / "run", tmp_path), View(config_of(), ("seed", "model"), "x")
    with trace.on():
        found["nothing"](tmp_path, "stage2", 3)
        found["below"](found["above"], path=tmp_path / "run" / "data")
    assert trace.passed == {"basics/a.py": {"below"}}
    assert trace.climbs == {("below", "above")}
    with trace.on():
        found["nothing"](1, 2, (view.model,))
    assert trace.passed["models/c.py"] == {"nothing"}
