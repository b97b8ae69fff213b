"""This program beside nanoGPT, in turn on one machine: python experiments/nanogpt.py PATH

PATH is a clone of https://github.com/karpathy/nanoGPT, whose prepare.py also needs the package requests. Our text is
put into its data folder. It takes about half an hour on two slow cores, and writes results/nanogpt.csv.
"""
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from benchmark import command, in_turn, long_text, whole_run, with_peak
from common import QUICK, RESULTS, ROOT, append, bigramv2, torch

RECIPE = ('config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=100 '
          '--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 '
          '--lr_decay_iters=2000 --dropout=0.0').split()  # for a CPU, from its README
TO_ITS_LOSS = ('--num_layers 2 --n_embd 96 --block_size 48 --batch_size 16 --max_iters 370 --eval_interval 370 '
               '--learning_rate 0.06 --adamw_learning_rate 0.02').split()
ROUNDS = 1 if QUICK else 3
FEW = ['--max_iters', '20'] if QUICK else []
TEXT = Path('data', 'shakespeare_char')  # where nanoGPT has its text and the script that prepares it


def note(what, theirs, ours, ratio=''):
    print('| ' + ' | '.join((what, theirs, ours, ratio)) + ' |', flush=True)
    append('nanogpt.csv', {'what': what, 'nanoGPT': theirs, 'this program': ours, 'ratio': ratio})


def their_run(nanogpt):
    """Train by the recipe: the loss of the checkpoint over the whole validation split, seconds, peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        few = ['--max_iters=20', '--eval_interval=10'] if QUICK else []
        took, _, memory = with_peak('train.py', *RECIPE, f'--out_dir={folder}', *few, cwd=nanogpt)
        saved = torch.load(Path(folder, 'ckpt.pt'))
    model = their_model(**saved['model_args'])
    model.load_state_dict(saved['model'])
    model.register_forward_pre_hook(lambda module, tensors: tuple(tensor.contiguous() for tensor in tensors))
    before, bigramv2.block_size = bigramv2.block_size, model.config.block_size
    loss = bigramv2.estimate_loss(model, bigramv2.load_data()[0]['val'], 10 ** 9)
    bigramv2.block_size = before
    print(f'  nanoGPT: validation loss {loss:.4f} after {took:.1f} s', file=sys.stderr, flush=True)
    return loss, took, memory


def their_model(**sizes):
    from model import GPT, GPTConfig  # nanoGPT's own model.py
    return GPT(GPTConfig(**sizes)).eval()


def trainings(nanogpt):
    """Its recipe, our default run and our run to its loss, in turn."""
    theirs, default, short = [], [], []
    for seed in range(1337, 1337 + ROUNDS):
        theirs.append(their_run(nanogpt))
        default.append(whole_run(seed, *FEW))
        short.append(whole_run(seed, *TO_ITS_LOSS, *FEW))
    (loss, took, memory), (our_loss, our_time, our_memory), (short_loss, short_time, _) = (
        [statistics.median(column) for column in zip(*runs)] for runs in (theirs, default, short))
    note('its CPU recipe and our default run: validation loss, seconds', f'{loss:.3f}, {took:.0f} s',
         f'{our_loss:.3f}, {our_time:.0f} s')
    note('the same runs: peak memory', f'{memory:.0f} MB', f'{our_memory:.0f} MB')
    note('to its loss: validation loss, seconds (median of 3)', f'{loss:.3f}, {took:.1f} s',
         f'{short_loss:.3f}, {short_time:.1f} s', f'{took / short_time:.1f} times')


def generating(layers, channels, heads, block, count):
    """Both models untrained, from one token on."""
    vars(bigramv2).update(num_layers=layers, n_embd=channels, num_heads=heads, block_size=block)
    ours, first = bigramv2.GPT(63).eval(), torch.zeros(1, 1, dtype=torch.long)
    theirs = their_model(block_size=block, vocab_size=63, n_layer=layers, n_head=heads, n_embd=channels, dropout=0.0,
                         bias=False)
    their_time, our_time = in_turn(lambda: theirs.generate(first, count), lambda: ours.generate(first, count),
                                   rounds=2 if QUICK else 5, warm_up=1)
    note(f'generate, characters/s: {layers} layers, {channels} channels, block {block}', f'{count / their_time:.0f}',
         f'{count / our_time:.0f}', f'{their_time / our_time:.1f} times')


def preparing(nanogpt, megabytes):
    theirs, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        long_text(folder, megabytes)
        shutil.copy(nanogpt / TEXT / 'prepare.py', Path(folder, 'their_prepare.py'))  # it reads the text beside it
        for _ in range(1 if QUICK else 5):
            theirs.append(with_peak(Path(folder, 'their_prepare.py'), cwd=folder))
            ours.append(with_peak(ROOT / 'prepare.py', cwd=folder))
    cells = [(statistics.median(took for took, *_ in runs), max(memory for *_, memory in runs))
             for runs in (theirs, ours)]
    note(f'prepare.py on {megabytes} MB: seconds, peak memory (median of 5)',
         *(f'{took:.2f} s, {memory} MB' for took, memory in cells), f'{cells[0][0] / cells[1][0]:.1f} times')


def main(nanogpt):
    bigramv2.device = 'cpu'
    sys.path.insert(0, str(nanogpt))
    (RESULTS / 'nanogpt.csv').unlink(missing_ok=True)
    shutil.copy(ROOT / 'input.txt', nanogpt / TEXT)
    command(TEXT / 'prepare.py', cwd=nanogpt)
    trainings(nanogpt)
    generating(3, 128, 4, 128, 40 if QUICK else 400)
    generating(6, 384, 6, 256, 30 if QUICK else 300)
    preparing(nanogpt, 10 if QUICK else 100)


if __name__ == '__main__':
    if len(sys.argv) != 2 or not Path(sys.argv[1], 'train.py').exists():
        sys.exit('python experiments/nanogpt.py PATH: PATH must be a clone of nanoGPT')
    main(Path(sys.argv[1]).resolve())
