"""What each part buys: the same training with one part taken out or spoilt.

    python experiments/ablations.py                      every training that results/ablations.csv lacks
    python experiments/ablations.py 'no causal mask' 1   one training (part, seed), which prints its row
"""
import numpy as np
from common import bigramv2, read, start, torch, train

TABLE = 'ablations.csv'
SEEDS = [1337, 1338]
nn = bigramv2.nn


def no_causal_mask(model):
    bigramv2.fused_attention = False
    for block in model.blocks:
        block.sa.tril.fill_(True)


def no_scaling(model):
    for block in model.blocks:  # undo the division by sqrt(D)
        root = (bigramv2.n_embd // bigramv2.num_heads) ** 0.5
        block.sa.query.register_forward_hook(lambda module, inputs, out, root=root: out * root)


def no_positions(model):
    nn.init.zeros_(model.position_embedding.weight)
    model.position_embedding.weight.requires_grad_(False)


def random_positions(model):
    nn.init.normal_(model.position_embedding.weight, std=0.2)  # better than 0.5


def no_residual(model):
    for block in model.blocks:
        for last in (block.sa.proj, block.ffwd.proj):
            last.reset_parameters()  # zeros would let nothing through
    bigramv2.Block.forward = lambda self, x, **cache: self.ffwd(self.ln2(self.sa(self.ln1(x), **cache)))


def no_layernorm(model):
    for block in model.blocks:
        block.ln1 = block.ln2 = nn.Identity()
    model.ln = nn.Identity()


class Nothing(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def no_feed_forward(model):
    for block in model.blocks:
        block.ffwd = Nothing()


def no_projection(model):
    for block in model.blocks:
        block.sa.proj = nn.Identity()


def random_places(model):
    def get_batch(data, step):
        places = np.random.default_rng((bigramv2.seed, step)).integers(len(data) - bigramv2.block_size,
                                                                       size=bigramv2.batch_size)
        return bigramv2.windows(data, places)

    bigramv2.get_batch = get_batch


DEEP = dict(num_layers=12, max_iters=600)     # four times as deep
WIDE = dict(num_heads=1, max_iters=600)       # one head of size D = 128
PARTS = {  # what is missing: how to take it out, and hyperparameters that go with that
    'nothing': (None, {}),
    'no causal mask': (no_causal_mask, {}),
    'no division by root of D': (no_scaling, {}),
    'no positional embedding': (no_positions, {}),
    'positions that start at random': (random_positions, {}),
    'no residual connection': (no_residual, {}),
    'no LayerNorm': (no_layernorm, {}),
    'one head': (None, {'num_heads': 1}),
    'no feed-forward': (no_feed_forward, {}),
    'no output projection': (no_projection, {}),
    'windows at random places': (random_places, {}),
    '12 blocks, 600 steps: nothing': (None, DEEP),
    '12 blocks, 600 steps: no LayerNorm': (no_layernorm, DEEP),
    '12 blocks, 600 steps: no residual connection': (no_residual, DEEP),
    'one head of 128, 600 steps: nothing': (None, WIDE),
    'one head of 128, 600 steps: no division by root of D': (no_scaling, WIDE),
    'one head of 128, four times the rate, 600 steps: nothing': (None, WIDE | {'learning_rate': 0.1}),
    'one head of 128, four times the rate, 600 steps: no division by root of D': (
        no_scaling, WIDE | {'learning_rate': 0.1}),
}


def jobs():
    done = {(row['part'], row['seed']) for row in read(TABLE)}
    return [(part, str(seed)) for seed in SEEDS for part in PARTS if (part, str(seed)) not in done]


def main(part, seed):
    spoil, settings = PARTS[part]
    return {'part': part, 'seed': seed, **train(spoil, seed=int(seed), **settings)}


if __name__ == '__main__':
    start(__file__, main, TABLE, jobs)
