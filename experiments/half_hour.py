"""The long run of the course, by the README's command: python experiments/half_hour.py [TEXT]

    python experiments/half_hour.py TEXT                          every run that results/half_hour.csv lacks
    python experiments/half_hour.py input.txt 1337                one run (text, seed), which prints its row
    python experiments/half_hour.py input.txt 1337 --dropout=0    the same with something changed

The texts are ours (input.txt), with one seed, and, with TEXT, the one that others measure on: tiny Shakespeare as it is
in the repository karpathy/char-rnn. On that one there are three seeds, and runs without weight decay and without
dropout. `seconds` are the processor seconds of the whole run with one thread. `last` and `best` are the losses over the
whole validation split with the last weights and with the best ones, those that the run keeps in model.pt. These were
chosen on the validation text, the last ones were not.
"""
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

from common import ARGS, QUICK, bigramv2, read, run_all

import prepare

TABLE = 'half_hour.csv'
FLAGS = ('--num_layers 4 --n_embd 192 --block_size 256 --batch_size 8 --dropout 0.1 --weight_decay 0.1 '
         '--max_iters 6000').split()
FEW = '--max_iters 2 --eval_interval 1 --eval_windows 4 --max_new_tokens 1'.split() if QUICK else []
SEEDS = '1337', '1338', '1339'
OURS = 'input.txt'
WITHOUT = '--weight_decay=0', '--dropout=0'


def name(path):
    return 'ours' if path == OURS else 'canonical'


def jobs():
    done = {(row['text'], row['seed'], row['changed']) for row in read(TABLE)}
    every = [(path, seed, '') for path in ARGS for seed in SEEDS] + [(OURS, SEEDS[0], '')]
    every += [(path, SEEDS[0], change) for path in ARGS for change in WITHOUT]
    return [(path, *rest) for path, *rest in every if (name(path), *rest) not in done]


def main(path, seed, changed=''):
    text = Path(path).resolve()
    # The run has a folder of its own for its tokens and its weights. (Windows keeps files that are in use.)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, contextlib.chdir(folder):
        prepare.prepare(text)
        begun = time.process_time()
        bigramv2.main([*FLAGS, '--seed', seed, '--device', 'cpu', *changed.split(), *FEW])
        seconds, val, losses = time.process_time() - begun, bigramv2.load_data()[0]['val'], []
        for kept in 'checkpoint.pt', 'model.pt':
            model, _ = bigramv2.load(bigramv2.newest(kept))
            losses.append(bigramv2.estimate_loss(model, val, 10 if QUICK else 10 ** 9))
    last, best = (f'{loss:.4f}' for loss in losses)
    return {'text': name(path), 'changed': changed, 'seed': seed, 'steps': bigramv2.max_iters,
            'seconds': f'{seconds:.0f}', 'last': last, 'best': best}


if __name__ == '__main__':
    missing = [path for path in ARGS[:1] if not Path(path).is_file()]
    if missing:
        sys.exit(f'half_hour.py: there is no text {missing[0]}')
    if len(ARGS) > 1:
        print(json.dumps(main(*ARGS)))
    else:
        run_all(__file__, TABLE, jobs())
