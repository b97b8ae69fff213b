"""AdamW at several rates and schedules, against Muon at its own, at the length of the default run.

    python experiments/optimizers.py                               every training that results/optimizers.csv lacks
    python experiments/optimizers.py 'AdamW, falling' 1337 0.002   one training (way, seed, rate), which prints its row
    python experiments/optimizers.py 'AdamW, falling' 1337 0.002 200   the losses of its first 200 steps only

Each way is trained at several rates with the first seed, and at the best of them with the second. `rate` is that of the
matrices inside the blocks. Both optimisers at a constant rate, and Muon as it is by default, are rungs of the ladder.
"""
from itertools import islice

from common import adamw, bigramv2, start, torch, train, two_seeds

TABLE = 'optimizers.csv'
split = bigramv2.make_optimizers  # as it is before main replaces it


def adamw_too(model):
    """AdamW for the matrices too, which keep a rate of their own."""
    muon, rest = split(model)
    return [adamw(muon.param_groups[0]['params']), rest]


WAYS = {  # the optimisers, warm-up steps, the rate of the rest (None: that of the matrices), rates of the matrices
    'AdamW, falling': (adamw_too, 0, None, (0.002, 0.004, 0.008)),
    'AdamW, 100 steps of warm-up, falling': (adamw_too, 100, None, (0.002, 0.004, 0.008)),
    'AdamW, 10 steps of warm-up, falling, the rest at 0.008': (adamw_too, 10, 0.008, (0.001, 0.002, 0.004)),
    'Muon, falling, the rest at 0.008': (split, 0, 0.008, (0.025,)),
}
ON_THE_LADDER = {  # its rungs that belong here, and what their rates are multiples of
    'AdamW, constant': ('waves, zeros, smaller embeddings', 1.0),
    'Muon, constant': ('Muon inside the blocks', 0.025),
    'Muon, 10 steps of warm-up, falling, the rest at 0.008: bigramv2.py': (
        'warm-up, falling rate, clipping: bigramv2.py', 0.025),
}


def beginning(steps, **settings):
    """The validation loss over 20 windows, every 20 steps."""
    vars(bigramv2).update(settings, eval_interval=20)
    data, meta = bigramv2.load_data()
    torch.manual_seed(bigramv2.seed)
    model = bigramv2.GPT(len(meta['vocab']))
    training = bigramv2.train(model, bigramv2.make_optimizers(model), data['train'])
    return {step: f'{bigramv2.estimate_loss(model, data["val"], 20):.3f}' for step in islice(training, steps // 20 + 1)}


def main(way, seed, rate, steps=0):
    bigramv2.make_optimizers, warmup, rest, _ = WAYS[way]
    settings = dict(seed=int(seed), learning_rate=float(rate), adamw_learning_rate=rest or float(rate),
                    warmup_iters=warmup)
    if steps:
        return beginning(int(steps), **settings)
    return {'way': way, 'seed': seed, 'rate': rate, **train(**settings)}


if __name__ == '__main__':
    start(__file__, main, TABLE, *two_seeds(TABLE, 'way', {way: rates for way, (*_, rates) in WAYS.items()}))
