"""Attacks a finished run and says what did not hold.

  python -m tests.programs.attack RUN SEED CORRUPTIONS KILLS [SECONDS]

RUN is a quickstart at reduced size (`tests.support.runs.curriculum`); copies of it are attacked. A corruption
alters one file; then the run's command is given again, which must either refuse it in one paragraph that
names the file or its folder (and, followed, the paragraph's remedy must bring the same results back), or mend
it, or do without it: what no verb reads may be anything. One in ten alters a stage that is half built. A kill
takes one step's folder away, or asks for predictions, days or an anonymised file, and ends that command at a
random moment by SIGKILL, SIGTERM or Ctrl-C; the same command must then end with what it would have written.
Prints a JSON record for each, and last what was found: `silent` (other results, exit code 0), `traceback`,
`stuck` (the same command does not end well), `unnamed`. The exit code is 1 if anything was. With SECONDS it
stops after about that time.

Processes are forked from this one, which has imported everything and started nothing of jax.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from bua_jax.alignment import ask  # noqa: F401 (what verbs import takes seconds)
from bua_jax.basics import files
from bua_jax.pipeline import chain, checks, export, finished, reflection, report, stages  # noqa: F401
from tests.support import forks
from tests.support.runs import REDUCED

CONFIG = "--config=configs/quickstart.py"
HALF = ("--config.stage2.max_steps=6", "--config.stage2.checkpoints=3", "--config.step=stage2")
VOLATILE = {"run.json", "report.html", "README.md"}  # they say when and where
STEPS = (
    *("windows/test", "dialogues", "encoder", "stage1", "stage2", "reflect", "stage3"),
    *("fit/sasrec", "predict/bua/test", "generate/bua/days", "predict/markov/test", "evaluation"),
)
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Said:
    """What a verb ended with: exit code (negative: the signal) and what it printed as errors."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self.text = code, text


def run_verb(
    name: str,
    *flags: str,
    scratch: Path,
    end: Callable[[int, float], bool] | None = None,
    by: int = signal.SIGKILL,
    draws: bool = True,
) -> Said:
    """Forks a verb; `end(process, seconds)` says when signal `by` is sent to it.

    draws: whether it writes the report, of which the pictures take longer than all else.
    """
    log = scratch / "stderr.txt"
    child = os.fork()
    if child == 0:
        if not draws:
            report.report_results = lambda run: None
        streams = {"out": os.devnull, "err": str(log)}
        where = {"cwd": os.getcwd(), "environment": {**os.environ}}
        forks.end_as_main({"module": f"bua_jax.{name}", "flags": flags, **where, **streams})
    begin, sent = time.monotonic(), False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if end is not None and not sent and end(child, time.monotonic() - begin):
            os.kill(child, by)
            sent = True
        time.sleep(0.02)
    return Said(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))


# --------------------------------------------------------------------------------------- results


def _content(path: Path) -> str:
    """Hash of what a file of results says; of result files without the seconds that answers took."""
    if path.name == "result.arrow":
        frame = pl.read_ipc_stream(path.read_bytes())
        said = frame.drop("seconds", strict=False).write_json()
        return hashlib.sha256(said.encode()).hexdigest()
    return files.sha256_file(path)


def results(run: Path) -> dict[str, str]:
    """What a run ends with: weights, data, dialogues, what methods said, metrics."""
    kinds = ("*.safetensors", "*.parquet", "result.arrow", "metrics.json")
    found = [path for kind in kinds for path in run.rglob(kind)]
    kept = [path for path in found if not {"best", "checkpoints"} & {*path.parts}]
    return {str(path.relative_to(run)): _content(path) for path in sorted(kept)}


def in_child(work: Callable[[], Any], scratch: Path) -> Any:
    """What `work` returns, as JSON, in a process of its own: polars has threads, which no fork survives."""
    path = scratch / "found.json"
    child = os.fork()
    if child == 0:
        try:
            path.write_text(json.dumps(work()))
        except BaseException as error:
            path.write_text(json.dumps({"error": repr(error)}))
        os._exit(0)
    os.waitpid(child, 0)
    return json.loads(path.read_text())


# ----------------------------------------------------------------------------------- corruptions


def corrupt(path: Path, draw: random.Random) -> str:
    """Alters a file; returns how."""
    had = path.read_bytes()
    kind = draw.choice(["flip", "flip", "flip", "cut", "zeros", "more", "empty", "gone", "other"])
    at = draw.randrange(len(had)) if had else 0
    if kind == "gone":
        path.unlink()
        return kind
    data = had
    if kind == "flip" and had:
        data = had[:at] + bytes([had[at] ^ 1 << draw.randrange(8)]) + had[at + 1 :]
    elif kind == "cut":
        data = had[:at]
    elif kind == "zeros":
        data = had[:at] + bytes(len(had[at : at + 64])) + had[at + 64 :]
    elif kind == "empty":
        data = b""
    elif kind == "other":  # as valid: another file of the run with the same ending
        others = [p for p in path.parents[1].rglob(f"*{path.suffix}") if p.is_file() and p != path]
        data = draw.choice(sorted(others)).read_bytes() if others else had
    path.write_bytes(data if data != had else had + draw.randbytes(8))
    return kind


