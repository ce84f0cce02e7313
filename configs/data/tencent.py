"""Template for the paper's Tencent set: 2,000 people, 14 intents of visits (Shao et al., 2024).

Columns of the file: user_id, timestamp (2019-10-08T07:30:00 or epoch seconds), location_id
(anonymised place), intent (one of 14 names). Rename them with --config.data.columns.*.

    python -m bua_jax.curriculum --config=configs/curriculum.py:data=tencent \\
        --config.data.path=tencent.csv
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.name = "tencent"
    config.path = ""  # your file
    config.format = "csv"  # csv, tsv or parquet
    config.columns = ConfigDict()
    config.columns.user = "user_id"  # person
    config.columns.time = "timestamp"  # ISO 8601 or epoch seconds
    config.columns.location = "location_id"  # anonymised place
    config.columns.behaviour = "intent"  # label, in words
    config.columns.split = ""  # train, validation or test; empty = drawn by person
    config.slots_per_day = 48  # time ids per day: half-hours
    config.time_zone = ""  # convert UTC times to it, e.g. Asia/Shanghai; empty = times are local
    config.has_dates = True  # times carry dates
    config.has_places = True  # there is a location
    config.behaviours = ()  # label set; empty = the labels in the data, sorted
    config.on_bad_row = "error"  # error, or skip (counted and reported)
    config.split_seed = 42  # of the 8:1:1 split by person
    config.cite = "Shao et al., 2024; not public"  # whom to cite
    config.words = ""  # JSON file {label: other words for it}; empty = labels stay as they are
    return config
