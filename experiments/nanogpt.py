"""This program beside nanoGPT, in turn on one machine: python experiments/nanogpt.py PATH

PATH is a clone of https://github.com/karpathy/nanoGPT, whose prepare.py also needs the package requests. Our text is
put into its data folder. First its CPU recipe is trained at three other learning rates. Then five runs follow one
another, three times: the recipe, the same at the best rate (tuned), our default, and our runs to its two losses. Writes
results/nanogpt.csv.
"""
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from benchmark import command, in_turn, note, with_peak, write_rows
from common import ARGS, QUICK, ROOT, bigramv2, torch
from torch.nn import functional as F

RECIPE = ('config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=100 '
          '--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 '
          '--lr_decay_iters=2000 --dropout=0.0').split()  # for a CPU, from its README
RATES = 0.001, 0.004, 0.006, 0.008  # the first is that of the recipe; each falls to a tenth
# The shortest runs of ours that were found to end below its loss and below its tuned loss
SHORT = ('--num_layers 2 --n_embd 64 --block_size 64 --batch_size 16 --learning_rate 0.05 --adamw_learning_rate 0.02 '
         '--eval_interval 1000 --max_iters').split()
TO_ITS_LOSS, TO_ITS_TUNED_LOSS = [*SHORT, 380], [*SHORT, 850]
ROUNDS = 1 if QUICK else 3
TEXT = Path('data', 'shakespeare_char')  # where nanoGPT has its text and the script that prepares it


class Run(NamedTuple):
    model: torch.nn.Module
    loss: float     # over the whole validation split
    seconds: float  # of the whole process
    memory: float   # peak, in MB


def mean_loss(model, T, starts, first=0):
    """The loss of a model on windows of T characters of the validation split, at the places starts (B,).

    Only positions from `first` on count.
    """
    bigramv2.block_size, data, total = T, bigramv2.load_data()[0]['val'], 0.0
    for batch in np.split(starts, range(16, len(starts), 16)):
        x, y = bigramv2.windows(data, batch)                                       # (16, T) each
        with torch.no_grad():
            logits = model.eval()(x, y.contiguous())[0][:, first:]                 # (16, T - first, V)
        total += F.cross_entropy(logits.flatten(0, 1), y[:, first:].flatten()).item() * len(batch)
    return total / len(starts)


def whole_split(model, T, step, first=0):
    """The same with a window every `step` characters."""
    starts = np.arange(0, len(bigramv2.load_data()[0]['val']) - T, step)
    return mean_loss(model, T, starts[:4] if QUICK else starts, first)


def finished(what, model, T, seconds, memory):
    run = Run(model, whole_split(model, T, T), seconds, memory)
    print(f'  {what}: validation loss {run.loss:.4f} after {seconds:.1f} s', flush=True)
    return run


def their_model(**sizes):
    from model import GPT, GPTConfig  # nanoGPT's own model.py
    return GPT(GPTConfig(**sizes))


def their_run(nanogpt, rate):
    few = ['--max_iters=20', '--eval_interval=10'] if QUICK else []
    with tempfile.TemporaryDirectory() as folder:
        took, _, memory = with_peak('train.py', *RECIPE, f'--learning_rate={rate}', f'--min_lr={rate / 10}',
                                    f'--out_dir={folder}', *few, cwd=nanogpt)
        saved = torch.load(Path(folder, 'ckpt.pt'))
    model = their_model(**saved['model_args'])
    model.load_state_dict(saved['model'])
    return finished(f'nanoGPT at {rate}', model, saved['model_args']['block_size'], took, memory)


def our_run(seed, *flags):
    few = ['--max_iters', 20] if QUICK else []
    with tempfile.TemporaryDirectory() as folder:
        took, _, memory = with_peak('bigramv2.py', '--seed', seed, '--out_dir', folder, '--device', 'cpu', *flags, *few)
        model, saved = bigramv2.load(Path(folder, '1', 'model.pt'))
    return finished(f'ours, seed {seed}', model, saved['hyperparameters']['block_size'], took, memory)


