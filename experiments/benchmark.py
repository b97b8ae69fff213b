"""How fast it is, and what it is compared with: python experiments/benchmark.py

Prints a table of medians and ratios, and writes it to results/benchmark.csv. What is compared is measured in turn, so
a slow minute of the machine slows both. nanogpt.py measures whole runs of bigramv2.py. Nothing here says what is right;
tests/ does.
"""
import inspect
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import zip_longest

from common import QUICK, ROOT, bigramv2, peak, torch, write
from torch import nn

ROUNDS = 5 if QUICK else 15
ROWS = []
PROGRAM = f'''
import runpy, sys
from pathlib import Path

{inspect.getsource(peak)}
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name='__main__')
print('peak', round(peak() or 0))
'''


def note(*cells):
    """Print a row of the table, and keep it until `write_rows`."""
    print('| ' + ' | '.join(map(str, cells)) + ' |', flush=True)
    ROWS.append(cells)


def write_rows(name, *columns):
    """Write the table to results/, in place of the old one; cells that are missing at the end of a row are empty."""
    write(name, [dict(zip_longest(columns, cells, fillvalue='')) for cells in ROWS])


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(*works, rounds=ROUNDS, warm_up=2):
    """The median seconds of each of the works, run in turn."""
    times = [[seconds(work) for work in works] for _ in range(rounds + warm_up)][warm_up:]
    return [statistics.median(column) for column in zip(*times)]


def command(*words, cwd=ROOT):
    """Run a command of Python as a whole process; return its seconds and what it printed."""
    start = time.perf_counter()
    printed = subprocess.run([sys.executable, *map(str, words)], cwd=cwd, stdout=subprocess.PIPE, check=True,
                             encoding='utf-8', env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''}).stdout
    return time.perf_counter() - start, printed


def with_peak(*words, cwd=ROOT):
    """The same for a script, and its peak memory in MB (0 where the system does not tell)."""
    took, printed = command('-c', PROGRAM, *words, cwd=cwd)
    return took, printed, int(printed.split()[-1])


def flops_a_step():
    """6 for each weight of a matrix product and token, and the attention's two products, forward and backward."""
    g = bigramv2
    weights = 12 * g.num_layers * g.n_embd ** 2 + g.n_embd * 63
    tokens = g.batch_size * g.block_size
    return tokens * (6 * weights + 12 * g.num_layers * g.n_embd * g.block_size)


class Peer(nn.Module):
    """torch's own Transformer at the same sizes."""

    def __init__(self, vocab_size):
        super().__init__()
        g = bigramv2
        self.token, self.position = nn.Embedding(vocab_size, g.n_embd), nn.Embedding(g.block_size, g.n_embd)
        layer = nn.TransformerEncoderLayer(g.n_embd, g.num_heads, 4 * g.n_embd, 0.0, norm_first=True, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, g.num_layers, enable_nested_tensor=False)
        self.head = nn.Linear(g.n_embd, vocab_size)
        mask = nn.Transformer.generate_square_subsequent_mask(g.block_size)
        self.register_buffer('mask', mask)

    def forward(self, idx, targets):
        x = self.token(idx) + self.position.weight
        logits = self.head(self.blocks(x, mask=self.mask, is_causal=True))
        return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def training_step():
    model, peer = bigramv2.GPT(63), Peer(63)
    for p in model.parameters():
        nn.init.normal_(p, std=0.1)  # zeros would make the gradients zero
    optimizers = bigramv2.make_optimizers(model)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group['lr'] = 0.0
    adamw = torch.optim.AdamW(peer.parameters(), lr=1e-3)
    data = torch.randint(63, (100_000,)).numpy()
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)

    def passes(model):
        x, y = bigramv2.get_batch(data, step=0)
        model.zero_grad()
        model(x, y)[1].backward()

    def optimize(optimizers):
        for optimizer in optimizers:
            optimizer.step()

    def step(model, optimizers):
        passes(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimize(optimizers)

    product, both, ours, other, alone = in_turn(
        lambda: a @ b, lambda: passes(model), lambda: step(model, optimizers), lambda: step(peer, [adamw]),
        lambda: optimize(optimizers), rounds=4 * ROUNDS)
    rate, most = flops_a_step() / both / 1e9, 2 * 1024 ** 3 / product / 1e9
    note('forward and backward, GFLOP/s, against a 1024³ product', f'{rate:.0f}', f'{most:.0f}', f'{rate / most:.0%}')
    note('optimisers in a step, ms', f'{1000 * alone:.1f}', f'{1000 * ours:.1f}', f'{alone / ours:.0%}')
    note('a step, ms, against nn.TransformerEncoder with AdamW', f'{1000 * ours:.1f}', f'{1000 * other:.1f}',
         f'{ours / other:.2f} times')


def sampling(layers, channels, heads, block, count):
    vars(bigramv2).update(num_layers=layers, n_embd=channels, num_heads=heads, block_size=block)
    model, first = bigramv2.GPT(63).eval(), torch.zeros(1, 1, dtype=torch.long)

    def write(cache, n):
        bigramv2.kv_cache = cache
        model.generate(first, n)

    with_cache, without = in_turn(lambda: write(True, count), lambda: write(False, count), rounds=3 if QUICK else 5,
                                  warm_up=1)
    note(f'characters/s, {layers} layers, {channels} channels, block {block}: cache, no cache',
         f'{count / with_cache:.0f}', f'{count / without:.0f}', f'{without / with_cache:.1f} times')


def starting():
    with tempfile.TemporaryDirectory() as folder:
        works = [('-c', 'import torch'), ('-c', 'import torch, bigramv2'),
                 ('bigramv2.py', '--device', 'cpu', '--max_iters', 1, '--max_new_tokens', 1, '--out_dir', folder)]
        runs = [[command(*words)[0] for words in works] for _ in range(ROUNDS)]
    bare, imported, whole = (statistics.median(column) for column in zip(*runs))
    note('import of bigramv2, s, against import torch', f'{imported:.2f}', f'{bare:.2f}', f'{imported - bare:+z.2f} s')
    note('a training of one step as a whole process, s', f'{whole:.2f}', f'{bare:.2f}', f'{whole - bare:+.2f} s')


def first_version():
    took, printed = command('bigram.py')
    note('python bigram.py: sampled validation loss, whole process',
         f'{re.findall(r"val ([0-9.]+)", printed)[-1]}, {took:.0f} s')


def main():
    print(f'torch {torch.__version__}, {torch.get_num_threads()} threads')
    training_step()
    sampling(3, 128, 4, 128, 200 if QUICK else 500)
    sampling(6, 384, 6, 256, 60 if QUICK else 300)
    starting()
    if not QUICK:
        first_version()
    write_rows('benchmark.csv', 'what', 'here', 'other', 'ratio')


if __name__ == '__main__':
    main()
