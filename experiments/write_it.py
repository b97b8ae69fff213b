"""Write the GPT yourself: python experiments/write_it.py

The first time, this makes mine.py in the folder where you are. It is bigram.py without the bodies of ten functions: of
each body only the comments are left, as an outline. Write the bodies, in any order. The same command then checks them.

    python experiments/write_it.py                 make mine.py, or check it
    python experiments/write_it.py 2               the same for five parts of chapter two: mine2.py, from bigramv2.py
    python experiments/write_it.py Head            check one part alone
    python experiments/write_it.py Head --answer   show the answer to this part

A part is checked by itself: the others are taken from bigram.py while it runs. It gets random input and random weights,
and its results are compared with those of bigram.py's own. If they differ, they are compared with those of known
mistakes: bigram.py's own lines, spoilt (see PARTS). So a sentence names a mistake only if your part computes exactly
what this mistake computes. Any other mistake gets the first number that differs.
"""
import argparse
import ast
import contextlib
import faulthandler
import io
import json
import re
import subprocess
import sys
import tempfile
import textwrap
import tokenize
import traceback
import types
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from unittest import mock

if __name__ != '__main__':  # in the process that checks, and in the tests; the one that reports starts at once
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    KERNEL = F.scaled_dot_product_attention

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = {1: ('bigram.py', 'mine.py'), 2: ('bigramv2.py', 'mine2.py')}
B, T, C, H, D, V = 2, 8, 12, 3, 4, 7  # small, and no two are equal, so that a wrong shape shows
SIZES = dict(block_size=T, n_embd=C, num_heads=H, num_layers=2, batch_size=5, dropout=0.5, device='cpu')
ZEROS = 'with a g of zeros, as some first gradients are'
HALF = 'it is right without a cache'
LIMIT = 20  # seconds for a part, which needs a fraction of one


# ---------------------------------------------------------------- trying a part
# Each function runs a part of a module m, which is the learner's file or the script, and returns what it gives.

class Mistake(Exception):
    """A sentence for the learner."""


def kind(value):
    return 'None' if value is None else f'a {type(value).__name__}'


def several(result, *names):
    """The parts of a result by name."""
    if not isinstance(result, tuple | list) or len(result) != len(names):
        raise Mistake(f'it returns {kind(result)}, and should return {", ".join(names)}')
    return dict(zip(names, result))


def shaped(value, shape, name='result', dtype=None):
    """The value, which has to be a tensor of this shape and type."""
    wrong = difference(value, torch.empty(shape, dtype=dtype), name, numbers=False)
    if wrong:
        raise Mistake(wrong)
    return value


def call(function, *args):
    """What a function returns. It has to leave its arguments as they are."""
    copies = [arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args]
    result = function(*copies)
    if not all(torch.equal(arg, copy) for arg, copy in zip(args, copies) if isinstance(arg, torch.Tensor)):
        raise Mistake('it changes the tensor that it is given, as += does; make a new one, as in x = x + ...')
    return result


def new(cls, *args):
    """A module with random weights, which depend on their names and not on the order in which they were made."""
    module = cls(*args)
    for name, p in module.named_parameters():
        p.data.normal_(std=0.5, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    torch.default_generator.manual_seed(0)
    return module


def through(module, x):
    """What a module makes of x, and the gradient that comes back to x."""
    leaf = x.clone().requires_grad_()
    result = call(module, leaf * 1)
    if isinstance(result, torch.Tensor) and result.requires_grad and result.isfinite().all():
        (result * torch.arange(result.shape[-1])).sum().backward()
    return {'result': result, 'the gradient of x': leaf.grad}


def layer(make):
    """The cases of a module (B, T, C) -> (B, T, ...)."""
    return lambda m: {
        f'with x {B, T, C}': lambda: through(make(m).eval(), torch.randn(B, T, C)),
        f'with x {B, 5, C}, which is shorter than block_size': lambda: through(make(m).eval(), torch.randn(B, 5, C)),
        'in training, where dropout acts': lambda: through(make(m), torch.randn(B, T, C))}


def before_proj(module):
    """What the projection gets."""
    module.proj = nn.Identity()
    return call(module, torch.randn(B, T, C))


def sees_later(module):
    x = torch.randn(B, T, C)
    for s in range(1, T):
        changed = x.clone()
        changed[:, s] += 1
        for t in range(s):
            if not torch.allclose(module(x)[:, t], module(changed)[:, t], atol=1e-5, equal_nan=True):
                return f'position {t} sees position {s}, which comes later'


def rows_of_weights(head):
    """Whether the rows of a head's weights sum to 1: where all values are 1, its results are these sums."""
    x = torch.randn(B, T, C)
    x[..., 0] = 1
    head.value.weight.data = torch.eye(1, C).repeat(D, 1)
    for t, total in enumerate(head(x)[0, :, 0].tolist()):
        if abs(total - 1) > 1e-4:
            return f'the rows of the weights do not sum to 1: row {t} sums to {total:.2f}'


def reading(m):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'text.txt').write_bytes('\ufeff To be,\r\nor not\nto B\u00e9 \n'.encode())
        found = several(m.read(Path(folder, 'text.txt')), 'vocab', 'tokens')
    if not isinstance(found['vocab'], list | tuple | str):
        raise Mistake(f'vocab is {kind(found["vocab"])}, and should be a list')
    return found | {'vocab': list(found['vocab'])}


def read_hint(m, yours):
    vocab = yours['with a small text']['vocab']
    return ('the vocabulary has a character more than once' if len(set(vocab)) < len(vocab) else
            'the vocabulary is not sorted' if vocab != sorted(vocab) else None)


