"""Makes ids and areas opaque, splits by person, and writes the result as parquet.

Ids become random ones, renewed every three months where the data has dates. Of each person's
areas the ten most visited are kept, as opaque codes. The file carries the split, made before the
renaming.
Without --key-file the random key is kept nowhere; with it, the same key gives the same ids again.
Columns are mapped by config.data, as everywhere; without --config by configs/data/behavior.py.

Examples:
  python -m bua_jax.anonymise --input=events.csv --output=shared/events.parquet
  python -m bua_jax.anonymise --input=nyc.parquet --output=out/nyc.parquet --key-file=../key.json \\
      --config=configs/curriculum.py:data=foursquare_nyc
  python -m bua_jax.anonymise --input=a.tsv --output=out/a.parquet --config.data.columns.user=who
"""

import sys
from pathlib import Path

from absl import flags

from bua_jax import cli
from bua_jax.basics.console import notice, out
from bua_jax.basics.errors import ConfigError
from bua_jax.basics.files import check_output
from bua_jax.events.anonymise import KEPT_AREAS, PERIOD_DAYS, anonymise_file, load_key
from bua_jax.events.rows import BadRows
from bua_jax.events.spec import FORMATS, DataSpec

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "input", "", "File to anonymise; its suffix (.csv, .tsv, .parquet) is its format."
)
flags.DEFINE_string("output", "", "Parquet file to write.")
flags.DEFINE_string(
    "key_file", "", "JSON file with the secret key, made if absent; not beside --output."
)
flags.DEFINE_alias("key-file", "key_file")


def main() -> None:
    values = FLAGS.config.data.to_dict()
    if values["name"] == "simulated":
        raise ConfigError(
            "The simulated population has no file; choose a config of a file, such as "
            "--config=configs/curriculum.py:data=behavior."
        )
    if FLAGS.input:
        if not Path(FLAGS.input).is_file():
            raise ConfigError(f"There is no file --input={FLAGS.input}.")
        suffix = Path(FLAGS.input).suffix[1:].lower()
        values |= {"path": FLAGS.input} | ({"format": suffix} if suffix in FORMATS else {})
    elif not values["path"]:
        raise ConfigError(f"Data set {values['name']!r} has no file yet: give --input=FILE.")
    if not FLAGS.output:
        raise ConfigError("Give --output=FILE.parquet.")
    check_output(FLAGS.output, values["path"], FLAGS.key_file)
    spec, report = DataSpec.from_mapping(values), BadRows()
    result = anonymise_file(spec, FLAGS.output, load_key(FLAGS.key_file, FLAGS.output), report)
    for reason, count in report.counts.items():
        notice(f"{spec.path}: skipped {count} rows ({reason})")
    out.print(f"{FLAGS.output}: {result.events} events of {result.people} people")
    if result.renewed:
        out.print(
            f"ids: {result.ids}, renewed every {PERIOD_DAYS} days from the first date of the data"
        )
    else:
        out.print(f"ids: {result.ids}; renewal skipped: the data has no dates")
    if result.areas_kept_share is not None:
        share = f"{100 * result.areas_kept_share:.1f} % of visits"
        out.print(
            f"areas: each person's {KEPT_AREAS} most visited kept ({share}), the rest dropped"
        )
    out.print(f"key: {FLAGS.key_file or 'kept nowhere'}")


if __name__ == "__main__":
    if not cli.names_config(sys.argv):
        sys.argv.insert(1, "--config=configs/curriculum.py:data=behavior")
    cli.run(main, config="configs/curriculum.py")