class Attack:
    """RUN, what it ends with, and what has been found."""

    def __init__(self, run: Path, scratch: Path, seed: int) -> None:
        self.run, self.scratch, self.draw = run, scratch, random.Random(seed)
        self.copy = scratch / "run"
        self.found: Counter[str] = Counter()
        self.harmless: dict[str, bool] = {}
        self.whole = in_child(lambda: results(run), scratch)
        self.histories = scratch / "histories.jsonl"
        self.made: dict[str, str] = {}  # what verbs write when nothing is wrong

    def note(self, finding: str, **record: Any) -> None:
        self.found[finding] += 1
        print(json.dumps({"found": finding, **record}), flush=True)

    def begin(self, base: Path) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(base, self.copy)

    def again(self, *more: str, draws: bool = True) -> Said:
        flags = (CONFIG, f"--workdir={self.copy}", *REDUCED, *more)
        verb = "train" if more else "curriculum"
        return run_verb(verb, *flags, scratch=self.scratch, draws=draws)

    def ask(self, name: str, **how: Any) -> tuple[Said, str]:
        """(how `predict`, `generate` or `anonymise` ended, hash of what it wrote)."""
        output = self.scratch / f"{name}.out.jsonl"
        flags = [f"--model={self.copy}", f"--input={self.histories}", f"--output={output}"]
        if name == "anonymise":
            output, source = self.scratch / "out" / "hidden.parquet", self.scratch / "events.csv"
            flags = [f"--input={source}", f"--output={output}"]
            flags += [f"--key_file={self.scratch / 'keys' / 'key.json'}"]
        said = run_verb(name, *flags, scratch=self.scratch, **how)
        return said, files.sha256_file(output) if said.code == 0 else ""

    def clean(self) -> None:
        """Takes away what verbs wrote and kept."""
        for path in (*self.scratch.glob("*.out*"), *(self.scratch / "out").glob("*")):
            path.unlink()

    def judge(self, said: Said, **record: Any) -> bool:
        """Notes a traceback, or an end that is neither good nor one paragraph; returns whether none was."""
        bad = "Traceback" in said.text or said.code not in (0, 2)
        if bad or (said.code == 2 and "\n\n" in said.text.strip()):
            self.note("traceback", code=said.code, said=said.text[-2000:], **record)
            return False
        return True

    def corruption(self, base: Path, whole: dict[str, str], half: bool) -> None:
        self.begin(base)
        below = self.copy / "stage2" if half else self.copy
        names = sorted(p for p in below.rglob("*") if p.is_file())
        path = self.draw.choice(names)
        kind = corrupt(path, self.draw)
        name = str(path.relative_to(self.copy))
        left = path.read_bytes() if path.exists() else None
        read_by_report = path.name in ("metrics.jsonl", "metrics.json", "report.html")
        said = self.again(*HALF) if half else self.again(draws=read_by_report)
        record = {"file": name, "kind": kind, "half": half}
        if not self.judge(said, **record):
            return
        if said.code == 2:
            folder = name.rpartition("/")[0] or name
            named = path.name in said.text or any(
                str(p) in said.text for p in (path.parent, path.parent.parent, folder)
            )
            if not named and not half:
                self.note("unnamed", said=said.text, **record)
            self.found["refused"] += 1
            remedy = re.search(r"rm -r (\S+?)[;.,]?(\s|$)", said.text)
            if remedy and (half or self.draw.random() < 0.05):
                shutil.rmtree(remedy[1])
                said = self.again(*HALF) if half else self.again()
                if said.code != 0:
                    self.note("stuck", said=said.text, remedy=remedy[0], **record)
                elif in_child(lambda: results(self.copy), self.scratch) != whole:
                    self.note("silent", after="the remedy", **record)
            return
        after = in_child(lambda: results(self.copy), self.scratch)
        if after != whole:
            changed = sorted(k for k in {*after, *whole} if after.get(k) != whole.get(k))
            self.note("silent", changed=changed[:5], said=said.text[-1000:], **record)
        elif not half and left == (path.read_bytes() if path.exists() else None):
            self._unread(name, record)
        else:
            self.found["mended"] += 1

    def _unread(self, name: str, record: dict[str, Any]) -> None:
        """No step minded the file: do the verbs that read a finished run?"""
        like = re.sub(r"[0-9a-f]{8,}|\d+", "*", name) + record["kind"]
        if like not in self.harmless:
            for verb in ("predict", "generate"):
                self.clean()
                said, made = self.ask(verb)
                if not self.judge(said, verb=verb, **record):
                    return
                if said.code == 0 and made != self.made[verb]:
                    self.note("silent", verb=verb, **record)
                    return
            self.harmless[like] = True
        self.found["unread"] += 1

    # ------------------------------------------------------------------------------------- kills

    def kill(self, longest: dict[str, float]) -> None:
        """Ends a command at a random moment and gives it again."""
        what = self.draw.choice([*STEPS, "predict", "generate", "anonymise"])
        by = self.draw.choice(SIGNALS)
        moment = self.draw.uniform(0.0, longest.setdefault(what, 20.0))
        how: dict[str, Any] = {"end": lambda _, seconds: seconds >= moment, "by": by}
        record = {"step": what, "signal": int(by), "after": round(moment, 2)}
        self.begin(self.run)
        self.clean()
        begin = time.monotonic()
        verb = what in self.made
        if verb:
            said, _ = self.ask(what, **how)
        else:
            shutil.rmtree(self.copy / what)
            flags = (CONFIG, f"--workdir={self.copy}", *REDUCED)
            said = run_verb("curriculum", *flags, scratch=self.scratch, **how)
        if said.code == 0:  # it ended before: the next ones sooner
            longest[what] = min(longest[what], time.monotonic() - begin)
        ends = (0, 2, 130, 143, -signal.SIGKILL, -signal.SIGTERM)
        if said.code not in ends or "Traceback" in said.text:
            self.note("traceback", code=said.code, said=said.text[-2000:], **record)
        if verb:
            said, made = self.ask(what)
            same = made == self.made[what]
        else:
            said = self.again()
            same = in_child(lambda: results(self.copy), self.scratch) == self.whole
        if said.code != 0:
            self.note("stuck", code=said.code, said=said.text[-2000:], **record)
        elif not same:
            self.note("silent", **record)
        self.found["kills"] += 1


