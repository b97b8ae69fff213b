"""AdamW against Muon, each with its own best rate, warm-up and schedule, at the length of the default run.

    python experiments/optimizers.py                              every training that results/optimizers.csv lacks
    python experiments/optimizers.py 'AdamW, falling' 1337 0.002   one training (way, seed, rate), which prints its row

Each way is trained at several rates with the first seed, and at the best of them with the second. `rate` is that of the
matrices inside the blocks. Both optimisers at a constant rate, and Muon as it is by default, are rungs of the ladder.
"""
from common import best_runs, bigramv2, missing, start, torch, train

TABLE = 'optimizers.csv'
SEEDS = ['1337', '1338']
split = bigramv2.make_optimizers  # as it is before main replaces it


def adamw(model):
    """AdamW for the matrices too, which keep a rate of their own."""
    muon, rest = split(model)
    matrices = torch.optim.AdamW(muon.param_groups[0]['params'], lr=bigramv2.learning_rate, betas=(0.9, 0.99),
                                 weight_decay=0.0, fused=True)
    return [matrices, rest]


def falling(step):
    return 1 - step / bigramv2.max_iters


WAYS = {  # the optimiser of the matrices, the schedule, warm-up steps, clipping, the rate of the rest, rates
    'AdamW, falling': (adamw, falling, 0, 0.0, None, (0.002, 0.004)),
    'AdamW, 100 steps of warm-up, falling, clipping': (adamw, None, 100, 1.0, None, (0.002, 0.004, 0.008)),
    'AdamW, the rest at 0.008, 10 steps of warm-up, falling, clipping': (adamw, None, 10, 1.0, 0.008, (0.002, 0.004)),
    'Muon, falling, clipping': (None, falling, 0, 1.0, 0.008, (0.025,)),
}
ON_THE_LADDER = {  # its rungs that belong here, and what their rates are multiples of
    'AdamW, constant': ('waves, zeros, smaller embeddings', 1.0),
    'Muon, constant': ('Muon inside the blocks', 0.025),
    'Muon, 10 steps of warm-up, falling, clipping: bigramv2.py': (
        'warm-up, falling rate, clipping: bigramv2.py', 0.025),
}


def first_seed():
    jobs = [(way, SEEDS[0], rate) for way in WAYS for rate in WAYS[way][-1]]
    return missing(TABLE, jobs, 'way', 'seed', 'rate')


def second_seed():
    jobs = [(way, SEEDS[1], best_runs(TABLE, 'way', way, SEEDS[0])[0]['rate']) for way in WAYS]
    return missing(TABLE, jobs, 'way', 'seed', 'rate')


def main(way, seed, rate):
    make, schedule, warmup, clip, rest, _ = WAYS[way]
    if make:
        bigramv2.make_optimizers = make
    if schedule:
        bigramv2.lr_scale = schedule
    row = train(seed=int(seed), learning_rate=float(rate), adamw_learning_rate=rest or float(rate),
                warmup_iters=warmup, grad_clip=clip)
    return {'way': way, 'seed': seed, 'rate': rate, **row}


if __name__ == '__main__':
    start(__file__, main, TABLE, first_seed, second_seed)
