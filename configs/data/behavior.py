"""Template for the paper's Behavior set: phone logs of 24,133 people, 37 behaviours (private).

Columns of the file: user_id (any id), time (2024-03-01T18:30 or epoch seconds), location (one of
the person's areas), behavior (one of 37 names). Rename them with --config.data.columns.*.

    python -m bua_jax.curriculum --config=configs/curriculum.py:data=behavior \\
        --config.data.path=behavior.csv
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.name = "behavior"
    config.path = ""  # your file
    config.format = "csv"  # csv, tsv or parquet
    config.columns = ConfigDict()
    config.columns.user = "user_id"  # person
    config.columns.time = "time"  # ISO 8601 or epoch seconds
    config.columns.location = "location"  # area
    config.columns.behaviour = "behavior"  # label, in words
    config.columns.split = ""  # train, validation or test; empty = drawn by person
    config.slots_per_day = 48  # time ids per day: half-hours
    config.time_zone = ""  # convert UTC times to it, e.g. Asia/Shanghai; empty = times are local
    config.has_dates = True  # times carry dates
    config.has_places = True  # there is a location
    config.behaviours = ()  # label set; empty = the labels in the data, sorted
    config.on_bad_row = "error"  # error, or skip (counted and reported)
    config.split_seed = 42  # of the 8:1:1 split by person
    config.cite = "BUA, appendix C; private"  # whom to cite
    config.words = ""  # JSON file {label: other words for it}; empty = labels stay as they are
    return config