def batches(m):
    """What forty batches have in common. No token comes twice in data, so a token tells its place."""
    data = torch.randperm(20)
    starts, steps, ahead, most = set(), set(), set(), 0
    for _ in range(40):
        found = several(call(m.get_batch, data), 'x', 'y')
        x, y = (data.argsort()[shaped(value, (5, T), name, torch.long)] for name, value in found.items())
        starts |= set(x[:, 0].tolist())
        steps |= set(x.diff().flatten().tolist())
        ahead |= set((y - x).flatten().tolist())
        most = max(most, len(x[:, 0].unique()))
    return {'the way from a token of x to the next one': steps, 'the way from a token of x to that of y': ahead,
            'the number of different pieces in a batch': 'several' if most > 1 else 'one',
            'the set of places where pieces start': starts}


def on_another_device(m, function):
    """The devices of x and y on a machine with another one; meta is always there, but for what needs the numbers."""
    m.device = 'meta'
    try:
        return {f'the device of {name}': value.device.type for name, value in zip('xy', function())}
    except Exception:
        return {'the device of x': 'meta', 'the device of y': 'meta'}
    finally:
        m.device = 'cpu'


def pairs(m):
    data = torch.randint(V, (60,)) * torch.randint(2, (60,))  # token 0 is frequent
    return {'softmax(result)': F.softmax(shaped(call(m.count_pairs, data, V), (V, V)).float(), dim=-1)}


def answered(m, length, with_targets=True):
    model = new(m.GPT, V).eval()
    idx, targets = torch.randint(V, (2, B, length))
    found = several(call(model, idx, *[targets] * with_targets), 'logits', 'loss')
    if isinstance(found['loss'], torch.Tensor) and found['loss'].requires_grad:
        found['loss'].sum().backward()
    return found | {f'the gradient of {name}': p.grad for name, p in model.named_parameters()}


def elsewhere(m):
    """Where the positions are if a tensor that does not say its device goes to meta, which is always there."""
    model, idx, seen = new(m.GPT, V).eval(), torch.randint(V, (B, T)), ['meta']
    model.position_embedding.register_forward_pre_hook(lambda module, args: seen.append(args[0].device.type))
    with contextlib.suppress(Exception), torch.device('meta'):
        seen[0] = model(idx)[0].device.type
    return {'the device of the positions': 'meta' if 'meta' in seen else 'cpu'}


class Descent:
    """The simplest optimiser; it notes the order of the calls. (The first use of torch's own takes two seconds.)"""

    def __init__(self, model):
        self.model, self.calls = model, []
        model.head.bias.register_hook(lambda grad: self.calls.append('backward'))

    def zero_grad(self, set_to_none=True):
        self.calls.append('zero_grad')
        self.model.zero_grad(set_to_none)

    def step(self):
        self.calls.append('step')
        for p in self.model.parameters():
            p.data -= 0.1 * (0 if p.grad is None else p.grad)


def stepped(m, steps, look=False):
    """The last loss of some training steps, and the parameters after them; or the order of the calls."""
    model = new(reference(1).GPT, V)
    optimizer = Descent(model)
    losses = [call(m.train_step, model, optimizer, *torch.randint(V, (2, B, T))) for _ in range(steps)]
    return optimizer.calls if look else {'loss': losses[-1]} | dict(model.named_parameters())


def no_choice(idx, targets=None):
    """Logits (B, T, V) with one far above the others. Which one depends on all tokens so far, and how many they are."""
    return 50.0 * F.one_hot((idx.cumsum(1) + torch.arange(idx.shape[1])) % V, V), None


def choice(idx, targets=None):
    """Logits (B, T, V) that leave a choice, at the last position another one than before."""
    logits = torch.tensor([0.5, -1.0, 1.5, 0.0, -0.5, 1.0, -2.0])
    return torch.stack([logits.flip(0)] * (idx.shape[1] - 1) + [logits]).repeat(len(idx), 1, 1), None


def generated(m, forward, idx, count):
    model = m.GPT(V)
    model.forward = forward
    return call(model.generate, idx, count)


def shares(result, shape):
    """How often each token comes in the last column of a result."""
    return torch.bincount(shaped(result, shape, dtype=torch.long)[:, -1], minlength=V) / len(result)


def drawn(m, temperature, top_k):
    share = shares(call(m.GPT.draw, choice(torch.zeros(3000, 1))[0][:, 0], temperature, top_k), (3000, 1))
    return {'share': share, 'the set of tokens that come': not top_k or set(share.nonzero().flatten().tolist())}


def at_once(m, fused, training=False):
    m.fused_attention = fused
    return through(new(m.MultiHeadAttn, H, C, T, 0.5).train(training), torch.randn(B, T, C))


def in_training(m, fused):
    """Dropout may be for each query or for all alike, with the kernel and without."""
    found, right = at_once(m, fused, True), []
    for way in (False, True):
        torch.default_generator.manual_seed(0)
        right.append(at_once(reference(2), way, True))
    return found if all(difference(found, one) for one in right) else right[0]


def in_pieces(m, fused, *lengths):
    """The same for x in pieces, whose keys and values a cache keeps."""
    m.fused_attention, results, past = fused, [], 0
    module, cache = new(m.MultiHeadAttn, H, C, T, 0.5).eval(), torch.randn(2, B, H, T, D)
    for piece in torch.randn(B, T, C).split(lengths, dim=1):
        results.append(shaped(module(piece, cache=cache, past=past), piece.shape))
        past += piece.shape[1]
    return torch.cat(results, dim=1)


