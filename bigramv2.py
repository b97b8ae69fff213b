"""A character-level GPT that trains in minutes on a laptop: python prepare.py, then python bigramv2.py

This is chapter two; bigram.py is chapter one. The model is the same Transformer, with all attention heads computed at
once, an optimiser that learns faster, and a cache that makes writing fast. The ideas end at the line "plumbing".

Shapes: B batch, T time (positions), C channels (n_embd), H heads, D head size (C / H), V vocabulary.
"""
import os
from itertools import islice

import numpy as np
import torch
import torch.nn as nn
from torch.nn import functional as F

# Hyperparameters: numbers, text, True or False. Edit them here, or set them for one run, as with --n_embd 192

block_size = 128             # T: how many characters the model sees at once
n_embd = 128                 # C: channels, the width of the residual stream
num_heads = 4                # H: attention heads in a block, each of size D = C / H
num_layers = 3               # how many blocks, one after the other
dropout = 0.0                # share of numbers set to 0 in training, against overfitting
batch_size = 12              # B: windows of text in a training step
max_iters = 2000             # training steps
eval_interval = 200          # steps between two measurements of the loss; each also saves the run
eval_windows = 100           # windows of T characters in such a measurement, from each split
learning_rate = 0.025        # of Muon, for the matrices inside the blocks
adamw_learning_rate = 0.008  # of AdamW, for all other parameters
warmup_iters = 10            # steps in which both learning rates rise; then they fall to 0
weight_decay = 0.0           # how strongly Muon pulls its matrices towards 0, against overfitting
grad_clip = 1.0              # longer gradients are shortened to this length; 0: never
seed = 1337                  # same seed, same machine: same result (on a CPU)
HYPERPARAMETERS = {name: value for name, value in globals().items()  # they are saved with the model
                   if type(value) in (bool, int, float, str) and name[0] != '_'}

# Options. They say how a run computes, and how and where it writes. They are not saved.

device = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
compile = True               # compile the model with torch.compile (on CUDA; it needs Triton and a C compiler)
fused_attention = device != 'mps'  # attention by torch's fused kernel; otherwise line by line, as on a Mac's GPU
kv_cache = True              # when writing, keep the keys and values of earlier characters
resume = False               # continue the run whose checkpoint is in out_dir
sample_only = False          # write with the model in out_dir; do not train
prompt = ''                  # the beginning of the text, which the model continues
max_new_tokens = 500         # how many characters to write
temperature = 0.8            # below 1 safer, above 1 wilder; at 0 always the likeliest character
top_k = 0                    # draw only from the k likeliest characters; 0 means from all
out_dir = 'out'              # the folder for loss.csv, model.pt and checkpoint.pt
OPTIONS = {name: value for name, value in globals().items()
           if type(value) in (bool, int, float, str) and name[0] != '_' and name not in HYPERPARAMETERS}

# torchrun may start several processes. world_size says how many there are, and rank which one this is.
torchrun = 'TORCHELASTIC_RUN_ID' in os.environ
rank = int(os.environ['RANK']) if torchrun else 0
world_size = int(os.environ['WORLD_SIZE']) if torchrun else 1


# ---------------------------------------------------------------- data

def encode(text, vocab):
    """Turn text into tokens (1, T): the token of a character is its place in vocab, a string."""
    return torch.tensor([[vocab.index(character) for character in text]], dtype=torch.long, device=device)


def decode(tokens, vocab):
    """Turn tokens (T,) back into text."""
    return ''.join(vocab[token] for token in tokens)


def windows(data, starts):
    """Cut windows out of data (N,) at the places starts (B,): inputs (B, T), and as targets (B, T) the next tokens."""
    places = starts[:, None] + np.arange(block_size + 1)                 # (B, 1) + (T + 1,) -> (B, T + 1)
    tokens = torch.from_numpy(data[places].astype(np.int64)).to(device, non_blocking='cuda' in device)  # (B, T + 1)
    return tokens[:, :-1], tokens[:, 1:]


def get_batch(data, step):
    """The batch of a step: inputs (B, T) and targets (B, T), cut out of data (N,). Several processes share it.

    Each window begins 0.618 of the text (1 / golden ratio) after the one before, in a circle. Such places cover the
    text more evenly than random ones. They depend only on the seed and the step, so a resumed run takes the same ones.
    """
    numbers = step * batch_size + np.arange(batch_size)                  # (B,): windows are numbered from step 0 on
    shares = (np.random.default_rng(seed).random() + numbers * 0.6180339887498949) % 1  # (B,), of the text: 0 to 1
    starts = (shares * (len(data) - block_size)).astype(np.int64)        # (B,)
    return windows(data, starts[rank::world_size])                       # every world_size-th one is for this process


