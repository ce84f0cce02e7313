"""28-day activity sequences in the USA (hours since the window's start); no locations.

Columns of the file that are read: seq_id (one sequence of one person; people cannot be told apart
across sequences), day_index (from 0; 0, 7, 14 and 21 are Mondays), hour (0-23), behaviour.

    python -m bua_jax.curriculum --config=configs/curriculum.py:data=foursquare_usa
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.name = "foursquare_usa"
    config.path = "../shared/data/foursquare_usa.parquet"  # the file, from the project's root
    config.format = "parquet"  # csv, tsv or parquet
    config.columns = ConfigDict()
    config.columns.user = "seq_id"  # one sequence is one person-window
    config.columns.day = "day_index"  # elapsed days; day 0 is a Monday
    config.columns.hour = "hour"  # 0-23
    config.columns.behaviour = "behaviour"  # label, in words
    config.columns.split = ""  # train, validation or test; empty = drawn by person
    config.slots_per_day = 24  # time ids per day: hours
    config.has_dates = False  # no calendar dates: ids can't be renewed by date
    config.has_places = False  # no location: tasks and metrics about places are left out
    config.behaviours = ()  # label set; empty = the labels in the data, sorted
    config.on_bad_row = "error"  # error, or skip (counted and reported)
    config.split_seed = 42  # of the 8:1:1 split by person
    config.cite = (
        "Yuan et al., WWW 2023 (MIT), https://github.com/tsinghua-fib-lab/Activity-Simulation-SAND, "
        "its Foursquare sequences, one event per row"
    )  # whom to cite
    config.words = ""  # JSON file {label: other words for it}; empty = labels stay as they are
    return config