def wrong_dropout(m, yours):
    right = right_results(next(part for part in PARTS if part.name == 'MultiHeadAttn'))
    first = next(label for label in right if difference(yours[label], right[label]))
    if first.startswith('in training'):
        return 'dropout is wrong: it is on the weights (kernel: dropout_p or whole keys) and after the projection'


def rates(m, warmup_iters, max_iters):
    m.warmup_iters, m.max_iters = warmup_iters, max_iters
    scales = [m.lr_scale(step) for step in range(max_iters)]
    if None in scales:
        raise Mistake('it returns None, and should return a number')
    return {'lr_scale': torch.tensor([float(scale) for scale in scales])}


# ---------------------------------------------------------------- the parts, and their known mistakes

@dataclass(eq=False)
class Part:
    path: str            # in the file, as in Head.forward
    section: str         # of the README
    cases: object        # m -> {what is tried: a function that tries it}; a "look" only tells mistakes from each other
    mistakes: list       # (sentence, old, new, old, new, ...): some text of the part, spoilt
    hint: object = None  # (m, results) -> a sentence or None, for what no list of wrong texts can cover
    chapter: int = 1

    @property
    def name(self):
        return self.path.removesuffix('.forward').split('.')[-1]


HEADS = 'torch.cat([head(x) for head in self.heads], dim=-1)'
MASK = ".masked_fill(~self.tril[:T, :T], float('-inf'))"
WEIGHTS = 'F.softmax(scores, dim=-1)'
KEYS = 'self.attn_dropout(torch.ones_like(v[..., :1]))'
DRAW = 'torch.multinomial(probs, num_samples=1)'
PARTS = [
    Part('read', 'Text to numbers', lambda m: {'with a small text': lambda: reading(m)}, [
        ('the byte order mark at the start of the file has become a character: use utf-8-sig', '-sig', ''),
        ('a line end of two characters, \\r\\n, is not read as one', "'utf-8-sig'", "'utf-8-sig', newline=''"),
        ('tokens begin at 1, and should begin at 0', 'enumerate(vocab)', 'enumerate(vocab, 1)'),
        ('a token is the Unicode number of its character, and should be its place in the vocabulary',
         'token_of[character] for', 'ord(character) for'),
        ('spaces and line ends around the text are lost', 'file.read()', 'file.read().strip()'),
    ], read_hint),
    Part('get_batch', 'Text to numbers', lambda m: {
        'in a text of 20 tokens, where 11 is the last place with room for T + 1 of them': lambda: batches(m),
        "with device = 'meta'": lambda: on_another_device(m, lambda: m.get_batch(torch.arange(20))),
    }, [
        ('the target is the input itself, not the next character', 'i + 1:i + block_size + 1', 'i:i + block_size'),
        ('inputs and targets are exchanged', 'x = ', 'y = ', 'y = ', 'x = '),
        ('the last place where a piece can start never comes', 'len(data) - block_size', 'len(data) - block_size - 1'),
        ('the first place of the text never comes', 'randint(', 'randint(1, '),
        ('all pieces of a batch are the same one', '(batch_size,))', '(1,)).expand(batch_size)'),
        ('x and y are not on the device that computes: .to(device) is missing', '.to(device)', ''),
    ]),
    Part('count_pairs', 'Counting pairs', lambda m: {'with a text of 60 tokens': lambda: pairs(m)}, [
        ('counts start at 0, so new pairs are impossible; start at 1', 'torch.ones', 'torch.zeros'),
        ('rows and columns are exchanged: the row is for the first of a pair', '[a, b]', '[b, a]'),
        ('the columns sum to 1, not the rows', 'dim=1', 'dim=0'),
        ('each number is divided by the sum of another row: keepdim=True is missing', ', keepdim=True', ''),
        ('these are probabilities, not logits: the logarithm is missing', '.log()', ''),
        ('a pair is counted once, however often it comes', '+= n', '+= 1'),
        ('the 1 at the start is lost: counts are set, and should be added', '+= n', '= n'),
    ]),
    Part('Head.forward', 'One head in numbers', layer(lambda m: new(m.Head, D)), [
        ('the scores are not divided by the root of D', ' * k.shape[-1] ** -0.5', ''),
        ('the scores are divided by D, not by its root', '** -0.5', '** -1'),
        ('the scores are divided by the root of C, not of D', 'k.shape[-1] **', 'x.shape[-1] **'),
        ('position 0 sees position 1: the mask is missing', MASK, ''),
        ('the mask hides the position itself and all before it, not the later ones', '~self.tril', 'self.tril'),
        ('the mask needs its corner [:T, :T] where x is shorter than block_size', '[:T, :T]', ''),
        ('position 0 sees position 1: later positions get the score 0, and should get -inf', "float('-inf')", '0.0'),
        ('the mask comes after the softmax, so the rows do not sum to 1', MASK, '',
         WEIGHTS, f'{WEIGHTS}.masked_fill(~self.tril[:T, :T], 0.0)'),
        ('the softmax goes along the wrong dimension: the columns sum to 1, not the rows', 'dim=-1', 'dim=-2'),
        ('the softmax is missing', WEIGHTS, 'scores'),
        ('queries and keys are exchanged: row t is for the query of position t', 'q @ k.transpose', 'k @ q.transpose'),
        ('the weights average the keys, not the values', 'weights @ v', 'weights @ k'),
        ('dropout of the weights is missing', f'self.dropout({WEIGHTS})', WEIGHTS),
        ('dropout is on the scores, and should be on the weights', f'self.dropout({WEIGHTS})',
         'F.softmax(self.dropout(scores), dim=-1)'),
    ], lambda m, yours: sees_later(new(m.Head, D).eval()) or rows_of_weights(new(m.Head, D).eval())),
    Part('MultiHeadAttention.forward', 'Many heads', lambda m: {
        **layer(lambda m: new(m.MultiHeadAttention, H, D))(m),
        'look': lambda: before_proj(new(m.MultiHeadAttention, H, D).eval()),
    }, [
        ('the heads are summed, and should lie side by side', HEADS, 'sum(head(x) for head in self.heads)'),
        ('only the first head is used', HEADS, 'self.heads[0](x)'),
        ('the channels of the heads are mixed; those of one head should stay together', HEADS,
         'torch.stack([head(x) for head in self.heads], dim=-1).flatten(-2)'),
        ('dropout is missing', 'self.dropout(self.proj(out))', 'self.proj(out)'),
        ('the projection is missing', 'self.proj(out)', 'out'),
        ('dropout comes before the projection, and should come after it', 'self.dropout(self.proj(out))',
         'self.proj(self.dropout(out))'),
        ('x is added here already, which is the work of Block', 'return ', 'return x + '),
    ]),
    Part('FeedForward.forward', 'Feed-forward', layer(lambda m: new(m.FeedForward)), [
        ('there is no ReLU', 'F.relu(self.fc(x))', 'self.fc(x)'),
        ('there is a GELU, and should be a ReLU', 'F.relu', 'F.gelu'),
        ('the ReLU comes after the projection, and should come before it', 'F.relu(self.fc(x))', 'self.fc(x)',
         'self.proj(x)', 'F.relu(self.proj(x))'),
        ('dropout is missing', 'self.dropout(self.proj(x))', 'self.proj(x)'),
        ('the projection is missing', 'self.proj(x)', 'x'),
        ('x is added here already, which is the work of Block', 'x = F', 'old = x; x = F', 'return ', 'return old + '),
    ]),
    Part('Block.forward', 'The block', layer(lambda m: new(m.Block)), [
        ('the stream is replaced by what attention gives, not added to', 'x + self.sa', 'self.sa'),
        ('the stream is replaced by what feed-forward gives, not added to', 'x + self.ffwd', 'self.ffwd'),
        ('the norm before attention, ln1, is missing', 'self.ln1(x)', 'x'),
        ('the norm before feed-forward, ln2, is missing', 'self.ln2(x)', 'x'),
        ('ln1 is used twice; feed-forward has a norm of its own, ln2', 'self.ln2', 'self.ln1'),
        ('ln1 normalises the stream itself, and should normalise a copy', 'x + self.sa(self.ln1(x))',
         '(x := self.ln1(x)) + self.sa(x)'),
        ('ln2 normalises the stream itself, and should normalise a copy', 'x + self.ffwd(self.ln2(x))',
         '(x := self.ln2(x)) + self.ffwd(x)'),
        ('ln1 comes after the addition, on the stream; it should come before attention, on a copy',
         'x + self.sa(self.ln1(x))', 'self.ln1(x + self.sa(x))'),
        ('ln2 comes after the addition, on the stream; it should come before feed-forward, on a copy',
         'x + self.ffwd(self.ln2(x))', 'self.ln2(x + self.ffwd(x))'),
        ('attention is missing', 'x = x + self.sa(self.ln1(x))', 'pass'),
        ('feed-forward is missing', 'x = x + self.ffwd(self.ln2(x))', 'pass'),
        ('feed-forward reads the stream from before attention; it should read the one to which attention has added',
         'x = x + self.sa', 'old = x; x = x + self.sa', 'self.ln2(x)', 'self.ln2(old)'),
        ('the result of attention is lost: feed-forward is added to the stream from before it', 'x = x + self.sa',
         'old = x; x = x + self.sa', 'x = x + self.ffwd', 'x = old + self.ffwd'),
        ('the stream is changed in place (+=), and the backward pass needs what it was: write x = x + ...',
         'x = x + self.ffwd', 'x += self.ffwd'),
    ]),
    Part('GPT.forward', 'The model', lambda m: {
        f'with idx {B, T}': lambda: answered(m, T),
        f'with idx {B, 5}, which is shorter than block_size': lambda: answered(m, 5),
        'without targets, where the loss is None': lambda: answered(m, T, with_targets=False),
        'where new tensors go to another device': lambda: elsewhere(m),
    }, [
        ('the position embedding is not added', ' + self.position_embedding(positions)', ''),
        ('the positions are on the CPU, and should be on the device of idx', ', device=idx.device', ''),
        ('there are block_size positions, and should be T: a text can be shorter', 'idx.shape[1]', 'block_size'),
        ('the blocks are missing', 'x = self.blocks(x)', 'pass'),
        ('the last norm, ln, is missing', 'self.ln(x)', 'x'),
        ('a softmax comes before F.cross_entropy, which has one in itself', '(logits.f', '(logits.softmax(-1).f'),
        ('the loss is a sum, and should be a mean', 'targets.flatten())', "targets.flatten(), reduction='sum')"),
        ('a loss is computed although there are no targets', 'if targets is None:', 'if False:'),
        ('logits and loss are exchanged', 'return logits, None', 'return None, logits', 'return logits, F', 'return F',
         'targets.flatten())', 'targets.flatten()), logits'),
    ]),
    Part('train_step', 'Training', lambda m: {
        'after one step': lambda: stepped(m, 1),
        'after two steps': lambda: stepped(m, 2),
        'look': lambda: stepped(m, 2, look=True),
    }, [
        ('the gradients of all steps add up: optimizer.zero_grad() is missing', 'optimizer.zero_grad()', 'pass'),
        ('no gradient is computed: loss.backward() is missing', 'loss.backward()', 'pass'),
        ('the parameters do not change: optimizer.step() is missing', 'optimizer.step()', 'pass'),
        ('optimizer.step() comes before loss.backward()', 'loss.backward()', 'optimizer.step()',
         'optimizer.step()', 'loss.backward()'),
        ('the parameters do not change: zero_grad() clears the gradients between backward() and step()',
         'optimizer.zero_grad()', 'loss.backward()', 'loss.backward()', 'optimizer.zero_grad()'),
        ('the targets are the inputs', 'model(x, y)', 'model(x, x)'),
        ('it returns the logits, and should return the loss', 'return loss', 'return logits'),
    ]),
    Part('GPT.generate', 'Writing', lambda m: {
        'with logits that leave no choice': lambda: generated(m, no_choice, torch.randint(V, (B, 3)), 12),
        'share of each token in 3,000 draws': lambda: {
            'share': shares(generated(m, choice, torch.zeros(3000, 2, dtype=torch.long), 1), (3000, 3))},
    }, [
        ('the first position is taken, and should be the last one', 'logits[:, -1]', 'logits[:, 0]'),
        ('the model gets more than the last block_size tokens', 'idx[:, -block_size:]', 'idx'),
        ('the model gets the first block_size tokens, and should get the last ones', '-block_size:', ':block_size'),
        ('the likeliest token is taken (argmax), and should be drawn', DRAW, 'probs.argmax(-1, keepdim=True)'),
        ('the softmax is missing', 'F.softmax(logits[:, -1], dim=-1)', 'logits[:, -1]'),
        ('the beginning of the text is lost: only what the model gets should be cut',
         'logits, _ = self(idx[:, -block_size:])', 'idx = idx[:, -block_size:]; logits, _ = self(idx)'),
        ('the new token replaces the text, and should be appended', 'torch.cat((idx, new), dim=1)', 'new'),
        ('the new token is put before the text, and should be appended', '(idx, new)', '(new, idx)'),
        ('only the new tokens are returned; the text that was given belongs before them', 'return idx',
         'return idx[:, -max_new_tokens:]'),
    ]),
    Part('windows', 'The text as a file of numbers', lambda m: {
        'with starts 0, 5 and 11 in a text of 20 tokens': lambda: several(m.windows(
            np.random.default_rng(0).permutation(20).astype('<u2'), np.array([0, 5, 11])), 'x', 'y'),
        "with device = 'meta'": lambda: on_another_device(
            m, lambda: m.windows(np.arange(20, dtype='<u2'), np.arange(5))),
    }, [
        ('the target is the input itself, not the next token', 'tokens[:, 1:]', 'tokens[:, :-1]'),
        ('inputs and targets are exchanged', 'tokens[:, :-1], tokens[:, 1:]', 'tokens[:, 1:], tokens[:, :-1]'),
        ('a window has T tokens, and needs one more for the last target', 'block_size + 1', 'block_size'),
        ('starts is a row, and should become a column, starts[:, None]', '[:, None]', ''),
        ('the tokens stay uint16, and should become int64', '.astype(np.int64)', ''),
        ('x and y are not on the device that computes: .to(device) is missing',
         '.to(device)', ''),
    ], chapter=2),
    Part('MultiHeadAttn.forward', 'All heads at once', lambda m: {
        f'{what}, fused_attention = {fused}': lambda run=run, fused=fused, more=more: run(m, fused, *more)
        for what, run, *more in ((f'with x {B, T, C}', at_once),
                                 ('in training, where dropout acts', in_training),
                                 ('with a cache, and x in pieces of 3, 1 and 4', in_pieces, 3, 1, 4))
        for fused in (False, True)
    }, [
        ('', 'if fused_attention:', 'if False:'),  # no mistake, but what follows may stand in one of the two ways
        ('', 'if fused_attention:', 'if True:'),
        ('the view cuts wrongly: each head gets some positions whole. View as (B, T, H, D), then transpose',
         '.view(B, T, self.num_heads, -1).transpose(1, 2)', '.view(B, self.num_heads, T, -1)'),
        ('the heads do not move back before the reshape: transpose(1, 2) is missing', 'out.transpose(1, 2)', 'out'),
        ('the scores are not divided by the root of D', ' * k.shape[-1] ** -0.5', ''),
        ('the scores are divided by the root of C, not of D', 'k.shape[-1] **', 'C **'),
        ('position 0 sees position 1: the mask is missing', 'self.tril[past:S, :S]', 'torch.ones(T, S) > 0',
         'is_causal=T == S', 'is_causal=False'),
        ('with a cache, the mask begins at the wrong row: the first new position is row past', 'self.tril[past:S',
         'self.tril[:T'),
        ('dropout of the weights is missing', KEYS, '1', f'self.attn_dropout({WEIGHTS})', WEIGHTS),
        ('dropout acts in writing too: the kernel needs p = 0 outside training', KEYS, '1',
         'mask, is_causal', 'mask, self.attn_dropout.p, is_causal'),
        ('dropout after the projection is missing', 'self.dropout(self.proj(out))', 'self.proj(out)'),
        ('the projection is missing', 'self.proj(out)', 'out'),
        (f'{HALF}, and does not use one yet (section Writing faster)',
         'cache is not None', 'False', 'past + T', 'T', 'past:S', ':T'),
        ('keys and values are not stored in the cache', 'cache[:, :, :, past:S] =',
         'cache = cache.clone(); cache[:, :, :, past:S] ='),
    ], lambda m, yours: sees_later(new(m.MultiHeadAttn, H, C, T, 0.5).eval()) or wrong_dropout(m, yours), chapter=2),
    Part('orthogonalize', 'A better optimiser: Muon', lambda m: {
        f'with g {size}': lambda size=size: call(m.orthogonalize, torch.randn(size) / 4)
        for size in ((3, 6), (6, 3), (4, 4))
    } | {ZEROS: lambda: call(m.orthogonalize, torch.zeros(3, 6))}, [
        ('g is not divided by its norm', ' / (g.norm() + 1e-7)', ''),
        ('the step leaves out 2.0315 a @ a', 'alpha=2.0315', 'alpha=0.0'),
        ('a tall matrix does not come back tall: transpose the result', 'orthogonalize(g.T).T', 'orthogonalize(g.T)'),
        *((f'the number of steps is {n}, and should be 5', 'range(5)', f'range({n})') for n in (1, 4, 6)),
    ], lambda m, yours: 'a g of zeros is divided by 0: add a little, 1e-7, to its norm' if yours[ZEROS].isnan().any()
         and yours['with g (4, 4)'].isfinite().all() else None, chapter=2),
    Part('lr_scale', 'The learning rate', lambda m: {
        f'with warmup_iters {warmup} and max_iters {most}': lambda warmup=warmup, most=most: rates(m, warmup, most)
        for warmup, most in ((3, 12), (0, 7))
    }, [
        ('the rate of step 0 is 0, so it changes nothing', '(step + 1)', 'step'),
        ('the warm-up ends one step early: divide by warmup_iters + 1', '(warmup_iters + 1)', 'warmup_iters'),
        ('the larger of the two lines is taken, and should be the smaller', 'min(', 'max('),
        ('the warm-up is missing', '(step + 1) / (warmup_iters + 1)', '1'),
        ('the rate does not fall', '1 - step / max_iters', '1'),
        ('the two lines are multiplied; take the smaller of them', 'min((step + 1) / (warmup_iters + 1), ',
         'min((step + 1) / (warmup_iters + 1), 1) * ('),
        ('the rate begins to fall only after the warm-up', '1 - step / max_iters',
         '1 - (step - warmup_iters) / (max_iters - warmup_iters)'),
    ], chapter=2),
    Part('GPT.draw', 'Writing faster', lambda m: {
        f'share of each token in 3,000 draws, temperature {temperature}, top_k {top_k}{" (all tokens)" * (not top_k)}':
            lambda temperature=temperature, top_k=top_k: drawn(m, temperature, top_k)
        for temperature, top_k in ((1.0, 0), (0.5, 0), (2.0, 0), (1.0, 2), (0.0, 0), (1.0, 100))
    }, [
        ('the temperature changes nothing: it should divide the logits, before the softmax', '/ temperature', ''),
        ('the logits are multiplied by the temperature, and should be divided', '/ temperature', '* temperature'),
        ('at temperature 0 the likeliest token should be taken', 'if temperature < 1e-9:', 'if False:'),
        ('the likeliest token is taken (argmax), and should be drawn', 'if temperature < 1e-9:', 'if True:'),
        ('top_k is not used', 'if top_k:', 'if False:'),
        ('top_k = 0 should mean all tokens', 'if top_k:', 'if True:'),
        ('top_k may be larger than V; then it means all tokens', 'min(top_k, logits.shape[-1])', 'top_k'),
        ('the k least likely tokens are kept, and should be the likeliest', 'logits.shape[-1]))',
         'logits.shape[-1]), largest=False)'),
        ('it returns a place among the k likeliest, and should return the token there',
         "torch.full_like(logits, float('-inf')).scatter(1, tokens, kept)", 'kept'),
    ], chapter=2),
]


