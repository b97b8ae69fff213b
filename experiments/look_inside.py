"""A page to look inside your own model: python experiments/look_inside.py, after a training

Writes out/model.html: one file that a browser opens and that needs nothing else. In it are the weights, the forward
pass in JavaScript (look_inside/forward.js, and products.js for speed), and some of torch's logits, with which the page
compares its own.
"""
import base64
import json
import re
import sys
from itertools import islice
from pathlib import Path

import torch
from common import ROOT, bigramv2

FOLDER = ROOT / 'experiments' / 'look_inside'
SIZES = 'block_size', 'n_embd', 'num_heads', 'num_layers'
VERSE = 'ROMEO:\nBut, soft! what light through yon'  # as in the pictures


def load(argv):
    """The model in out_dir, read and checked as for --sample_only, what was saved with it, and the flags given."""
    given = bigramv2.configure(argv)
    model, saved = bigramv2.load('model.pt', given, free={'seed'})
    return model.cpu().eval(), saved, given


def beginning(model, vocab, given):
    """The text that the page begins with: the prompt if one is given, the verse if the model knows its characters."""
    if 'prompt' in given:
        bigramv2.first_tokens(vocab)  # refuses a character that the model does not know
        return given['prompt']
    if set(VERSE) <= set(vocab):
        return VERSE
    torch.manual_seed(bigramv2.seed)
    return bigramv2.decode(islice(model.stream(torch.tensor([[0]])), len(VERSE)), vocab)


def at_once(weights):
    """Weights by name; the matrices of MultiHeadAttention's heads are laid side by side, as MultiHeadAttn has them."""
    joined = {}
    for name, weight in weights.items():
        joined.setdefault(re.sub(r'heads\.\d+\.', '', name), []).append(weight)
    return {name: torch.cat(weights) for name, weights in joined.items()}


@torch.no_grad()
def page(model, saved, text):
    """The page as HTML. What it must know of the model is JSON, where no character can be taken for markup."""
    weights = at_once(model.state_dict())
    tokens = torch.randint(len(saved['vocab']), (bigramv2.block_size,), generator=torch.Generator().manual_seed(1))
    positions = [0, len(tokens) // 2, len(tokens) - 1]
    logits = model(tokens[None])[0][0, positions]  # (3, V)
    if not torch.isfinite(logits).all():
        bigramv2.fail(f'{bigramv2.out_dir}/model.pt computes no finite numbers: train again')
    facts = {
        'vocab': saved['vocab'], 'step': saved['step'], 'best': saved['best'], 'text': text,
        'sizes': {name: getattr(bigramv2, name) for name in SIZES} | {'vocab_size': len(saved['vocab'])},
        'sampling': {'temperature': bigramv2.temperature, 'top_k': bigramv2.top_k},
        'torch': {'tokens': tokens.tolist(), 'positions': positions, 'logits': logits.tolist()},
        'parts': [(name, weight.numel()) for name, weight in weights.items()],
        'weights': base64.b64encode(b''.join(w.numpy().astype('<f4').tobytes() for w in weights.values())).decode(),
    }
    html = (FOLDER / 'page.html').read_text(encoding='utf-8')
    for name in ('forward.js', 'products.js'):
        html = html.replace(f'/* {name} */', (FOLDER / name).read_text(encoding='utf-8'))
    return html.replace('/* model */', json.dumps(facts).replace('<', r'\u003c'))


def main():
    model, saved, given = load(sys.argv[1:])
    data = page(model, saved, beginning(model, saved['vocab'], given)).encode()
    bigramv2.write('model.html', data)
    print(f'{Path(bigramv2.out_dir, "model.html")} ({len(data) / 1e6:.1f} MB): open it in a browser')


if __name__ == '__main__':
    main()
