"""A ladder from the counting table to the default model: one part more at each rung.

    python experiments/ladder.py                      every training that results/ladder.csv lacks
    python experiments/ladder.py 'one head' 7 0.002   one training (rung, seed, rate), which prints its row

The rungs of chapter one train as `python bigram.py` does, and those of chapter two as `python bigramv2.py`. Between the
two, steps, batch, AdamW's betas and weight decay (0.01 and 0), and the windows of the measurement change too. The rungs
of chapter two are trained at several rates with the first seed, and at the best of them with the second. Where Muon
trains, the rate is a factor for both of bigramv2's rates.
"""
import time

import common
import numpy as np
from common import QUICK, SEEDS, adamw, bigramv2, measure, missing, start, torch, train, two_seeds

import bigram

TABLE = 'ladder.csv'
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
    """AdamW for all parameters, set as bigramv2.py's own, at a constant rate and without clipping."""
    bigramv2.make_optimizers = lambda model: [adamw(model.parameters())]
    at_constant_rate()


def at_constant_rate():
    bigramv2.lr_scale, bigramv2.grad_clip = (lambda step: 1.0), 0.0


def by_default():
    pass


RATES = (0.001, 0.002, 0.004, 0.008)
CHAPTER_ONE = {  # what comes in, and how the model differs from bigram.GPT
    'one head': one_head,
    'four heads, projection': many_heads,
    'feed-forward': feed_forward,
    'residual and LayerNorm: a block': one_block,
    'three blocks: bigram.py': None,
}
CHAPTER_TWO = {  # what comes in: a change to bigramv2.GPT, how it learns, learning rates
    'wider, longer windows at even places, GELU': (default_weights, with_adamw, RATES),
    'waves, zeros, smaller embeddings': (None, with_adamw, RATES),
    'Muon inside the blocks': (None, at_constant_rate, (0.25, 0.5, 1.0, 2.0)),
    'warm-up, falling rate, clipping: bigramv2.py': (None, by_default, (1.0,)),
}
COUNTED = 'counting pairs'
LADDER = [COUNTED, *CHAPTER_ONE, *CHAPTER_TWO]
LEARNING_RATES = {rung: (bigram.learning_rate,) for rung in CHAPTER_ONE} | {
    rung: rates for rung, (*_, rates) in CHAPTER_TWO.items()}


def best_runs(rung):
    """The rows of a rung with the learning rate that was best with the first seed."""
    return common.best_runs(TABLE, 'rung', rung)


def train_as_chapter_one(model, tokens, interval=None):
    """Train as bigram.py does, with its own functions, on tokens (N,). Yield a step at every interval, and the last."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=bigram.learning_rate)
    for step in range(bigram.max_iters):
        if interval and step % interval == 0:
            yield step
        bigram.train_step(model, optimizer, *bigram.get_batch(tokens))
    yield bigram.max_iters


def count(data, vocab):
    begun = time.process_time()
    model = CountingTable(torch.from_numpy(data['train'].astype(np.int64)), len(vocab))
    return measure(model, data, vocab, time.process_time() - begun)


def as_chapter_one(change, seed, rate):
    """Train as bigram.py does, with its own functions."""
    data, meta = bigramv2.load_data()
    bigram.device, bigram.learning_rate = 'cpu', rate
    bigramv2.block_size = bigram.block_size  # measured on windows of the size it has learnt
    torch.manual_seed(seed)
    model = bigram.GPT(len(meta['vocab']))
    if change:
        change(model)
    if QUICK:
        bigram.max_iters = 3
    tokens, begun = torch.from_numpy(data['train'].astype(np.int64)), time.process_time()  # (N,)
    for _ in train_as_chapter_one(model, tokens):
        pass
    return measure(model, data, meta['vocab'], time.process_time() - begun)


def as_chapter_two(rung, seed, rate):
    change, prepare, _ = CHAPTER_TWO[rung]
    prepare()
    rates = {'learning_rate': rate}
    if prepare is not with_adamw:
        rates = {name: rate * bigramv2.HYPERPARAMETERS[name] for name in ('learning_rate', 'adamw_learning_rate')}
    return train(change, seed=seed, **rates)


def main(rung, seed, rate):
    if rung == COUNTED:
        data, meta = bigramv2.load_data()
        row = count(data, meta['vocab'])
    elif rung in CHAPTER_ONE:
        row = as_chapter_one(CHAPTER_ONE[rung], int(seed), float(rate))
    else:
        row = as_chapter_two(rung, int(seed), float(rate))
    return {'rung': rung, 'seed': seed, 'rate': rate, **row}


if __name__ == '__main__':
    start(__file__, main, TABLE, lambda: missing(TABLE, [(COUNTED, SEEDS[0], '')], 'rung', 'seed', 'rate'),
          *two_seeds(TABLE, 'rung', LEARNING_RATES))