def parts_of(chapter):
    return [part for part in PARTS if part.chapter == chapter]


# ---------------------------------------------------------------- comparing

def visible_dropout(x, p=0.5, training=True, inplace=False):
    """In place of chance, a function of each number: it shows where dropout acts, in whatever order one computes."""
    return x + p * torch.sin(3 * x) if training else x


def visible_kernel(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, **others):
    weights = KERNEL(q, k, torch.eye(k.shape[-2]).expand(*k.shape[:-1], -1), attn_mask, 0.0, is_causal, **others)
    return visible_dropout(weights, dropout_p) @ v


def module(source, file):
    made = types.ModuleType(Path(file).stem)
    made.__file__ = file
    exec(compile(source, file, 'exec'), vars(made))
    vars(made).update(SIZES)
    return made


@cache
def reference(chapter):
    return module(script(chapter), CHAPTERS[chapter][0])


def alone(part, source, file):
    """The module of a source, with all parts but one as in the script."""
    made = module(source, file)
    for other in parts_of(part.chapter):
        if other is not part:
            mine, right = made, reference(part.chapter)
            *cls, name = other.path.split('.')
            if cls:
                vars(made).setdefault(cls[0], getattr(right, cls[0]))
                mine, right = getattr(made, cls[0]), getattr(right, cls[0])
            setattr(mine, name, vars(right)[name])
    return made


