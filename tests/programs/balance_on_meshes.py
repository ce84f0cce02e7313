"""Prints what steps of a balancer come to on one device and on a mesh of eight."""

import sys

import jax
import numpy as np

from bua_jax.parallel import sharding
from tests.support import toy

for text in sys.argv[1:]:
    found = []
    for mesh in (sharding.make_mesh("1"), sharding.make_mesh("2x2x2")):
        with jax.set_mesh(mesh):
            trainer = toy.Trainer(text, microbatches=2)
            trainer.state = sharding.place(trainer.state, sharding.shardings(trainer.state, mesh))
            trainer.sums = sharding.place(trainer.sums, sharding.replicated(mesh))
            for seed in range(3):
                trainer.step(sharding.shard_batch(toy.batch(seed), mesh, 2))
            assert not trainer.problem.balancer.faults, trainer.problem.balancer.faults
            found.append(np.append(trainer.x, np.asarray(trainer.state.weights)))
    one, eight = found
    print(text, np.abs(one - eight).max(), np.ptp(one[toy.SIZE :]))
