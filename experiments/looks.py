"""What the heads look for in general, in numbers. look_inside.py shows them on its page, pictures.py in its table."""
import re
from itertools import product

import torch

import bigramv2


def groups(text):
    """Places that a head may look for: of each group a mask (T, T), which is True where row t finds one of its places.

    A group of your own is one more line here. It becomes a column on the page of look_inside.py.
    """
    T, pairs = len(text), list(zip(' ' + text, text))                      # each character with the one before it
    back = torch.arange(T)[:, None] - torch.arange(T)                      # (T, T): how far column s is behind row t
    codes = torch.tensor([ord(character) for character in text])           # (T,)
    same = (codes[:, None] == codes) & (back > 0)                          # (T, T): the same character, earlier
    columns = {"words' first letters": [now.isalpha() and not (old.isalpha() or old == "'") for old, now in pairs],
               "lines' first letters": [old == '\n' for old, now in pairs],
               'spaces': [now == ' ' for old, now in pairs], 'line ends': [now == '\n' for old, now in pairs]}
    return {'itself': back == 0, 'the one before': back == 1, '2 to 4 back': (back >= 2) & (back <= 4),
            'the same character': same, 'what followed the same': same.roll(1, dims=1) & (back > 0),
            **{name: torch.tensor(places).expand(T, T) for name, places in columns.items()}}


@torch.no_grad()
def weights_on(model, tokens):
    """The attention weights (layers * H, T, T) on tokens (1, T), as they pass through the dropout of the formula."""
    T, seen, fused = tokens.shape[1], [], bigramv2.fused_attention
    hooks = [module.register_forward_hook(lambda module, inputs, out: seen.append(out.view(-1, T, T)))
             for name, module in model.named_modules() if re.search(r'(attn_|heads\.\d+\.)dropout$', name)]
    bigramv2.fused_attention = False
    model(tokens)
    bigramv2.fused_attention = fused
    for hook in hooks:
        hook.remove()
    return torch.cat([torch.empty(0, T, T), *seen])


def chance(T):
    """The weights (T, T) of a head that looks at all that it sees alike."""
    return torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]


def shares(model, vocab, windows):
    """The share of its weight that each head gives to each group, over windows (B, T): {(block, head): {group: share}}.

    Those of (0, 0) are the shares of chance.
    """
    total = 0
    for tokens in windows:
        masks = groups(''.join(vocab[token] for token in tokens))
        weights = torch.cat((chance(len(tokens))[None], weights_on(model, tokens[None])))         # (1 + heads, T, T)
        total += torch.einsum('hts, gts -> hg', weights, torch.stack([*masks.values()]).float())  # (1 + heads, groups)
    rows = (total / windows.numel()).tolist()
    places = [(0, 0), *product(range(1, bigramv2.num_layers + 1), range(1, bigramv2.num_heads + 1))]
    return {place: dict(zip(masks, row)) for place, row in zip(places, rows)}
