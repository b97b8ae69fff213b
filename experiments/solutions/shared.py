"""What the solutions share: bigramv2.py with some lines changed, a text as tokens, a training, and the report.

Every solution has the same parts. Its docstring answers the exercise. before() is what you start from, after() is what
the exercise asks for, and check() tells the two apart. Where a longer training shows more, long_check() does it.
A solution changes no file. It reads your bigramv2.py, so it checks your own changes too:

    python experiments/solutions/08_half_cosine.py            seconds
    python experiments/solutions/13_rotary.py --long          up to minutes
"""
import re
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
SMALL = dict(n_embd=64, block_size=64, num_layers=2, eval_interval=100)  # the small training of the exercises
SHAKESPEARE = (ROOT / 'input.txt').read_text(encoding='utf-8')
sys.path.insert(0, str(ROOT))


def program(*edits, file='bigramv2.py', **settings):
    """A program of this project as a new module, on the CPU.

    Each edit (old, new) replaces a part of its source, and settings replace the values at its top. The module has
    nothing to do with an imported bigramv2, so no change lives longer than the module.
    """
    source = (ROOT / file).read_text(encoding='utf-8')
    for old, new in edits:
        if source.count(old) != 1:
            raise LookupError(f'{file} has this {source.count(old)} times, and the solution changes it once: {old}')
        source = source.replace(old, new)
    module = ModuleType(file.removesuffix('.py'))
    exec(compile(re.sub('^device = .*', "device = 'cpu'", source, flags=re.M), file, 'exec'), vars(module))
    vars(module).update(settings)
    return module


def tokens(text):
    """What prepare.py makes of a text, but in memory: {'train': (N,), 'val': (M,)}, and the vocabulary."""
    vocab = ''.join(sorted(set(text)))
    token_of = {character: token for token, character in enumerate(vocab)}
    data = np.array([token_of[character] for character in text], dtype='<u2')
    cut = len(data) * 9 // 10
    return {'train': data[:cut], 'val': data[cut:]}, vocab


def new_model(program, vocab_size=63):
    torch.manual_seed(program.seed)
    return program.GPT(vocab_size)


def shaken(module):
    """Random weights everywhere. A new GPT's last matrices are zero, and would hide what the others do."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=0.2)
    return module.eval()


def learn(program, text=SHAKESPEARE):
    """Train on a text. Return the model and a row (step, train loss, validation loss) for each look at the loss."""
    data, vocab = tokens(text)
    model, rows, start = new_model(program, len(vocab)), [], time.perf_counter()
    for step in program.train(model, program.make_optimizers(model), data['train']):
        rows.append((step, *(program.estimate_loss(model, data[split], program.eval_windows) for split in data)))
        if '--long' in sys.argv:
            print('step {:5}   train {:.4f}   val {:.4f}'.format(*rows[-1]), f'  {time.perf_counter() - start:.0f} s')
    return model, rows


def main(before, after, check, long_check=None):
    """Report on what is there now, and on the solution."""
    if '--long' in sys.argv:
        check = long_check or sys.exit('This exercise has no long check')
    for name, make in ('As it is now', before), ('The solution', after):
        try:
            print(f'{name}: passes. {check(make())}', flush=True)
        except AssertionError as e:
            print(f'{name}: does not pass. {e}', flush=True)
        except LookupError as e:
            print(f'{name}: not tried, because you have changed its place. {e}')