def results(part, m):
    """Yield each case of a part and what a module gives in it, a value or an exception."""
    for label, case in part.cases(m).items():
        torch.default_generator.manual_seed(0)
        with mock.patch.multiple(F, dropout=visible_dropout, scaled_dot_product_attention=visible_kernel):
            try:
                found = case()
            except (Exception, SystemExit) as error:
                found = error
        yield label, found


@cache
def right_results(part):
    return dict(results(part, reference(part.chapter)))


@cache
def spoilt(part, mistakes):
    """The script's module with one or two known mistakes in a part; None where they exclude each other."""
    source = script(part.chapter)
    node = functions(source)[part.path]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    text = textwrap.dedent('\n'.join(source.splitlines()[first - 1:node.end_lineno]))
    for _, *edits in mistakes:
        new_text = dict(zip(edits[::2], edits[1::2]))
        if not all(old in text for old in new_text):
            return None
        text = re.sub('|'.join(map(re.escape, new_text)), lambda old, new_text=new_text: new_text[old[0]], text)
    made = types.ModuleType('spoilt')
    vars(made).update(vars(reference(part.chapter)))
    exec(text, vars(made))
    if '.' in part.path:
        cls = part.path.split('.')[0]
        setattr(made, cls, type(cls, (getattr(made, cls),), {node.name: getattr(made, node.name)}))
    return made


