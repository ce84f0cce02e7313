"""Has people rate texts about people, blinded (Appendices Q and R): items, packets for judges, scores.

Examples:
  python -m bua_jax.rate items --workdir=runs/quickstart --sources=reference,bua --output=items.jsonl
  python -m bua_jax.rate export --input=items.jsonl --judges=3 --output=ratings
  python -m bua_jax.rate score --input=ratings/key.json --answers=judge1.csv,judge2.csv --output=scores

`items` writes a line for each history: id, history, predicted (what BUA says comes next) and texts by source,
to which you add those of others ("human": "..."). `export` writes a page (and a CSV) for each judge into
ratings/packets, texts in an order of its own, and ratings/key.json, which no judge may see. A judge opens the
page, answers by keyboard and sends back the file that it saves. `score` says means, best shares, differences
and agreement, and writes scores.json and scores.html.
"""

from pathlib import Path

from absl import flags

from bua_jax import cli
from bua_jax.basics.errors import ConfigError

ACTIONS = ("items", "export", "score")
FLAGS = flags.FLAGS
flags.DEFINE_string("action", "", "items, export or score; the flag's name may be left out.")
flags.DEFINE_list("sources", ["reference", "bua"], "items: methods that describe.")
flags.DEFINE_integer("number", 120, "items: how many, of as many people as can be.", lower_bound=1)
flags.DEFINE_string("input", "", "export: file of items. score: key.json.")
flags.DEFINE_integer("judges", 3, "export: how many.", lower_bound=1)
flags.DEFINE_integer("seed", 42, "Of what is drawn.", lower_bound=0)
flags.DEFINE_list("answers", [], "score: the files that judges sent back.")
flags.DEFINE_string("output", "", "items: file; export: folder; score: file, without its ending.")
cli.define_take_over()


def main() -> None:
    if FLAGS.action not in ACTIONS:
        raise ConfigError(
            f"Say what to do: python -m bua_jax.rate {'|'.join(ACTIONS)}; see --help."
        )
    for name in ("output",) if FLAGS.action == "items" else ("output", "input"):
        if not FLAGS[name].value:
            raise ConfigError(f"--{name} is missing; see --help for what {FLAGS.action} takes.")
    {"items": _items, "export": _export, "score": _score}[FLAGS.action]()


def _items() -> None:
    from bua_jax.basics import files
    from bua_jax.evaluation.rating.items import write_items
    from bua_jax.experiments.rating import items_of
    from bua_jax.pipeline.chain import start

    files.check_output(FLAGS.output)
    run = start(cli.config_of(cli.workdir()), cli.workdir(), take_over=FLAGS.take_over)
    write_items(Path(FLAGS.output), items_of(run, FLAGS.sources, FLAGS.number, FLAGS.seed))


def _export() -> None:
    from bua_jax.basics.console import notice, out
    from bua_jax.evaluation.rating.items import read_items, uneven
    from bua_jax.evaluation.rating.packets import export

    items = read_items(Path(FLAGS.input))
    if said := uneven(items):
        notice(said)
    for path in export(items, FLAGS.judges, FLAGS.seed, Path(FLAGS.output)):
        out.print(str(path), markup=False)


def _score() -> None:
    from bua_jax.evaluation.rating.scores import read_ratings, report, score, write_scores
    from bua_jax.planning.report import print_table

    found = score(read_ratings(Path(FLAGS.input), [Path(path) for path in FLAGS.answers]))
    for table in report(found).tables:
        print_table(table.title, table.header, table.rows)
    write_scores(Path(FLAGS.output), found)


if __name__ == "__main__":
    cli.run(main, config="configs/curriculum.py", argument="action")