# ---------------------------------------------------------------- attention
# Vaswani et al. 2017, "Attention is all you need", section 3.2. The model uses MultiHeadAttn. Head and
# MultiHeadAttention are those of chapter one, to compare.

class Head(nn.Module):
    """One head of causal self-attention: (B, T, C) -> (B, T, D)."""

    def __init__(self, head_size):
        super().__init__()
        self.key = nn.Linear(n_embd, head_size, bias=False)
        self.query = nn.Linear(n_embd, head_size, bias=False)
        self.value = nn.Linear(n_embd, head_size, bias=False)
        self.register_buffer('tril', torch.tril(torch.ones(block_size, block_size, dtype=torch.bool)), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        T = x.shape[1]
        k, q, v = self.key(x), self.query(x), self.value(x)       # (B, T, D) each
        scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5    # (B, T, D) @ (B, D, T) -> (B, T, T)
        scores = scores.masked_fill(~self.tril[:T, :T], float('-inf'))  # no position sees a later one
        weights = self.dropout(F.softmax(scores, dim=-1))         # (B, T, T), rows sum to 1 before dropout
        return weights @ v                                        # (B, T, T) @ (B, T, D) -> (B, T, D)


class MultiHeadAttention(nn.Module):
    """Several heads side by side, each a module of its own: (B, T, C) -> (B, T, C)."""

    def __init__(self, num_heads, head_size):
        super().__init__()
        self.heads = nn.ModuleList(Head(head_size) for _ in range(num_heads))
        self.proj = nn.Linear(num_heads * head_size, n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        out = torch.cat([head(x) for head in self.heads], dim=-1)  # H times (B, T, D) -> (B, T, C)
        return self.dropout(self.proj(out))                        # (B, T, C)


class MultiHeadAttn(nn.Module):
    """The same function with all heads at once: (B, T, C) -> (B, T, C).

    One matrix holds the matrices of all heads, and H becomes a dimension of the tensors. In training there is no cache,
    so skip it for now. `GPT.write_with_cache` passes one (2, B, H, block_size, D). It holds the keys and values of the
    `past` positions before those in x.
    """

    def __init__(self, num_heads, n_embd, block_size, dropout):
        super().__init__()
        self.num_heads = num_heads
        self.key = nn.Linear(n_embd, n_embd, bias=False)
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.value = nn.Linear(n_embd, n_embd, bias=False)
        self.proj = nn.Linear(n_embd, n_embd)
        self.register_buffer('tril', torch.tril(torch.ones(block_size, block_size, dtype=torch.bool)), persistent=False)
        self.attn_dropout = nn.Dropout(dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, cache=None, past=0):
        B, T, C = x.shape
        q, k, v = (linear(x).view(B, T, self.num_heads, -1).transpose(1, 2)
                   for linear in (self.query, self.key, self.value))    # (B, T, C) -> (B, T, H, D) -> (B, H, T, D)
        S = past + T                                                    # positions to look at; in training S = T
        if cache is not None:
            cache[:, :, :, past:S] = torch.stack((k, v))                # (2, B, H, T, D), behind the earlier ones
            k, v = cache[:, :, :, :S]                                   # (B, H, S, D) each
        if fused_attention:
            p = self.attn_dropout.p if self.training else 0.0
            # If T == S, x holds all positions, and none may see a later one. Otherwise x is one new position.
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=(T == S))  # (B, H, T, D)
        else:  # the same, line by line
            scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5      # (B, H, T, D) @ (B, H, D, S) -> (B, H, T, S)
            scores = scores.masked_fill(~self.tril[past:S, :S], float('-inf'))
            weights = self.attn_dropout(F.softmax(scores, dim=-1))      # (B, H, T, S), rows sum to 1 before dropout
            out = weights @ v                                           # (B, H, T, S) @ (B, H, S, D) -> (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)                      # (B, H, T, D) -> (B, T, H, D) -> (B, T, C)
        return self.dropout(self.proj(out))                             # (B, T, C)


# ---------------------------------------------------------------- model

class FeedForward(nn.Module):
    """A small network that works on each position by itself: (B, T, C) -> (B, T, C)."""

    def __init__(self, n_embd):
        super().__init__()
        self.fc = nn.Linear(n_embd, 4 * n_embd)
        self.proj = nn.Linear(4 * n_embd, n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = F.gelu(self.fc(x))                                          # (B, T, 4C)
        return self.dropout(self.proj(x))                               # (B, T, C)


class Block(nn.Module):
    """Attention, then feed-forward. Each adds its output to the residual stream x: (B, T, C) -> (B, T, C)."""

    def __init__(self, n_embd, num_heads):
        super().__init__()
        # self.sa = MultiHeadAttention(num_heads, n_embd // num_heads)           # one module per head
        self.sa = MultiHeadAttn(num_heads, n_embd, block_size, dropout=dropout)  # all heads at once
        self.ffwd = FeedForward(n_embd)
        self.ln1 = nn.LayerNorm(n_embd)
        self.ln2 = nn.LayerNorm(n_embd)

    def forward(self, x, *cache_and_past):  # both go to MultiHeadAttn, when the model writes
        x = x + self.sa(self.ln1(x), *cache_and_past)                   # (B, T, C)
        x = x + self.ffwd(self.ln2(x))                                  # (B, T, C)
        return x


class GPT(nn.Module):
    """Predicts the next token at each position: tokens (B, T) -> logits (B, T, V)."""

    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        # Positions start as waves of many lengths, so near positions are alike (Vaswani et al. 2017, section 3.5).
        angle = torch.arange(block_size)[:, None] * 10000 ** (-torch.arange(0, n_embd, 2) / n_embd)  # (T, C / 2)
        waves = torch.cat((angle.sin(), angle.cos()), dim=-1)[:, :n_embd]                            # (T, C)
        self.position_embedding = nn.Embedding.from_pretrained(waves, freeze=False)
        self.blocks = nn.ModuleList(Block(n_embd, num_heads) for _ in range(num_layers))
        self.ln = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab_size)

        nn.init.normal_(self.token_embedding.weight, std=0.5)  # a little smaller than the waves
        # Each block starts by adding zero, and the head by giving all characters the same score: the loss is ln(V).
        for last in (self.head, *(b.sa.proj for b in self.blocks), *(b.ffwd.proj for b in self.blocks)):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, idx, targets=None, cache=None, past=0):
        """Return the logits (B, T, V) of tokens idx (B, T), and the mean loss in nats if there are targets (B, T)."""
        positions = self.position_embedding.weight[past:past + idx.shape[1]]         # (T, C)
        x = self.token_embedding(idx) + positions                                    # (B, T, C) + (T, C) -> (B, T, C)
        for i, block in enumerate(self.blocks):
            x = block(x) if cache is None else block(x, cache[i], past)              # (B, T, C)
        logits = self.head(self.ln(x))                                               # (B, T, V)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())      # (B * T, V), (B * T,) -> ()

    # ------------------------------------------------------------ sampling

    @staticmethod
    def draw(logits, temperature=1.0, top_k=0):
        """Draw a token (B, 1) from softmax(logits / temperature), for logits (B, V)."""
        logits = logits.nan_to_num()  # even a model whose numbers have overflowed can write
        if temperature < 1e-9:  # as good as 0: the likeliest
            return logits.argmax(dim=-1, keepdim=True)                               # (B, 1)
        if top_k:  # the k likeliest keep their logits; the sort is stable, so of equal ones the first stay
            order = logits.sort(dim=-1, descending=True, stable=True).indices        # (B, V)
            logits = logits.scatter(1, order[:, top_k:], float('-inf'))
        logits = logits - logits.amax(dim=-1, keepdim=True)  # the same softmax, and no overflow in the division
        probs = F.softmax(logits / temperature, dim=-1)                              # (B, V)
        return torch.multinomial(probs, num_samples=1)                               # (B, 1)

    def write(self, idx, temperature=1.0, top_k=0):
        """Continue the tokens idx (B, T) without end: yield one token (B, 1) at a time."""
        idx = idx[:, -block_size:]
        while True:
            logits, _ = self(idx)                                                    # (B, T, V)
            new = self.draw(logits[:, -1], temperature, top_k)                       # (B, 1), from the last position
            yield new
            idx = torch.cat((idx, new), dim=1)                                       # (B, T + 1)
            if idx.shape[1] > block_size:  # the window is full: continue from its last half
                idx = idx[:, -((block_size + 1) // 2):]                              # (B, half of block_size)

    def write_with_cache(self, idx, temperature=1.0, top_k=0):
        """Yield the same tokens as `write`, but pass only new tokens through the model.

        No position sees a later one. So the keys and values of earlier positions never change, and a cache keeps them.
        """
        idx, past = idx[:, -block_size:], 0
        B, D = len(idx), n_embd // num_heads
        cache = torch.empty(num_layers, 2, B, num_heads, block_size, D, device=idx.device)  # 2: keys and values
        while True:
            logits, _ = self(idx[:, past:], cache=cache, past=past)                  # (B, new positions, V)
            new = self.draw(logits[:, -1], temperature, top_k)                       # (B, 1)
            yield new
            past = idx.shape[1]
            idx = torch.cat((idx, new), dim=1)                                       # (B, T + 1)
            if idx.shape[1] > block_size:  # full: each token gets a new position, so the cache starts again
                idx, past = idx[:, -((block_size + 1) // 2):], 0

    @torch.inference_mode()
    def stream(self, idx, temperature=1.0, top_k=0):
        """Yield what `write` yields, with the cache where the attention has one."""
        cached = kv_cache and all(isinstance(block.sa, MultiHeadAttn) for block in self.blocks)
        yield from (self.write_with_cache if cached else self.write)(idx, temperature, top_k)

    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=0):
        """Continue the tokens idx (B, T): (B, T + max_new_tokens)."""
        return torch.cat([idx, *islice(self.stream(idx, temperature, top_k), max_new_tokens)], dim=1)


# ---------------------------------------------------------------- optimiser

def orthogonalize(g):
    """Return the orthogonal matrices nearest to g (n, rows, columns), roughly, by five Newton-Schulz steps.

    Let x = U S V' be the singular value decomposition of g divided by its norm. A step maps each singular value s to
    3.4445 s - 4.7750 s^3 + 2.0315 s^5, and leaves U and V. After five steps, each s that was 0.01 or more in x
    is between 0.68 and 1.14.
    """
    if g.shape[-2] > g.shape[-1]:
        return orthogonalize(g.mT).mT                     # so that a is the smaller square
    x = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)   # now no singular value is above 1
    for _ in range(5):
        a = x @ x.mT                                      # (n, rows, rows)
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)  # -4.7750 a + 2.0315 a @ a
        x = torch.baddbmm(x, b, x, beta=3.4445)           # 3.4445 x + b @ x: (n, rows, columns)
    return x


class Muon(torch.optim.Optimizer):
    """Momentum, but each step moves a matrix equally far in all directions (Jordan et al. 2024).

    The gradient of a matrix is mostly a few strong directions. In the nearest orthogonal matrix all are equally strong,
    so the weak ones are learnt as fast. The step is that of torch.optim.Muon, but in float32 and with all matrices of
    one shape in one product.
    """

    def __init__(self, params, lr, momentum=0.9, weight_decay=0.0):
        by_shape = {}  # one group for each shape, so that step can stack its matrices
        for p in params:
            by_shape.setdefault(p.shape, []).append(p)
        super().__init__([{'params': same} for same in by_shape.values()],
                         dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            params, lr, beta = group['params'], group['lr'], group['momentum']
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]  # None: p is not used
            grad = torch.stack(grads)                                                # (n, rows, columns)
            mean = self.state[params[0]].setdefault('momentum', torch.zeros_like(grad))
            mean.lerp_(grad, 1 - beta)                          # running mean: beta * mean + (1 - beta) * grad
            update = orthogonalize(grad.lerp(mean, beta))       # (n, rows, columns), mixed with grad again: Nesterov
            rows, columns = grad.shape[1:]
            for p, u in zip(params, update):                    # more outputs than inputs: a longer step
                p.mul_(1 - lr * group['weight_decay']).add_(u, alpha=-lr * max(1, rows / columns) ** 0.5)


def make_optimizers(model):
    """Muon for the matrices inside the blocks, AdamW for the rest: embeddings, head, gains and biases."""
    matrices, rest = [], []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (matrices if name.startswith('blocks.') and p.ndim == 2 else rest).append(p)
    return [Muon(matrices, lr=learning_rate, weight_decay=weight_decay),
            torch.optim.AdamW(rest, lr=adamw_learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)]


# ---------------------------------------------------------------- training

@torch.no_grad()
def estimate_loss(model, data, max_windows):
    """Mean loss per character of data (N,), in nats, without dropout.

    It is measured on at most max_windows windows, evenly spread and without overlap. They are always the same, so the
    curve shows learning and not luck.
    """
    model.eval()
    available = (len(data) - 1) // block_size
    starts = np.linspace(0, available - 1, min(max_windows, available)).astype(np.int64) * block_size  # (windows,)
    total = 0.0
    for batch in np.split(starts, range(16, len(starts), 16)):                       # 16 windows at a time
        x, y = windows(data, batch)                                                  # (16, T) each
        logits, loss = model(x, y)                                                   # (16, T, V), ()
        total += loss.item() * len(batch)
    model.train()
    return total / len(starts)


def lr_scale(step):
    """The share of the full learning rate: the smaller of a line that rises in warmup_iters and one that falls to 0."""
    return min((step + 1) / (warmup_iters + 1), 1 - step / max_iters)


def train(model, optimizers, data, start=0):
    """Train the model on data (N,), from step `start` to max_iters. Yield each step at which to measure and save."""
    bfloat16 = 'cuda' in device and torch.cuda.is_bf16_supported(including_emulation=False)  # half the bits, faster
    for step in range(start, max_iters):
        if step % eval_interval == 0:
            yield step
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group['lr'] = optimizer.defaults['lr'] * lr_scale(step)
        x, y = get_batch(data, step)                                                 # (B, T) each
        if dropout:  # its random numbers, too, depend only on the seed and the step; each process has its own
            torch.manual_seed(int(np.random.default_rng((seed, step, rank)).integers(2 ** 63)))
        with torch.autocast('cuda', torch.bfloat16, enabled=bfloat16):
            logits, loss = model(x, y)                                               # (B, T, V), ()
        loss.backward()
        if grad_clip:
            nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    yield max_iters


# ---------------------------------------------------------------- plumbing
# Nothing below is about GPT: flags, files, several processes, reports, saving.


import argparse
import io
import json
import math
import re
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from itertools import count
from pathlib import Path

LIMITS = {  # names: (the least, the most). Where these are whole, only whole numbers will do
    'block_size n_embd num_heads max_iters eval_interval eval_windows': (1, 2 ** 40),
    'num_layers': (1, 1000), 'batch_size': (1, 2 ** 20),
    'warmup_iters seed max_new_tokens top_k': (0, 2 ** 40),
    'learning_rate adamw_learning_rate weight_decay': (0.0, 1e3),
    'dropout': (0.0, 0.99), 'grad_clip': (0.0, math.inf), 'temperature': (0.0, 1e6)}
CONTINUE = 'To continue from the last save, add --resume to the same command'
NO_TOKENS = ('is missing: run python prepare.py',
             'is damaged, or the files in tokens/ do not belong together: run python prepare.py again')
# The parts of each file, and their types
MODEL = dict(weights=dict, vocab=str, hyperparameters=dict, step=int, best=float)
FILES = {'loss.csv': {}, 'model.pt': MODEL,
         'checkpoint.pt': MODEL | dict(text=int, top=dict, optimizers=list, history=str, seconds=float)}
ROWS = r'(\d{1,13}(,-?\d{1,40}\.\d+){3}\n)+'  # history, the rows of loss.csv: step,seconds,train,val


def main():
    for name, value in (HYPERPARAMETERS | OPTIONS).items():
        if globals()[name] is not value:
            fail(f'{name}, at the top, is also the name of something further down: choose another name')
    given = configure(sys.argv[1:])
    if sample_only:
        model, saved = load('model.pt', given, free={'seed'})
        return write_text(model, saved['vocab']) if rank == 0 else None

    if resume:
        model, saved = load('checkpoint.pt', given, free={'max_iters'})
    data, vocab = load_data()
    text = zlib.crc32(Path('tokens/meta.json').read_bytes())  # the checksums in it tell this text from others
    first_tokens(vocab)  # refuses a prompt with unknown characters now, not after the training
    if resume and (saved['vocab'], saved['text']) != (vocab, text):
        fail(f'the run in {out_dir}/ learnt another text than the one in tokens/: run python prepare.py on that text')
    if resume and saved['step'] >= max_iters:
        fail(f'the run in {out_dir}/ has done {saved["step"]} steps already, and max_iters is {max_iters}; '
             f'to train it further, add --max_iters {max(2 * saved["step"], saved["hyperparameters"]["max_iters"])}')
    with writing(out_dir):  # so that a folder that cannot be written to is refused before the training
        Path(out_dir).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out_dir).close()
    if world_size > 1:  # the others may have to wait while the first process writes its text
        torch.distributed.init_process_group('nccl' if 'cuda' in device else 'gloo', timeout=timedelta(hours=1))

    if not resume:
        torch.manual_seed(seed)
        model = GPT(len(vocab)).to(device)
    optimizers = make_optimizers(model)
    run = dict(vocab=vocab, text=text, hyperparameters={name: globals()[name] for name in HYPERPARAMETERS},
               top=HYPERPARAMETERS, step=0, best=math.inf, history='', seconds=0.0)
    if resume:
        remember(optimizers, saved)
        run |= {name: saved[name] for name in ('top', 'step', 'best', 'history', 'seconds')}
        if not Path(out_dir, 'model.pt').exists():
            run['best'] = math.inf  # the next measurement saves one
    follow(model, optimizers, data, run)
    if rank == 0:
        finish(model, data['val'], run)
    if world_size > 1:
        torch.distributed.barrier()  # nobody leaves while the first process still works
        torch.distributed.destroy_process_group()


