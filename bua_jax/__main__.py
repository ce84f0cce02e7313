"""One command for all verbs: `bua VERB ...` is `python -m bua_jax.VERB ...`.

Usage: bua VERB [--FLAG=VALUE ...]        bua VERB --help

First of all:
  bua curriculum --config=configs/quickstart.py --workdir=runs/quickstart
                                          the whole chain on built-in people, and a report
  bua check events.csv
                                          your own log: columns, people, labels, cost, what is wrong
  bua fit events.csv --workdir=runs/mine
                                          the whole chain on it
  bua predict --model=runs/mine events.csv --for=anna
                                          what comes next for her, and what was understood
  bua experiment --experiment=configs/experiments/table4.py --dry_run
                                          a table of the paper: how many steps, about how many hours
"""

import ast
import difflib
import runpy
import sys
from pathlib import Path

NO_VERBS = {"cli"}


def verbs() -> dict[str, str]:
    """Each verb and the first paragraph of what its file says; nothing is imported."""
    files = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    said = {path.stem: ast.get_docstring(ast.parse(path.read_text("utf-8"))) for path in files}
    return {
        name: " ".join((text or "").split("\n\n")[0].split())
        for name, text in said.items()
        if name not in NO_VERBS
    }


def usage() -> str:
    """What `bua --help` prints."""
    table = [f"  {name:14}{about}" for name, about in verbs().items()]
    return "\n".join([(__doc__ or "").rstrip(), "", "Verbs:", *table])


def main() -> None:
    """Runs the verb that is named first; exit code 2 for one that there is not."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("help", "-h", "-help", "--help", "-?"):
        print(usage())
        return
    known = verbs()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}."
        said = f"There is no verb {name!r}. {hint} `bua --help` says what each does."
        print(f"UsageError: {said}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"bua {name}", *rest]
    runpy.run_module(f"bua_jax.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
