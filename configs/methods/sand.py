"""SAND (Yuan et al., 2023): a day drawn as a point process that three levels of needs drive; no places.

python -m bua_jax.curriculum --config=configs/curriculum.py --config.evaluation.methods="('sand','bua')"
python -m bua_jax.curriculum --config=configs/curriculum.py --config.evaluation.methods="('sand','bua')" \\
    --config.methods.sand.gail=False
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    # Which need each label serves, ours: of the built-in population and of Foursquare's root categories.
    config.levels_version = 1  # of the three lists; raise it with them, it is in the record
    config.level0 = (  # physiological: eating, sleeping, buying, health
        *(
            "bake bread",
            "breakfast",
            "browse shop",
            "compare prices",
            "cook",
            "order takeout",
            "pay",
        ),
        *("redeem coupon", "sleep mode", "Food", "Residence", "Shop & Service"),
    )
    config.level1 = (  # safety: work, study, getting there, keeping things in order
        *("alarm", "check weather", "drive", "edit document", "email", "fix bike", "learn words"),
        *(
            "meeting",
            "park car",
            "refuel",
            "scan receipt",
            "subway",
            "track stocks",
            "water plants",
        ),
        *("College & University", "Professional & Other Places", "Travel & Transport"),
    )
    config.level2 = ()  # social and higher: leisure, others, sport
    config.default_level = 2  # of labels in none of the lists, as are all of one's own data
    config.replay_days = 3  # days before a day that are read, at most
    config.days = 2_000  # training days that it is fitted on; 0 = all
    config.validation = 200  # validation days that pretraining is chosen on; 0 = all
    config.epochs = 20  # of pretraining, at most
    config.batch = 64  # days of a step, and of a round
    config.peak_lr = 1e-2  # of pretraining: Adam, warm-up, cosine
    config.substeps = 1  # of RK4 between two events or hours
    config.gail = True  # train on against a discriminator
    config.rounds = 60  # of that; the original: up to 2,000
    config.steps = 240  # of RK4 in a day that is drawn
    return config