def difference(yours, right, name='result', numbers=True):
    """The first difference in words, or None."""
    if isinstance(yours, BaseException) or isinstance(right, BaseException):
        if type(yours) is type(right) and str(yours) == str(right):
            return None
        if isinstance(yours, NotImplementedError):
            return 'the line raise NotImplementedError is still there'
        text = textwrap.shorten(str(yours), 200)
        return text if isinstance(yours, Mistake) else f'{type(yours).__name__}: {text}'
    if isinstance(right, dict):
        return next(filter(None, (difference(yours.get(key), right[key], key, numbers) for key in right)), None)
    if not isinstance(right, torch.Tensor):
        same = not isinstance(yours, torch.Tensor) and yours == right
        return None if same else f'{name} is {kind(yours) if right is None else yours}, and should be {right}'
    if isinstance(yours, int | float) and right.ndim == 0:
        yours = torch.tensor(yours, dtype=right.dtype)
    if not isinstance(yours, torch.Tensor):
        return f'{name} is {kind(yours)}, and should be a tensor'
    for what, a, b in ('shape', (*yours.shape,), (*right.shape,)), ('dtype', yours.dtype, right.dtype):
        if a != b:
            return f'the {what} of {name} is {a}, and should be {b}'
    if not torch.isfinite(yours).any():
        return f'{name} has no finite number'
    if numbers:
        wrong = ~torch.isclose(yours, right, rtol=1e-3, atol=0.05 if name == 'share' else 2e-3, equal_nan=True)
        for place in wrong.nonzero().tolist():
            a, b = (f'{value[tuple(place)].item():.4g}' for value in (yours, right))
            return f'{name}{place or ""} is {a}, and should be {b}'


