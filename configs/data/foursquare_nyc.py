"""Check-ins in New York, 2012-2013, with local hours, areas and root categories; no calendar dates.

Columns of the file that are read: user_id, week_traj_id (order of a user's weeks), day_of_week
(name), hour (local, 0-23), grid_id (0.01-degree cell), category. Weeks with fewer than 10 check-ins
are missing, so an unknown gap precedes every week. location_id (venue), lat, lon and weather are
not read: the venue and its coordinates determine the category.

    python -m bua_jax.curriculum --config=configs/curriculum.py:data=foursquare_nyc
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.name = "foursquare_nyc"
    config.path = "../shared/data/foursquare_nyc.parquet"  # the file, from the project's root
    config.format = "parquet"  # csv, tsv or parquet
    config.columns = ConfigDict()
    config.columns.user = "user_id"  # person
    config.columns.week = "week_traj_id"  # a new value starts after an unknown gap
    config.columns.weekday = "day_of_week"  # name, or 0 (Monday) to 6
    config.columns.hour = "hour"  # local, 0-23
    config.columns.location = "grid_id"  # area; never the venue
    config.columns.behaviour = "category"  # label, in words
    config.columns.split = ""  # train, validation or test; empty = drawn by person
    config.slots_per_day = 24  # time ids per day: hours
    config.has_dates = False  # no calendar dates: ids can't be renewed by date
    config.has_places = True  # there is a location
    config.behaviours = ()  # label set; empty = the labels in the data, sorted
    config.on_bad_row = "error"  # error, or skip (counted and reported)
    config.split_seed = 42  # of the 8:1:1 split by person
    config.cite = (
        "Yang et al., TSMC 2015; Petry et al., MARC 2020 (MIT), https://github.com/"
        "bigdata-ufsc/petry-2020-marc, all parts of foursquare_nyc in one parquet file"
    )  # whom to cite
    config.words = ""  # JSON file {label: other words for it}; empty = labels stay as they are
    return config