def trainings(nanogpt):
    """Its recipe, the tuned one, our default run and our runs to its losses, in turn. Returns the second and third."""
    losses = {rate: their_run(nanogpt, rate).loss for rate in RATES[1:]}
    best = min(losses, key=losses.get)
    rounds = [(their_run(nanogpt, RATES[0]), their_run(nanogpt, best), our_run(seed), our_run(seed, *TO_ITS_LOSS),
               our_run(seed, *TO_ITS_TUNED_LOSS)) for seed in range(1337, 1337 + ROUNDS)]
    recipe, tuned, default, short, short_tuned = (
        Run(None, *map(statistics.median, list(zip(*runs))[1:])) for runs in zip(*rounds))
    for name, theirs in ('its CPU recipe', recipe), (f'its recipe tuned (learning rate {best})', tuned):
        note(f'{name} and our default run: validation loss, seconds', f'{theirs.loss:.3f}, {theirs.seconds:.0f} s',
             f'{default.loss:.3f}, {default.seconds:.0f} s')
    note('the same runs: peak memory', f'{tuned.memory:.0f} MB', f'{default.memory:.0f} MB')
    for name, theirs, ours in ('its loss', recipe, short), ('its tuned loss', tuned, short_tuned):
        note(f'to {name}: validation loss, seconds (median of {ROUNDS})', f'{theirs.loss:.3f}, {theirs.seconds:.1f} s',
             f'{ours.loss:.3f}, {ours.seconds:.1f} s', f'{theirs.seconds / ours.seconds:.1f} times')
    note(f'its recipe at the learning rates {", ".join(map(str, RATES))}',
         ', '.join(f'{loss:.3f}' for loss in (recipe.loss, *losses.values())))
    return rounds[0][1].model, rounds[0][2].model


def protocols(theirs, ours):
    """The loss of the same weights, measured in three ways."""
    models = (theirs, theirs.config.block_size), (ours, bigramv2.HYPERPARAMETERS['block_size'])
    rng, most = np.random.default_rng(1), len(bigramv2.load_data()[0]['val'])
    note('the same weights: over the whole text, windows side by side',
         *(f'{whole_split(model, T, T):.3f}' for model, T in models))
    estimates = [[mean_loss(model, T, rng.integers(most - T, size=240)) for _ in range(2 if QUICK else 20)]
                 for model, T in models]
    note("nanoGPT's estimate, 20 batches of 12 random windows: lowest and highest of 20",
         *(f'{min(some):.3f} to {max(some):.3f}' for some in estimates))
    note('over the whole text, each character with at least half a window before it',
         *(f'{whole_split(model, T, T // 2, T // 2):.3f}' for model, T in models))


def generating(layers, channels, heads, block, count):
    """Both models untrained, from one token on."""
    vars(bigramv2).update(num_layers=layers, n_embd=channels, num_heads=heads, block_size=block)
    ours, first = bigramv2.GPT(63).eval(), torch.zeros(1, 1, dtype=torch.long)
    theirs = their_model(block_size=block, vocab_size=63, n_layer=layers, n_head=heads, n_embd=channels, dropout=0.0,
                         bias=False).eval()
    their_time, our_time = in_turn(lambda: theirs.generate(first, count), lambda: ours.generate(first, count),
                                   rounds=2 if QUICK else 5, warm_up=1)
    note(f'generate, characters/s: {layers} layers, {channels} channels, block {block}', f'{count / their_time:.0f}',
         f'{count / our_time:.0f}', f'{their_time / our_time:.1f} times')


def preparing(nanogpt, megabytes):
    theirs, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        text = (ROOT / 'input.txt').read_bytes()
        Path(folder, 'input.txt').write_bytes(text * (megabytes * 10 ** 6 // len(text) + 1))
        shutil.copy(nanogpt / TEXT / 'prepare.py', Path(folder, 'their_prepare.py'))  # it reads the text beside it
        for _ in range(1 if QUICK else 5):
            theirs.append(with_peak(Path(folder, 'their_prepare.py'), cwd=folder))
            ours.append(with_peak(ROOT / 'prepare.py', cwd=folder))
    cells = [(statistics.median(took for took, *_ in runs), max(memory for *_, memory in runs))
             for runs in (theirs, ours)]
    note(f'prepare.py on {megabytes} MB: seconds (median of 5), highest peak memory',
         *(f'{took:.2f} s, {memory} MB' for took, memory in cells), f'{cells[0][0] / cells[1][0]:.1f} times')


def main(nanogpt):
    sys.path.insert(0, str(nanogpt))
    shutil.copy(ROOT / 'input.txt', nanogpt / TEXT)
    command(TEXT / 'prepare.py', cwd=nanogpt)
    protocols(*trainings(nanogpt))
    generating(3, 128, 4, 128, 40 if QUICK else 400)
    generating(6, 384, 6, 256, 30 if QUICK else 300)
    preparing(nanogpt, 10 if QUICK else 100)
    write_rows('nanogpt.csv', 'what', 'nanoGPT', 'this program', 'ratio')


if __name__ == '__main__':
    if len(ARGS) != 1 or not Path(ARGS[0], 'train.py').exists():
        sys.exit('python experiments/nanogpt.py PATH: PATH must be a clone of nanoGPT')
    main(Path(ARGS[0]).resolve())
