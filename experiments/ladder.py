"""A ladder from the counting table to the default model: one part more at each rung, equal characters for all.

    python experiments/ladder.py                   every training that results/ladder.csv lacks
    python experiments/ladder.py 'one head' 7 0.01  one training (rung, seed, rate), which prints its row

Each rung is trained at three learning rates with the first seed, and at the best of them with the second. Where Muon
trains, the rate is a factor for both of bigramv2's learning rates.
"""
import math
import time

from common import bigramv2, measure, read, start, torch, train

import bigram

TABLE = 'ladder.csv'
SEEDS = ['1', '2']
nn = torch.nn


class CountingTable(nn.Module):
    """The table of bigram.py as a model, so that it can be measured as the others are. It is counted, not trained."""

    def __init__(self, data, vocab_size):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(bigram.count_pairs(data, vocab_size), freeze=False)

    def forward(self, idx, targets=None):
        logits = self.table(idx)                                                  # (B, T) -> (B, T, V)
        loss = None if targets is None else nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss


# How the models of the rungs differ from bigram.GPT or bigramv2.GPT

def layers(model, *parts):
    """These parts in place of the blocks, without residual connections and LayerNorm."""
    model.blocks, model.ln = nn.Sequential(*parts), nn.Identity()


def one_head(model):
    layers(model, bigram.Head(bigram.n_embd))


def many_heads(model):
    layers(model, model.blocks[0].sa)


def feed_forward(model):
    layers(model, model.blocks[0].sa, model.blocks[0].ffwd)


def one_block(model):
    model.blocks = model.blocks[:1]


def default_weights(model):
    """The initial weights of torch in place of waves and zeros."""
    for module in model.modules():
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()


# How they learn

def with_adamw():
    """AdamW for all parameters, at a constant rate and without clipping, as in bigram.py."""
    bigramv2.make_optimizers = lambda model: [torch.optim.AdamW(model.parameters(), lr=bigramv2.learning_rate)]
    at_constant_rate()


def at_constant_rate():
    bigramv2.lr_scale, bigramv2.grad_clip = (lambda step: 1.0), math.inf


def by_default():
    pass


SMALL = dict(n_embd=96, block_size=64, batch_size=24)
LARGE = dict(n_embd=128, block_size=128, batch_size=12)  # as many characters in a step
RUNGS = {  # what comes in: the class of the model, a change to it, its sizes, how it learns, learning rates
    'one head': (bigram.GPT, one_head, SMALL, with_adamw, (0.001, 0.003, 0.01)),
    'many heads': (bigram.GPT, many_heads, SMALL, with_adamw, (0.001, 0.003, 0.01)),
    'feed-forward': (bigram.GPT, feed_forward, SMALL, with_adamw, (0.002, 0.005, 0.01)),
    'residual and LayerNorm: a block': (bigram.GPT, one_block, SMALL, with_adamw, (0.005, 0.01, 0.02)),
    'three blocks': (bigram.GPT, None, SMALL, with_adamw, (0.002, 0.005, 0.01)),
    'wider and longer': (bigram.GPT, None, LARGE, with_adamw, (0.002, 0.005, 0.01)),
    'GELU': (bigramv2.GPT, default_weights, LARGE, with_adamw, (0.002, 0.005, 0.01)),
    'waves and zeros at the start': (bigramv2.GPT, None, LARGE, with_adamw, (0.002, 0.005, 0.01)),
    'Muon': (bigramv2.GPT, None, LARGE, at_constant_rate, (0.25, 0.5, 1.0)),
    'schedule and clipping': (bigramv2.GPT, None, LARGE, by_default, (0.5, 1.0, 2.0)),
}
COUNTED = 'counting table'
LADDER = [COUNTED, *RUNGS]


def best_runs(rung):
    """The rows of a rung with the learning rate that was best with the first seed."""
    rows = [row for row in read(TABLE) if row['rung'] == rung]
    first = [row for row in rows if row['seed'] == SEEDS[0]]
    rate = min(first, key=lambda row: float(row['val'].replace('nan', 'inf')))['rate']
    return [row for row in rows if row['rate'] == rate]


def first_seed():
    tries = [(COUNTED, SEEDS[0], '')] + [(rung, SEEDS[0], str(rate)) for rung in RUNGS for rate in RUNGS[rung][-1]]
    return todo(tries)


def second_seed():
    return todo([(rung, SEEDS[1], best_runs(rung)[0]['rate']) for rung in RUNGS])


def todo(jobs):
    done = {(row['rung'], row['seed'], row['rate']) for row in read(TABLE)}
    return [job for job in jobs if job not in done]


def count():
    data, vocab = bigramv2.load_data()
    begun = time.process_time()
    model = CountingTable(data['train'], len(vocab))
    return measure(model, data, vocab, time.process_time() - begun)


def learn(rung, seed, rate):
    GPT, change, sizes, prepare, _ = RUNGS[rung]
    prepare()
    rates = {'learning_rate': rate}
    if prepare is not with_adamw:
        rates = {name: rate * bigramv2.HYPERPARAMETERS[name] for name in ('learning_rate', 'adamw_learning_rate')}
    vars(bigram).update(sizes, device=bigramv2.device)
    return train(change, GPT, seed=seed, **sizes, **rates)


def main(rung, seed, rate):
    row = count() if rung == COUNTED else learn(rung, int(seed), float(rate))
    return {'rung': rung, 'seed': seed, 'rate': rate, **row}


if __name__ == '__main__':
    start(__file__, main, TABLE, first_seed, second_seed)