def prepare(attack: Attack) -> None:
    """What `predict`, `generate` and `anonymise` write when nothing is wrong."""
    attack.begin(attack.run)

    def sources() -> None:
        from bua_jax.events.histories import example_lines
        from bua_jax.pipeline.finished import events_of

        attack.histories.write_text("".join(example_lines(events_of(attack.run), 5)))
        lines = ["user_id,time,location,behavior"]
        for user in range(20):
            lines += [f"u{user},2024-03-{d:02}T08:00,home,work" for d in range(1, 29)]
        (attack.scratch / "events.csv").write_text("\n".join(lines) + "\n")

    in_child(sources, attack.scratch)
    for name in ("keys", "out"):
        (attack.scratch / name).mkdir()
    for verb in ("anonymise", "predict", "generate"):
        said, made = attack.ask(verb)
        if said.code != 0:
            raise SystemExit(f"{verb} fails on the run as it is: {said.text}")
        attack.made[verb] = made


def half_built(attack: Attack) -> tuple[Path, dict[str, str]]:
    """A run whose stage 2 was killed after its first checkpoint, and what it ends with."""
    base = attack.scratch / "half"
    shutil.copytree(attack.run, base)
    for later in ("stage2", "reflect", "stage3", "evaluation", "predict", "generate"):
        shutil.rmtree(base / later)
    attack.begin(base)
    if (said := attack.again(*HALF)).code:
        raise SystemExit(f"stage 2 fails: {said.text}")
    whole = in_child(lambda: results(attack.copy), attack.scratch)
    flags = (CONFIG, f"--workdir={base}", *REDUCED, *HALF)
    saved = base / "stage2" / "checkpoints"
    run_verb("train", *flags, scratch=attack.scratch, end=lambda *_: (saved / "2").exists())
    return base, whole


def main() -> None:
    run, seed, corruptions, kills = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    seconds = float(sys.argv[5]) if len(sys.argv) > 5 else float("inf")
    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
    scratch = run.parent / f"attack{seed}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    attack = Attack(run.absolute(), scratch.absolute(), seed)
    prepare(attack)
    end = time.monotonic() + seconds
    longest: dict[str, float] = {}
    half = half_built(attack) if corruptions >= 10 and seconds == float("inf") else None
    for number in range(max(corruptions, kills)):
        if number < corruptions:
            base, whole = half if half and number % 10 == 9 else (attack.run, attack.whole)
            attack.corruption(base, whole, base != attack.run)
        if number < kills:
            attack.kill(longest)
        if number % 50 == 49:
            print(json.dumps({"done": number + 1, **attack.found}), file=sys.stderr, flush=True)
        if time.monotonic() > end:
            break
    print(json.dumps({"seed": seed, **attack.found}))
    shutil.rmtree(scratch)
    if any(attack.found[kind] for kind in ("silent", "traceback", "stuck", "unnamed")):
        sys.exit(1)


if __name__ == "__main__":
    main()