def follow(model, optimizers, data, run):
    """Train the model. Every eval_interval steps measure the loss, let the model write a line, and save the run."""
    parameters, V = sum(p.numel() for p in model.parameters()), len(run['vocab'])
    say(f'{parameters / 1e6:.2f} M parameters on {device}, {V} different characters: a blind guess has loss '
        f'ln({V}) = {math.log(V):.2f}\n'
        f'{len(data["train"]):,} characters to learn from, {len(data["val"]):,} to test on\n'
        f'Saved in {out_dir}/ every {eval_interval} steps. Ctrl-C stops. {CONTINUE}')
    torch.set_float32_matmul_precision('high')  # TF32 on CUDA
    begun = time.perf_counter() - run['seconds']
    last = time.perf_counter()
    try:
        for step in train(parallel(model), optimizers, data['train'], run['step']):
            if step == run['step'] and run['history']:
                continue  # measured before the stop
            speed = (step - run['step']) * batch_size * block_size / (time.perf_counter() - last)
            losses = {split: estimate_loss(model, tokens, eval_windows) for split, tokens in data.items()}
            seconds = time.perf_counter() - begun
            if not math.isfinite(sum(losses.values())):
                fail(f'the loss is {sum(losses.values())} at step {step}: start a new run with a lower learning_rate')
            say(f'step {step:5}   train {losses["train"]:.4f}   val {losses["val"]:.4f}   '
                + (f'{speed:,.0f} characters/s   ' if step else '') + f'{clock(seconds)} elapsed'
                + (f'   {clock(seconds / step * (max_iters - step))} left' if step else ''))
            if rank == 0:
                say(' ' * 12 + sample_line(model, run['vocab']))
            record(step, seconds, losses, model, optimizers, run)
            last = time.perf_counter()
    except KeyboardInterrupt:
        saved = f'The last save is from step {run["step"]}. {CONTINUE}' if run['history'] else 'Nothing was saved yet'
        raise KeyboardInterrupt(f'Stopped. {saved}') from None
    torch.set_float32_matmul_precision('highest')  # the text is to be the same with the cache and without


