"""What each hyperparameter does: one of them changed at a time, all else equal.

    python experiments/hyperparameters.py           every training that results/hyperparameters.csv lacks
    python experiments/hyperparameters.py n_embd 64 7   one of them: name, value, seed
"""
import json
import sys

from common import append, bigramv2, read, run_all, train

TABLE = 'hyperparameters.csv'
VALUES = {
    'n_embd': [32, 64, 128, 192],
    'num_heads': [1, 2, 4, 8, 16],
    'num_layers': [1, 2, 3, 4],
    'block_size': [32, 64, 128, 256],
    'dropout': [0.0, 0.1, 0.2, 0.3],
    'learning_rate': [0.003, 0.01, 0.03, 0.1],
}
SEEDS = [1, 2]


def jobs():
    """The trainings that are still to do, as arguments of this script; the default stands in every list."""
    done = {(row['name'], row['value'], row['seed']) for row in read(TABLE)}
    todo = [('default', 'default', seed) for seed in SEEDS]
    todo += [(name, value, seed) for seed in SEEDS for name, values in VALUES.items() for value in values
             if value != getattr(bigramv2, name)]
    return [tuple(map(str, job)) for job in todo if tuple(map(str, job)) not in done]


def main(name, value, seed):
    settings = {} if name == 'default' else {name: json.loads(value)}
    if name == 'block_size':  # all else equal: as many characters a step
        default = bigramv2.batch_size * bigramv2.block_size
        settings['batch_size'] = default // settings['block_size']
    append(TABLE, {'name': name, 'value': value, 'seed': seed, **train(seed=int(seed), **settings)})


if __name__ == '__main__':
    if sys.argv[1:]:
        main(*sys.argv[1:])
    else:
        run_all(__file__, jobs())
