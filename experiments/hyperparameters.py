"""What each hyperparameter does: one of them changed at a time, all else equal.

    python experiments/hyperparameters.py               every training that results/hyperparameters.csv lacks
    python experiments/hyperparameters.py n_embd 64 7   one training (name, value, seed), which prints its row
"""
import json

from common import bigramv2, missing, start, train

TABLE = 'hyperparameters.csv'
VALUES = {
    'n_embd': [32, 64],
    'num_heads': [1, 16],
    'num_layers': [1, 2],
    'block_size': [32, 256],
    'dropout': [0.2],
    'learning_rate': [0.003, 0.01, 0.1],
}
SEEDS = [1, 2]


def jobs():
    """The trainings that are still to do, as arguments of this script."""
    every = [('default', 'default', seed) for seed in SEEDS]
    every += [(name, value, seed) for seed in SEEDS for name, values in VALUES.items() for value in values]
    return missing(TABLE, every, 'name', 'value', 'seed')


def main(name, value, seed):
    settings = {} if name == 'default' else {name: json.loads(value)}
    if name == 'block_size':  # as many characters in a step as by default
        settings['batch_size'] = bigramv2.batch_size * bigramv2.block_size // settings['block_size']
    return {'name': name, 'value': value, 'seed': seed, **train(seed=int(seed), max_iters=600, **settings)}


if __name__ == '__main__':
    start(__file__, main, TABLE, jobs)
