"""What each part buys: the same training with one part taken out or spoilt.

    python experiments/ablations.py                               every training that results/ablations.csv lacks
    python experiments/ablations.py 'no causal mask' 2000 1337    one training (part, steps, seed), which prints its row

A training of 2,000 steps is the default run. One of 600 is shorter: its rate falls to 0 in that time. Some parts
that two seeds leave open have more.
"""
import numpy as np
from common import bigramv2, missing, start, torch, train

TABLE = 'ablations.csv'
SEEDS = {600: (1, 2), 2000: (1337, 1338)}
nn = bigramv2.nn


def no_causal_mask(model):
    bigramv2.fused_attention = False
    for block in model.blocks:
        block.sa.tril.fill_(True)


def no_scaling(model):
    root = (bigramv2.n_embd // bigramv2.num_heads) ** 0.5
    for block in model.blocks:  # undo the division by sqrt(D)
        block.sa.query.register_forward_hook(lambda module, inputs, out: out * root)


def no_positions(model):
    nn.init.zeros_(model.position_embedding.weight)
    model.position_embedding.weight.requires_grad_(False)


def random_positions(model):
    nn.init.normal_(model.position_embedding.weight, std=0.2)  # better than 0.5


def no_zeros_in_blocks(model):
    for block in model.blocks:
        for last in (block.sa.proj, block.ffwd.proj):
            last.reset_parameters()


def no_zeros(model):
    no_zeros_in_blocks(model)
    model.head.reset_parameters()


def no_residual(model):
    no_zeros_in_blocks(model)  # which would let nothing through
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
        block.sa.proj = nn.Identity()  # with it goes the zero start of attention


def relu(model):
    bigramv2.F.gelu = bigramv2.F.relu


def random_places(model):
    def get_batch(data, step):
        places = np.random.default_rng((bigramv2.seed, step)).integers(len(data) - bigramv2.block_size,
                                                                       size=bigramv2.batch_size)
        return bigramv2.windows(data, places)

    bigramv2.get_batch = get_batch


DEEP = dict(num_layers=12)                    # four times as deep
FAST = dict(learning_rate=0.1, adamw_learning_rate=0.032)  # four times both rates
HEAD = dict(num_heads=1, learning_rate=0.1)   # one head of size D = 128, and four times Muon's rate
PARTS = {  # what is missing: how to take it out, and hyperparameters that go with that
    'nothing': (None, {}),
    'no causal mask': (no_causal_mask, {}),
    'no division by root of D': (no_scaling, {}),
    'no positional embedding': (no_positions, {}),
    'positions that start at random': (random_positions, {}),
    'no zeros at the start': (no_zeros, {}),
    'no residual connection': (no_residual, {}),
    'no LayerNorm': (no_layernorm, {}),
    'one head': (None, {'num_heads': 1}),
    'no feed-forward': (no_feed_forward, {}),
    'no output projection': (no_projection, {}),
    'ReLU in place of GELU': (relu, {}),
    'windows at random places': (random_places, {}),
}
ELSEWHERE = {  # the same at sizes where a part matters more than at the default's, 600 steps
    '12 blocks: nothing': (None, DEEP),
    '12 blocks: no LayerNorm': (no_layernorm, DEEP),
    'four times both rates: nothing': (None, FAST),
    'four times both rates: no LayerNorm': (no_layernorm, FAST),
    "one head, four times Muon's rate: nothing": (None, HEAD),
    "one head, four times Muon's rate: no division by root of D": (no_scaling, HEAD),
}

OPEN = {  # what two seeds leave open in 2,000 steps, and further seeds for it
    'nothing': (1339, 1340, 1341),
    'no division by root of D': (1339, 1340, 1341),
    'ReLU in place of GELU': (1339, 1340, 1341),
    'windows at random places': (1339,),
}


def jobs():
    every = [(part, steps, seed) for steps, seeds in SEEDS.items() for seed in seeds
             for part in (PARTS | ELSEWHERE if steps == 600 else PARTS)]
    every += [(part, 2000, seed) for part, seeds in OPEN.items() for seed in seeds]
    return missing(TABLE, every, 'part', 'steps', 'seed')


def main(part, steps, seed):
    spoil, settings = (PARTS | ELSEWHERE)[part]
    return {'part': part, 'steps': steps, 'seed': seed,
            **train(spoil, max_iters=int(steps), seed=int(seed), **settings)}


if __name__ == '__main__':
    start(__file__, main, TABLE, jobs)