def where(error, file):
    """The last line of the learner's file that an exception came through."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((frame.lineno for frame in frames if frame.filename == file), None)


def check(part, source, file='mine.py'):
    """What is wrong with a part, in a sentence, and the line where it raised an exception; None for either."""
    yours, right = dict(results(part, alone(part, source, file))), right_results(part)
    faulthandler.cancel_dump_traceback_later()  # it has come to an end
    wrong = {label: difference(yours[label], right[label]) for label in right if label != 'look'}
    label, first = next(((label, first) for label, first in wrong.items() if first), (None, None))
    if not first:
        return None, None
    error = yours[label] if isinstance(yours[label], BaseException) else None
    line = where(error, file) if error else None
    if isinstance(error, Mistake | NotImplementedError):
        return first, line
    sentence = None
    for mistakes in [*combinations(part.mistakes, 1), *combinations(part.mistakes, 1 if error else 2)]:
        m, named = spoilt(part, mistakes), '; '.join(mistake[0] for mistake in mistakes if mistake[0])
        if m and named and not any(difference(yours[label], value) for label, value in results(part, m)):
            return f'{named} ({first})' if error or first.startswith('the shape') else named, line
    if part.hint and not error and not first.startswith('the shape'):
        with contextlib.suppress(Exception):  # the learner's
            sentence = part.hint(alone(part, source, file), yours)
    return sentence or f'{first} ({label})', line


def child(chapter, names, limit):
    """In a process of its own: check the file itself, then the parts; print a line of JSON before and after each."""
    torch.set_num_threads(1)
    file = CHAPTERS[chapter][1]
    source = Path(file).read_text(encoding='utf-8-sig')
    for part in [None, *(part for part in PARTS if part.name in names)]:
        name = part.name if part else ''
        print(json.dumps([name]), flush=True)
        faulthandler.dump_traceback_later(limit, exit=True, file=2)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                sentence, line = check(part, source, file) if part else module(source, file) and (None, None)
            except (Exception, SystemExit) as error:
                sentence, line = difference(error, None), where(error, file)
        print(json.dumps([name, sentence, line, printed.getvalue()[:1000]]), flush=True)
        if not part and sentence:
            break
    faulthandler.cancel_dump_traceback_later()


# ---------------------------------------------------------------- the learner's file, and the report

def script(chapter):
    return (ROOT / CHAPTERS[chapter][0]).read_text(encoding='utf-8')


@cache
def functions(source):
    """The functions of a source as nodes of its syntax tree: {'read': ..., 'Head.forward': ...}."""
    found = {}
    for node in ast.parse(source).body:
        for inner in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(inner, ast.FunctionDef):
                found[inner.name if inner is node else f'{node.name}.{inner.name}'] = inner
    return found


def body(node):
    """Where a function's body is, without its docstring: the number of lines before it, and its last line."""
    return node.body[0].end_lineno if ast.get_docstring(node) else node.lineno, node.end_lineno


def unwritten(node):
    """Whether a function has no code but `raise NotImplementedError`, or none at all."""
    code = node.body[bool(ast.get_docstring(node)):]
    return [ast.unparse(line) for line in code] in ([], ['raise NotImplementedError'])


def answer(part):
    before, last = body(functions(script(part.chapter))[part.path])
    return '\n'.join(script(part.chapter).splitlines()[before:last])


