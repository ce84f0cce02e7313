"""Lists the runs below a folder: model, data, how many of their steps are finished, and what they reached.

Examples:
  python -m bua_jax.runs
  python -m bua_jax.runs /shared/runs --json=runs.json
"""

from pathlib import Path

from absl import flags

from bua_jax import cli
from bua_jax.basics import files
from bua_jax.basics.console import out
from bua_jax.basics.errors import ConfigError
from bua_jax.basics.hints import nearest_run

FLAGS = flags.FLAGS
flags.DEFINE_string("folder", "", "Folder of runs (runs); the flag's name may be left out.")
flags.DEFINE_string("json", "", "JSON file to write.")


def main() -> None:
    from bua_jax.pipeline.steps import COMMAND

    folder = Path(FLAGS.folder or "runs")
    if not folder.is_dir():
        hint = nearest_run(folder, f"*/{COMMAND}") or " Give one: python -m bua_jax.runs FOLDER."
        raise ConfigError(f"There is no folder {folder}.{hint}")
    from bua_jax.evaluation.tables import cell
    from bua_jax.experiments.compare import runs_in
    from bua_jax.planning.report import print_table

    files.check_output(FLAGS.json, flag="--json")
    found = runs_in(folder)
    if not found:
        out.print(f"No runs in {folder}.")
    else:
        names = ("name", "model", "data", "steps", "rec_w", "log_loss")
        rows = [
            [str(one[n]) if n in names[:4] and n in one else cell(one.get(n), n) for n in names]
            for one in found
        ]
        print_table(f"Runs in {folder}", names, rows)
        for one in found:
            if "damaged" in one:
                out.print(f"{one['name']}: {one['damaged']}")
    if FLAGS.json:
        files.write_json(Path(FLAGS.json), found)


if __name__ == "__main__":
    cli.run(main, argument="folder")