def record(step, seconds, losses, model, optimizers, run):
    """Save the run as it is at this step, and the model if it is the best so far."""
    if rank == 0 and not run['history']:
        keep_old_run()
    row = f'{step},{seconds:.2f},{losses["train"]:.6f},{losses["val"]:.6f}\n'
    new = run | dict(step=step, best=min(losses['val'], run['best']), seconds=seconds, history=run['history'] + row)
    if rank == 0:
        state = new | dict(weights=model.state_dict(), optimizers=memory(optimizers))
        if new['best'] < run['best']:
            save('model.pt', {name: state[name] for name in MODEL})
        write('loss.csv', ('step,seconds,train,val\n' + new['history']).encode())
        save('checkpoint.pt', state)
    run |= new  # only now, so that a stop names the step that is in the checkpoint


def finish(model, data, run):
    """Go back to the best weights, measure their loss on data (N,), and write."""
    best = read('model.pt')
    with reading(Path(out_dir, 'model.pt')):
        model.load_state_dict(best['weights'])
    most = max(1, 10 ** 6 // block_size)  # windows: a million characters are enough of a long text
    characters = min(most, (len(data) - 1) // block_size) * block_size
    say(f'Done in {clock(run["seconds"])}. The best weights are in {out_dir}/model.pt, with validation loss '
        f'{estimate_loss(model, data, most):.4f} over {characters:,} of {len(data):,} characters.')
    rows = [line.split(',') for line in run['history'].splitlines()]
    train_loss = {int(step): float(loss) for step, _, loss, _ in rows}
    if best['step'] < 0.8 * max_iters and train_loss[max_iters] < train_loss.get(best['step'], 0):
        say(f'The validation loss was best at step {best["step"]}. From there on the model learnt its text by heart. '
            'Try dropout, a smaller model or more text.')
    say('They write:\n')
    write_text(model, run['vocab'])


def parallel(model):
    """The model for training: compiled on CUDA; with several processes, one that averages their gradients."""
    if compile and 'cuda' in device and find_spec('triton'):
        model = torch.compile(model)
    if world_size > 1:
        warnings.filterwarnings('ignore', message='.*broadcast_buffers')
        model = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)  # the masks never change
    return model


def configure(argv):
    """Set the hyperparameters and options that are given as flags. Return these, {name: value}."""
    if hasattr(sys.stdout, 'reconfigure'):  # IDLE's lacks it
        sys.stdout.reconfigure(errors='replace')  # a terminal may lack some of the text's characters
    parser = argparse.ArgumentParser(description='Train a character-level GPT, then write text with it.',
                                     allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.error = lambda message: parser.exit(2, one_line(f'{message}; see python bigramv2.py --help') + '\n')
    comments = dict(re.findall(r'^(\w+) *=.*?# *(.+)', Path(__file__).read_text(encoding='utf-8'), re.M))
    for name, value in (HYPERPARAMETERS | OPTIONS).items():
        kind = (dict(action=argparse.BooleanOptionalAction) if isinstance(value, bool) else
                dict(type=str if isinstance(value, str) else number))
        explained = f'{comments.get(name, "")} (default: {value!r})'.replace('%', '%%')
        parser.add_argument(f'--{name}', help=explained, **kind)
    given = vars(parser.parse_args(argv))
    for name, value in given.items():
        if value in ([], '--'):  # what the versions of argparse make of --name=--
            parser.error(f'argument --{name}: expected one argument')
    globals().update(given, out_dir=str(Path(given.get('out_dir', out_dir))))
    if device == 'cuda':
        globals()['device'] = f'cuda:{os.environ["LOCAL_RANK"] if torchrun else 0}'
    if device == 'mps' and torchrun:
        globals()['device'] = 'cpu'  # processes can share gradients on CUDA and CPU only
    if not resume and not sample_only:  # otherwise load takes over the saved values first
        check_values()
    return given


def number(text):
    try:
        return int(text) if len(text) < 20 else float(text)  # torch can do nothing with longer whole numbers
    except ValueError:
        return float(text)


def check_values():
    """Refuse, by name, a value that cannot work. Then make the chosen GPU the current one."""
    for names, (least, most) in LIMITS.items():
        whole = type(least) is int
        for name in names.split():
            value = globals()[name]
            if type(value) is not int and (whole or type(value) is not float) or not least <= value <= most:
                fail(f'{name} = {value!r} must be a {"whole number" if whole else "number"} from {least} to {most}')
    if n_embd % num_heads:
        fail(f'n_embd = {n_embd} must be divisible by num_heads = {num_heads}: each head gets an equal share')
    if batch_size % world_size:
        fail(f'batch_size = {batch_size} must be divisible by {world_size}: the processes share a batch equally')
    there = ['cpu', *(f'cuda:{i}' for i in range(torch.cuda.device_count()))]
    there += ['mps'] if torch.backends.mps.is_available() else []
    if device not in there:
        fail(f'device = {device!r} is not on this machine, which has {", ".join(there)}')
    if 'cuda' in device:
        torch.cuda.set_device(device)


def load_data():
    """Return the tokens of prepare.py as memory maps {'train': (N,), 'val': (M,)}, and their vocabulary."""
    path, data = Path('tokens/meta.json'), {}
    with reading(path, *NO_TOKENS):
        meta = json.loads(path.read_text(encoding='utf-8'))
        right = {split: [meta[split], meta[f'{split}_crc32']] for split in ('train', 'val')}
        checksum = zlib.crc32(meta['vocab'].encode())
    for split in right:
        path = Path(f'tokens/{split}.bin')
        with reading(path, *NO_TOKENS):
            data[split] = np.memmap(path, dtype='<u2', mode='r')
            if [len(data[split]), zlib.crc32(data[split], checksum)] != right[split]:
                raise ValueError('a checksum is wrong')
        if len(data[split]) <= block_size:
            fail(f'{path} has {len(data[split])} characters, too few for block_size = {block_size}: '
                 'make that smaller, or prepare a longer text')
    return data, meta['vocab']


@contextmanager
def reading(path, missing='does not exist: train first, with python bigramv2.py',
            damaged='is damaged, or not of this version of bigramv2.py: train again'):
    """Whatever goes wrong in reading path ends the program with one line."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        fail(f'{path} {missing}')
    except PermissionError:
        fail(f'{path} cannot be read: you lack the permission')
    except Exception as e:
        fail(f'{path} {damaged} ({type(e).__name__}: {str(e)[:200]})')


@contextmanager
def writing(path):
    """What goes wrong in writing to path ends the program with one line."""
    try:
        yield
    except (OSError, ValueError) as e:
        fail(f'cannot write to {path}: {getattr(e, "strerror", e)}; what was there before is whole')


def read(name):
    """The parts of a file that `save` wrote."""
    path = Path(out_dir, name)
    with reading(path):
        if zipfile.ZipFile(path).testzip():  # compares checksums, which torch.load does not
            raise ValueError('a checksum is wrong')
        saved = torch.load(path, map_location='cpu', weights_only=True)  # runs no code from the file
        for part, kind in FILES[name].items():
            if not isinstance(saved[part], kind) or kind in (int, float) and not 0 <= saved[part] < 1e13:
                raise ValueError(part)
        if not saved['vocab'] or name == 'checkpoint.pt' and not re.fullmatch(ROWS, saved['history']):
            raise ValueError('vocab or history')
        return saved


def load(name, given, free):
    """Return the model in out_dir/name and all that was saved with it, and take over its hyperparameters.

    A flag may change only the free ones.
    """
    saved, path = read(name), Path(out_dir, name)
    top = saved.get('top', HYPERPARAMETERS)  # of a checkpoint: what the top of this file said when the run began
    with reading(path):
        for key, own in saved['hyperparameters'].items():
            now = HYPERPARAMETERS.get(key)
            if key not in HYPERPARAMETERS:
                note(f'{path} has {key} = {own!r}, which bigramv2.py does not know')
            elif key in given and key not in free and given[key] != own:
                fail(f'{key} = {given[key]!r} contradicts {path}, which has {own!r}: leave --{key} out')
            elif key not in given or key not in free:
                globals()[key] = own
                if now not in (own, top.get(key)):
                    note(f'{path} keeps its {key} = {own!r}; the {now!r} at the top of bigramv2.py is for new runs')
    for key in HYPERPARAMETERS:
        if key not in saved['hyperparameters']:
            note(f'{path} is older than {key}: it gets {key} = {globals()[key]!r}')
    check_values()
    model = GPT(len(saved['vocab'])).to(device)
    with reading(path):
        model.load_state_dict(saved['weights'])
    return model, saved


def memory(optimizers):
    """What the optimisers keep from step to step, for one parameter after another: tensors by name."""
    return [optimizer.state.get(p, {}) for optimizer in optimizers for group in optimizer.param_groups
            for p in group['params']]


def remember(optimizers, saved):
    """Put what `memory` gave back into the optimisers."""
    for optimizer in optimizers:  # a step of length 0 gives them their tensors
        for group in optimizer.param_groups:
            group['lr'] = 0.0
            for p in group['params']:
                p.grad = torch.zeros_like(p)
        optimizer.step()
        optimizer.zero_grad()
    with reading(Path(out_dir, 'checkpoint.pt')):
        if saved['step'] and not any(saved['optimizers']):
            raise ValueError('the optimizers have no state')
        for own, kept in zip(memory(optimizers), saved['optimizers'], strict=True):
            if not kept:
                own.clear()  # a parameter that has had no gradient yet
            for name, tensor in own.items():
                if (tensor.shape, tensor.dtype) != (kept[name].shape, kept[name].dtype):
                    raise ValueError('an optimizer has other shapes')
                tensor.copy_(kept[name])


def save(name, state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with buffer.getbuffer() as data:
        write(name, data)


def write(name, data):
    """Replace out_dir/name in one move: at every instant there is one whole file, the new one or the old one."""
    path = Path(out_dir, name)
    aside = path.with_name(name + '.new')
    with writing(path):
        try:
            with open(aside, 'wb') as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def keep_old_run():
    """Move the files of an earlier run from out_dir to the first free one of out_dir/1, out_dir/2, ..."""
    old = [Path(out_dir, name) for name in FILES if os.path.lexists(Path(out_dir, name))]
    if old:
        numbered = (Path(out_dir, str(i)) for i in count(1))
        folder = next(path for path in numbered if not os.path.lexists(path))
        with writing(folder):
            folder.mkdir()
            for path in old:
                os.replace(path, folder / path.name)
        say(f'The earlier run of {out_dir}/ is now in {folder}/')


def first_tokens(vocab):
    """The tokens (1, T) of the prompt, or token 0 if it is empty."""
    unknown = [character for character in prompt if character not in vocab]
    if unknown:
        fail(f'prompt has {unknown[0]!r}, which is not in the text of the model: choose another prompt')
    return encode(prompt or vocab[0], vocab)


def sample_line(model, vocab):
    """80 characters from the model as it stands, as one line. Each time they are drawn with the same random numbers."""
    torch.manual_seed(seed)
    tokens = model.eval().generate(first_tokens(vocab), 80, temperature, top_k)[0, -80:]
    model.train()
    return ' / '.join(decode(tokens, vocab).splitlines())[:80]


def write_text(model, vocab):
    """Print the prompt and how the model continues it, each character as soon as it is drawn."""
    torch.manual_seed(seed)
    print(prompt, end='')
    for token in islice(model.eval().stream(first_tokens(vocab), temperature, top_k), max_new_tokens):
        print(vocab[token.item()], end='', flush=True)
    print()


def clock(seconds):
    return f'{int(seconds) // 60}:{int(seconds) % 60:02}'


def say(text):
    if rank == 0:
        print(text, flush=True)


def note(text):
    if rank == 0:
        print(one_line(text), file=sys.stderr)


def fail(text):
    sys.exit(one_line(text))


def one_line(text):
    return f'bigramv2.py: {" ".join(text.split())}'  # even where a path contains a line end


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt as e:
        note(str(e) or 'Stopped')
        sys.exit(130)
    except BrokenPipeError:  # the program that read the output has ended
        os._exit(1)
    except (RuntimeError, MemoryError) as e:
        if not re.search('MemoryError|out of memory|DefaultCPUAllocator|bad_alloc', repr(e)):
            raise
        fail('this does not fit into memory: make batch_size, block_size or n_embd smaller')

# What `uv run bigramv2.py` installs:
# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.9,<2.14", "numpy>=1.26,<3"]
# ///
