"""Template for the Carat top-1000 app usage set (Appendix M): apps as behaviours, no locations.

Columns of the file: uuid, time (epoch seconds, UTC), category (the app's category in words). Rename
them with --config.data.columns.*.

    python -m bua_jax.curriculum --config=configs/curriculum.py:data=carat \\
        --config.data.path=carat.csv
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.name = "carat"
    config.path = ""  # your file
    config.format = "csv"  # csv, tsv or parquet
    config.columns = ConfigDict()
    config.columns.user = "uuid"  # person
    config.columns.time = "time"  # ISO 8601 or epoch seconds
    config.columns.location = ""  # none in this set
    config.columns.behaviour = "category"  # label, in words
    config.columns.split = ""  # train, validation or test; empty = drawn by person
    config.slots_per_day = 48  # time ids per day: half-hours
    config.time_zone = ""  # convert UTC times to it, e.g. Asia/Shanghai; empty = times are local
    config.has_dates = True  # times carry dates
    config.has_places = False  # no location: tasks and metrics about places are left out
    config.behaviours = ()  # label set; empty = the labels in the data, sorted
    config.on_bad_row = "error"  # error, or skip (counted and reported)
    config.split_seed = 42  # of the 8:1:1 split by person
    config.cite = "Carat Top 1000 Users App Usage Dataset, appendix M"  # whom to cite
    config.words = ""  # JSON file {label: other words for it}; empty = labels stay as they are
    return config
