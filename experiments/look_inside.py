"""A page to look inside your own model: python experiments/look_inside.py, after a training

Writes model.html beside the model: one file that a browser opens and that needs nothing else. In it are the weights,
the forward pass in JavaScript (look_inside/forward.js, and products.js for speed), and some of torch's logits, with
which the page compares its own. The model is the newest in out/, or that of the run whose folder you name:

    python experiments/look_inside.py out/2 --prompt 'ROMEO:\\n'
"""
import base64
import json
import re
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import looks  # noqa: E402

import bigramv2  # noqa: E402

FOLDER = ROOT / 'experiments' / 'look_inside'
SIZES = 'block_size', 'n_embd', 'num_heads', 'num_layers'
VERSE = 'ROMEO:\nBut, soft! what light through yon'  # as in the pictures
WINDOWS = 50  # of the validation text, for what the heads look for


def beginning(model, vocab):
    """The text that the page begins with: the prompt, or the verse if the model knows its characters, or its own."""
    prompt = next(bigramv2.characters(model, vocab, 0))  # refuses a character that the model does not know
    if prompt or set(VERSE) <= set(vocab):
        return prompt or VERSE
    return ''.join(bigramv2.characters(model, vocab, len(VERSE)))


def learners_text(vocab, text):
    """Tokens (B, T) to measure the heads on, and what they are: of the validation text, if tokens/ fits the model.

    Otherwise they are those of the text with which the page begins.
    """
    T, meta = bigramv2.block_size, Path('tokens/meta.json')
    if meta.exists() and json.loads(meta.read_text())['vocab'] == vocab:
        data = np.memmap('tokens/val.bin', dtype='<u2', mode='r')                                # (N,)
        if len(data) > T:
            starts = np.linspace(0, len(data) - T - 1, WINDOWS).astype(np.int64)                 # (B,)
            return bigramv2.windows(data, starts)[0], f'{WINDOWS} windows of the validation text'
    return bigramv2.encode(text[-T:] or vocab[0], vocab), 'the text with which this page begins'


def at_once(weights):
    """Weights by name; the matrices of MultiHeadAttention's heads are laid side by side, as MultiHeadAttn has them."""
    joined = {}
    for name, weight in weights.items():
        joined.setdefault(re.sub(r'heads\.\d+\.', '', name), []).append(weight)
    return {name: torch.cat(weights) for name, weights in joined.items()}


@torch.no_grad()
def page(model, saved, text, temperature=1.0):
    """The page as HTML. What it must know of the model is JSON, where no character can be taken for markup."""
    weights, vocab = at_once(model.state_dict()), saved['vocab']
    tokens = torch.randint(len(vocab), (bigramv2.block_size,), generator=torch.Generator().manual_seed(1))
    positions = [0, len(tokens) // 2, len(tokens) - 1]
    logits = model(tokens[None])[0][0, positions]  # (3, V)
    if not torch.isfinite(logits).all():
        bigramv2.fail('the model computes no finite numbers: train again')
    windows, source = learners_text(vocab, text)
    facts = {
        'vocab': vocab, 'step': saved['step'], 'best': saved['best'], 'text': text,
        'sizes': {name: getattr(bigramv2, name) for name in SIZES} | {'vocab_size': len(vocab)},
        'sampling': {'temperature': temperature, 'top_k': bigramv2.top_k},
        'looks': {'in': source, 'shares': [*looks.shares(model, vocab, windows).values()]},  # the first is chance
        'torch': {'tokens': tokens.tolist(), 'positions': positions, 'logits': logits.tolist()},
        'parts': [(name, weight.numel()) for name, weight in weights.items()],
        'weights': base64.b64encode(b''.join(w.numpy().astype('<f4').tobytes() for w in weights.values())).decode(),
    }
    html = (FOLDER / 'page.html').read_text(encoding='utf-8')
    for name in ('forward.js', 'products.js'):
        html = html.replace(f'/* {name} */', (FOLDER / name).read_text(encoding='utf-8'))
    return html.replace('/* model */', json.dumps(facts).replace('<', r'\u003c'))


def main(argv):
    if argv and not argv[0].startswith('-'):
        argv = ['--out_dir', *argv]
    given = bigramv2.configure(argv)
    bigramv2.device = 'cpu'
    path = bigramv2.newest('model.pt')
    model, saved = bigramv2.load(path, given)
    text = beginning(model.eval(), saved['vocab'])
    data = page(model, saved, text, given.get('temperature', 1.0)).encode()
    path.with_suffix('.html').write_bytes(data)
    print(f'{path.with_suffix(".html")} ({len(data) / 1e6:.1f} MB): open it in a browser')


if __name__ == '__main__':
    main(sys.argv[1:])