def outline(chapter, command):
    """The learner's file: the script, with the comments of each part's body in place of the body."""
    name, file = CHAPTERS[chapter]
    source, parts = script(chapter), parts_of(chapter)
    lines, nodes = source.splitlines(), functions(source)
    comments = {token.start[0]: token.string for token in tokenize.generate_tokens(io.StringIO(source).readline)
                if token.type == tokenize.COMMENT}
    for node in sorted((nodes[part.path] for part in parts), key=lambda node: -node.lineno):  # backwards: numbers stay
        before, last = body(node)
        kept = [comments[number] for number in range(before + 1, last + 1) if number in comments]
        lines[before:last] = [' ' * node.body[0].col_offset + line for line in [*kept, 'raise NotImplementedError']]
    docstring = ast.parse(source).body[0]
    sections = '\n'.join(f'    {part.name:20}{part.section}' for part in parts)
    code = '\n'.join(lines[docstring.end_lineno:]).replace(name, file)
    return f'''"""Your own GPT: {name}, with {len(parts)} parts for you to write.

Comments are left of each part, as an outline: write the code that they describe, and delete its last line,
"raise NotImplementedError". To check what you have, as often as you like:

    {command}

The parts, and the section of the README that explains each:

{sections}

Shapes:{docstring.value.value.partition('Shapes:')[2]}"""
{code}
'''


def verdicts(chapter, names):
    """Check parts in a process of their own. Return {name: (sentence or None, line or None, what it printed)}.

    The name '' stands for the file. A part that does not end, or ends the process, is the last one of this process.
    Another one checks those after it.
    """
    found = {}
    while names and not found.get('', [None])[0]:
        code = f'import sys; sys.path.insert(0, {str(ROOT / "experiments")!r}); import write_it; write_it.child'
        process = subprocess.run([sys.executable, '-c', f'{code}({chapter}, {names}, {LIMIT})'], capture_output=True,
                                 stdin=subprocess.DEVNULL, encoding='utf-8', errors='replace')
        begun = {}
        for line in process.stdout.splitlines():
            if line.startswith('["'):  # anything else was printed behind Python's back
                last, *begun[last] = json.loads(line)
        if not begun:
            sys.exit(process.stderr)  # perhaps there is no torch
        if not begun[last]:
            line = re.search(rf'File "{CHAPTERS[chapter][1]}", line (\d+)', process.stderr)
            begun[last] = [f'it still runs after {LIMIT} seconds: an endless loop?' if 'Timeout' in process.stderr else
                           'it ends the whole process', line and int(line[1]), '']
        found |= begun
        names = [name for name in names if name not in found]
    return found


def report(chapter, parts, command):
    """Print a line for each part. Return whether all are right."""
    file = CHAPTERS[chapter][1]
    source = Path(file).read_text(encoding='utf-8-sig')
    try:
        nodes = functions(source)
    except SyntaxError as error:
        sys.exit(f'{file}, line {error.lineno}: {type(error).__name__}: {error.msg}')
    written = [part.name for part in parts if part.path in nodes and not unwritten(nodes[part.path])]
    found = verdicts(chapter, written)
    sentence, line, _ = found.get('', [None] * 3)
    if sentence:
        sys.exit(f'{file}, line {line}: {sentence}. Nothing in it can be checked before this is mended.')
    print(f'{"part":20}{"":17}{"line of " + file:18}section of the README')
    todo = []
    for place, part in enumerate(parts):
        sentence, line, printed = found.get(part.name, ['', None, ''])
        if part.path not in nodes:
            sentence = f'there is no {part.path} in {file} any more'
        half = (sentence or '').startswith(HALF)
        verdict = 'right' if sentence is None else 'half done' if half else 'wrong' if sentence else 'not written yet'
        line = line or (nodes[part.path].lineno if part.path in nodes else '')
        print(f'{part.name:20}{verdict:17}{line:<18}{part.section}')
        for text in textwrap.wrap(sentence or '', 96) + [f'it prints: {text}' for text in printed.splitlines()[:3]]:
            print(f'    {text}')
        todo += [(half, place, part.name)] * (sentence is not None)
    if todo:
        *_, first = min(todo)  # what is half done comes last
        print(f'\nRight: {len(parts) - len(todo)} of {len(parts)}. Next: {first}. If you are stuck, '
              f'see its answer:\n\n    {command} {first} --answer')
    elif len(parts) > 1:
        print(f'\nAll {len(parts)} parts are right. It is your GPT now; train it:\n\n    python {file}')
    return not todo


def main():
    if hasattr(sys.stdout, 'reconfigure'):  # a notebook's lacks it
        sys.stdout.reconfigure(encoding='utf-8')
    command = f'python {Path(sys.argv[0]).as_posix()}'
    parser = argparse.ArgumentParser(description='Write the GPT yourself, and have it checked.')
    parser.add_argument('what', nargs='?', default='1', help='chapter 1 or 2, or the name of a part')
    parser.add_argument('--answer', action='store_true', help='show the answer to this part')
    given = parser.parse_args()
    parts = [part for part in PARTS if given.what.lower() in (str(part.chapter), part.name.lower())]
    if not parts or given.answer and len(parts) > 1:
        sys.exit(f'write_it.py: the parts are {", ".join(part.name for part in PARTS)}')
    if given.answer:
        return print(answer(parts[0]))
    chapter = parts[0].chapter
    name, file = CHAPTERS[chapter]
    made = not Path(file).exists()
    if made:
        again = command + ' 2' * (chapter == 2)
        Path(file).write_text(outline(chapter, again), encoding='utf-8')
        print(f'{file} is made: {name} without the code of the parts below; its comments are left as an outline.\n'
              f'Write one, or more, in any order. The same command then checks what is there:\n\n    {again}\n')
    sys.exit(0 if report(chapter, parts, command) or made else 1)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        print('write_it.py: stopped', file=sys.stderr)
        sys.exit(130)
