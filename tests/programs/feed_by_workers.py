"""Batches made by two workers, whose ids are printed; then it sleeps until it is killed.

python -m tests.programs.feed_by_workers TOKEN_FILE
"""

import multiprocessing
import sys
import time
from pathlib import Path

from bua_jax.feed.batches import Batches
from bua_jax.feed.packing import plan_packing
from bua_jax.feed.token_file import TokenFile


def main() -> None:
    records = TokenFile(Path(sys.argv[1]))
    plan = plan_packing(records, row_length=64, batch_dialogues=10, seed=1, workers=2)
    data = Batches(records, plan, 1)
    next(data)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main()
