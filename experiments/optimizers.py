"""AdamW against Muon, each with its own best rate, warm-up and schedule, at the length of the default run.

    python experiments/optimizers.py                              every training that results/optimizers.csv lacks
    python experiments/optimizers.py 'AdamW, constant' 1337 0.002  one training (way, seed, rate), which prints its row

Each way is trained at several rates with the first seed, and at the best of them with the second. `rate` is that of the
matrices inside the blocks.
"""
import math

from common import bigramv2, read, start, torch, train

TABLE = 'optimizers.csv'
SEEDS = ['1337', '1338']


def adamw(model):
    """AdamW for the matrices too, which keep a rate of their own."""
    matrices = [p for name, p in model.named_parameters() if name.startswith('blocks.') and p.ndim == 2]
    rest = [p for name, p in model.named_parameters() if not (name.startswith('blocks.') and p.ndim == 2)]
    return [torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
            for parameters, rate in ((matrices, bigramv2.learning_rate), (rest, bigramv2.adamw_learning_rate))]


def constant(step):
    return 1.0


def falling(step):
    return 1 - step / bigramv2.max_iters


WAYS = {  # the optimiser of the matrices, the schedule, warm-up steps, clipping, the rate of the rest, rates
    'AdamW, constant': (adamw, constant, 0, 0.0, None, (0.001, 0.002, 0.004)),
    'AdamW, falling': (adamw, falling, 0, 0.0, None, (0.002, 0.004, 0.008)),
    'AdamW, 100 steps of warm-up, falling': (adamw, None, 100, 1.0, None, (0.002, 0.004, 0.008)),
    'AdamW, rest at 0.008, 10 steps of warm-up, falling': (adamw, None, 10, 1.0, 0.008, (0.002, 0.004)),
    'Muon, constant': (None, constant, 0, 0.0, 0.008, (0.00625, 0.0125)),
    'Muon, falling': (None, falling, 0, 1.0, 0.008, (0.025,)),
    'Muon, 10 steps of warm-up, falling': (None, None, 10, 1.0, 0.008, (0.025,)),
}


def best_runs(way):
    """The rows of a way with the rate that was best with the first seed."""
    rows = [row for row in read(TABLE) if row['way'] == way]
    first = [row for row in rows if row['seed'] == SEEDS[0]]
    rate = min(first, key=lambda row: float(row['val'].replace('nan', 'inf')))['rate']
    return [row for row in rows if row['rate'] == rate]


def todo(jobs):
    done = {(row['way'], row['seed'], row['rate']) for row in read(TABLE)}
    return [job for job in jobs if job not in done]


def first_seed():
    return todo([(way, SEEDS[0], str(rate)) for way in WAYS for rate in WAYS[way][-1]])


def second_seed():
    return todo([(way, SEEDS[1], best_runs(way)[0]['rate']) for way in WAYS])


def main(way, seed, rate):
    make, schedule, warmup, clip, rest, _ = WAYS[way]
    if make:
        bigramv2.make_optimizers = make
    if schedule:
        bigramv2.lr_scale = schedule
    row = train(seed=int(seed), learning_rate=float(rate), adamw_learning_rate=rest or float(rate),
                warmup_iters=warmup, grad_clip=clip or math.inf)
    return {'way': way, 'seed': seed, 'rate': rate, **row}


if __name__ == '__main__':
    start(__file__, main, TABLE, first_seed, second_seed)
