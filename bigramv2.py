"""A character-level GPT that trains in minutes on a laptop: python prepare.py, then python bigramv2.py

This is chapter two; bigram.py is chapter one. The Transformer is almost the same. New here: all attention heads at
once, GELU, other starting values, an optimiser that learns faster, and a cache that makes writing fast. The ideas end
at the line "plumbing".

Shapes: B batch, T time (positions), C channels (n_embd), H heads, D head size (C / H), V vocabulary.
"""
import argparse
import ast
import io
import json
import math
import os
import re
import sys
import time
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

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
eval_windows = 100           # windows of T characters that each measurement uses, for train and for val
learning_rate = 0.025        # step size of Muon, for the matrices inside the blocks
adamw_learning_rate = 0.008  # step size of AdamW, for all other parameters
warmup_iters = 10            # steps in which both learning rates rise; then they fall to 0
weight_decay = 0.0           # how strongly Muon pulls its matrices towards 0, against overfitting
grad_clip = 1.0              # the norm of the gradient is limited to this; 0: no limit
seed = 1337                  # same seed, same machine: same result (on a CPU)
HYPERPARAMETERS = {name: value for name, value in globals().items()  # all of them: they are saved with the model
                   if type(value) in (bool, int, float, str) and name[0] != '_'}

# Options. They say how a run computes, and how and where it writes. They are not saved.

device = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
compile = False              # compile the model with torch.compile: faster in long runs on a GPU (needs a C compiler)
fused_attention = device != 'mps'  # use torch's fused attention kernel; otherwise line by line, as on a Mac's GPU
kv_cache = True              # when writing, keep the keys and values of earlier characters
resume = False               # continue the run whose checkpoint is in out_dir
sample_only = False          # write with the model in out_dir; do not train
prompt = ''                  # the beginning of the text, which the model continues; \n is a line end
max_new_tokens = 500         # how many characters to write
temperature = 0.8            # below 1 safer, above 1 wilder; at 0 always the most likely character
top_k = 0                    # draw only from the k most likely characters; 0: from all
out_dir = 'out'              # here each run makes its folder: out/1, out/2, ...; to use an old run: that folder
OPTIONS = {name: value for name, value in globals().items()
           if type(value) in (bool, int, float, str) and name[0] != '_' and name not in HYPERPARAMETERS}


# ---------------------------------------------------------------- data

# torchrun starts world_size processes, which share each batch. rank is the number of this one.
rank, world_size = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))


def encode(text, vocab):
    """Turn text into tokens (1, T): the token of a character is its place in vocab, a string."""
    return torch.tensor([[vocab.index(character) for character in text]], dtype=torch.long, device=device)


def windows(data, starts):
    """Cut windows out of data (N,) at the places starts (B,): inputs (B, T), and as targets (B, T) the next tokens."""
    places = starts[:, None] + np.arange(block_size + 1)                 # (B, 1) + (T + 1,) -> (B, T + 1)
    tokens = torch.from_numpy(data[places].astype(np.int64)).to(device)  # (B, T + 1), int64, on the device
    return tokens[:, :-1], tokens[:, 1:]


def get_batch(data, step):
    """The batch of a step: inputs (B, T) and targets (B, T), cut out of data (N,).

    Each window begins 0.618 of the text (1 / golden ratio) after the one before, in a circle. This is more even than at
    random: the default run ends 0.01 to 0.02 lower. Seed and step alone decide, so a resumed run has the same windows.
    """
    numbers = step * batch_size + np.arange(batch_size)                  # (B,): windows are numbered from step 0 on
    shares = (np.random.default_rng(seed).random() + numbers * 0.6180339887498949) % 1  # (B,), as shares of the text
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
        # A buffer goes to the GPU with the model, but it is not a parameter: training never changes it.
        self.register_buffer('tril', torch.tril(torch.ones(block_size, block_size, dtype=torch.bool)), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        T = x.shape[1]
        k, q, v = self.key(x), self.query(x), self.value(x)       # keys, queries and values: (B, T, D) each
        scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5    # (B, T, D) @ (B, D, T) -> (B, T, T), over root of D
        scores = scores.masked_fill(~self.tril[:T, :T], float('-inf'))  # no position sees a later one
        weights = self.dropout(F.softmax(scores, dim=-1))         # (B, T, T), softmax: rows sum to 1 before dropout
        return weights @ v                                        # (B, T, T) @ (B, T, D) -> (B, T, D)


class MultiHeadAttention(nn.Module):
    """Several heads side by side, each a module of its own: (B, T, C) -> (B, T, C)."""

    def __init__(self, num_heads, head_size):
        super().__init__()
        self.heads = nn.ModuleList(Head(head_size) for _ in range(num_heads))
        self.proj = nn.Linear(num_heads * head_size, n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        out = torch.cat([head(x) for head in self.heads], dim=-1)  # H times (B, T, D), side by side -> (B, T, C)
        return self.dropout(self.proj(out))                        # (B, T, C), projection and dropout


class MultiHeadAttn(nn.Module):
    """The same function with all heads at once: (B, T, C) -> (B, T, C).

    One matrix holds the matrices of all heads, and H becomes a dimension of the tensors. (Keys, queries and values stay
    apart: the optimiser treats each matrix by itself.) In training there is no cache, so skip it for now. `GPT.stream`
    passes one, (2, B, H, block_size, D): keys and values of the `past` positions before x. Those of x are added.
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
        q = self.query(x).view(B, T, self.num_heads, -1).transpose(1, 2)  # (B, T, C) -> (B, T, H, D) -> (B, H, T, D)
        k = self.key(x).view(B, T, self.num_heads, -1).transpose(1, 2)    # keys: (B, H, T, D)
        v = self.value(x).view(B, T, self.num_heads, -1).transpose(1, 2)  # values: (B, H, T, D)
        S = past + T                                                    # positions to look at; in training S = T
        if cache is not None:
            cache[:, :, :, past:S] = torch.stack((k, v))                # (2, B, H, T, D), put behind the earlier ones
            k, v = cache[0, :, :, :S], cache[1, :, :, :S]               # (B, H, S, D) each
        mask = self.tril[past:S, :S]                                    # (T, S): no position sees a later one
        if fused_attention:
            if self.training:  # dropout of keys, for all queries alike: the kernel's own dropout is slow on a CPU
                v = v * self.attn_dropout(torch.ones_like(v[..., :1]))  # (B, H, T, D) * (B, H, T, 1) -> (B, H, T, D)
            mask = mask if 1 < T < S else None  # T = 1: it sees all. T = S: is_causal makes the mask, which is faster
            out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=T == S)  # (B, H, T, D)
        else:  # the same, line by line, with dropout of each weight
            scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5      # (B, H, T, D) @ (B, H, D, S) -> (B, H, T, S)
            scores = scores.masked_fill(~mask, float('-inf'))
            weights = self.attn_dropout(F.softmax(scores, dim=-1))      # (B, H, T, S), rows sum to 1 before dropout
            out = weights @ v                                           # (B, H, T, S) @ (B, H, S, D) -> (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)                      # (B, H, T, D) -> (B, T, H, D) -> (B, T, C)
        return self.dropout(self.proj(out))                             # (B, T, C)


# ---------------------------------------------------------------- model

class FeedForward(nn.Module):
    """A small network that works on each position by itself: (B, T, C) -> (B, T, C)."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(n_embd, 4 * n_embd)
        self.proj = nn.Linear(4 * n_embd, n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = F.gelu(self.fc(x))                                          # (B, T, 4C)
        return self.dropout(self.proj(x))                               # (B, T, C)


class Block(nn.Module):
    """Attention, then feed-forward. Each adds its output to the residual stream x: (B, T, C) -> (B, T, C)."""

    def __init__(self):
        super().__init__()
        # self.sa = MultiHeadAttention(num_heads, n_embd // num_heads)           # one module per head
        self.sa = MultiHeadAttn(num_heads, n_embd, block_size, dropout=dropout)  # all heads at once
        self.ffwd = FeedForward()
        self.ln1 = nn.LayerNorm(n_embd)
        self.ln2 = nn.LayerNorm(n_embd)

    def forward(self, x, **cache):  # when the model writes: the cache of this block, and past, for MultiHeadAttn
        x = x + self.sa(self.ln1(x), **cache)                           # (B, T, C)
        x = x + self.ffwd(self.ln2(x))                                  # (B, T, C)
        return x


class GPT(nn.Module):
    """Predicts the next token at each position: tokens (B, T) -> logits (B, T, V)."""

    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        # Positions start as waves of many lengths, so near positions are alike (Vaswani et al. 2017, section 3.5).
        angle = torch.arange(block_size)[:, None] * 10000 ** (-torch.arange(0, n_embd, 2) / n_embd)  # (T, C / 2)
        waves = torch.cat((angle.sin(), angle.cos()), dim=-1)[:, :n_embd]           # (T, C), cut if C is odd
        self.position_embedding = nn.Embedding.from_pretrained(waves, freeze=False)
        self.blocks = nn.ModuleList(Block() for _ in range(num_layers))
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
            x = block(x) if cache is None else block(x, cache=cache[i], past=past)   # (B, T, C)
        logits = self.head(self.ln(x))                                               # (B, T, V)
        # (B * T, V), (B * T,) -> ()
        return logits, None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @staticmethod
    def draw(logits, temperature=1.0, top_k=0):
        """Draw a token (B, 1) from softmax(logits / temperature), for logits (B, V), or from its top_k most likely."""
        if temperature < 1e-9:  # as good as 0: the most likely
            return logits.argmax(dim=-1, keepdim=True)                               # (B, 1)
        if top_k:
            kept, tokens = logits.topk(min(top_k, logits.shape[-1]))                 # (B, k) each
            logits = torch.full_like(logits, float('-inf')).scatter(1, tokens, kept)  # (B, V), each in its place
        probs = F.softmax(logits / temperature, dim=-1)                              # (B, V)
        return torch.multinomial(probs, num_samples=1)                               # (B, 1)

    @torch.inference_mode()
    def stream(self, idx, temperature=1.0, top_k=0):
        """Continue the tokens idx (B, T) without end: yield one token (B, 1) at a time.

        No position sees a later one. So the keys and values of earlier positions never change: a cache keeps them, and
        only new tokens pass through the model. Without a cache `past` stays 0, and all tokens pass through it again.
        """
        idx, past, cache = idx[:, -block_size:], 0, None
        if kv_cache and all(isinstance(block.sa, MultiHeadAttn) for block in self.blocks):
            size = (len(self.blocks), 2, len(idx), num_heads, block_size, n_embd // num_heads)  # 2: keys and values
            cache = torch.empty(size, device=idx.device)
        while True:
            logits, _ = self(idx[:, past:], cache=cache, past=past)                  # (B, T - past, V)
            new = self.draw(logits[:, -1], temperature, top_k)                       # (B, 1), from the last position
            yield new
            past = 0 if cache is None else idx.shape[1]
            idx = torch.cat((idx, new), dim=1)                                       # (B, T + 1)
            if idx.shape[1] > block_size:  # full: continue from the last half, with new positions and an empty cache
                idx, past = idx[:, block_size // 2 + 1:], 0

    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=0):
        """Continue the tokens idx (B, T): (B, T + max_new_tokens)."""
        return torch.cat([idx, *islice(self.stream(idx, temperature, top_k), max_new_tokens)], dim=1)


# ---------------------------------------------------------------- optimiser

def orthogonalize(g):
    """Return the orthogonal matrix nearest to g (rows, columns), roughly, by five Newton-Schulz steps.

    Let x = U S V' be the singular value decomposition of g divided by its norm. A step maps each singular value s to
    3.4445 s - 4.7750 s^3 + 2.0315 s^5, and leaves U and V. After five steps, each s that was 0.01 or more in x
    is between 0.68 and 1.14.
    """
    if g.shape[0] > g.shape[1]:
        return orthogonalize(g.T).T                           # transpose, and back: so x @ x.T is smaller
    x = g / (g.norm() + 1e-7)                                 # no singular value above 1; g may be 0
    for _ in range(5):
        a = x @ x.T                                           # (rows, rows)
        b = torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315)  # -4.7750 a + 2.0315 a @ a, in one call
        x = torch.addmm(x, b, x, beta=3.4445)                 # 3.4445 x + b @ x: (rows, columns)
    return x


class Muon(torch.optim.Optimizer):
    """Momentum, but each step moves a matrix equally far in all directions (Jordan et al. 2024).

    The gradient of a matrix is mostly a few strong directions. In the nearest orthogonal matrix all are equally strong,
    so the weak ones are learnt as fast. The step is that of torch.optim.Muon, but in float32.
    """

    def __init__(self, params, lr, momentum=0.9, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, beta = group['lr'], group['momentum']
            for p in group['params']:                                    # (rows, columns)
                if p.grad is None:  # p is not used, or frozen
                    continue
                mean = self.state[p].setdefault('mean', torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - beta)                             # running mean: beta * mean + (1 - beta) * grad
                update = orthogonalize(p.grad.lerp(mean, beta))          # mixed with the gradient again: Nesterov
                scale = max(1, p.shape[0] / p.shape[1]) ** 0.5           # a longer step, if more outputs than inputs
                p.mul_(1 - lr * group['weight_decay']).sub_(update, alpha=lr * scale)


def make_optimizers(model):
    """Muon for the matrices inside the blocks, AdamW for the rest: embeddings, head, gains and biases."""
    matrices, rest = [], []
    for name, p in model.named_parameters():
        (matrices if name.startswith('blocks.') and p.ndim == 2 else rest).append(p)
    return [Muon(matrices, lr=learning_rate, weight_decay=weight_decay),
            torch.optim.AdamW(rest, lr=adamw_learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)]


# ---------------------------------------------------------------- training

@torch.no_grad()
def estimate_loss(model, data, max_windows):
    """Mean loss per character of data (N,), in nats, without dropout.

    It is measured on at most max_windows windows, evenly spread and not overlapping. They are the same each time, so
    losses can be compared.
    """
    model.eval()
    available = (len(data) - 1) // block_size
    starts = np.linspace(0, available - 1, min(max_windows, available)).astype(np.int64) * block_size  # (windows,)
    total = 0.0
    for batch in np.split(starts, range(16, len(starts), 16)):                       # 16 windows at a time
        x, y = windows(data, batch)                                                  # (at most 16, T) each
        logits, loss = model(x, y)                                                   # (at most 16, T, V), ()
        total += loss.item() * len(batch)
    model.train()
    return total / len(starts)


def lr_scale(step):
    """The share of the full rate: the smaller of a line from 1 / (warmup_iters + 1) to 1 and one from 1 to 0."""
    return min((step + 1) / (warmup_iters + 1), 1 - step / max_iters)


def train(model, optimizers, data, start=0):
    """Train the model on data (N,), from step `start` to max_iters. Yield each step at which to measure and save."""
    bfloat16 = 'cuda' in device and torch.cuda.is_bf16_supported(including_emulation=False)  # 16 bits: faster
    for step in range(start, max_iters):
        if step % eval_interval == 0:
            yield step
            model.train()  # with dropout again
        torch.manual_seed(hash((seed, step, rank)))  # the same numbers in a resumed run, whatever was drawn before
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group['lr'] = optimizer.defaults['lr'] * lr_scale(step)
        x, y = get_batch(data, step)                                                 # (B, T) each
        with torch.autocast('cuda', torch.bfloat16, enabled=bfloat16):
            logits, loss = model(x, y)                                               # (B, T, V), ()
        loss.backward()
        if grad_clip:
            nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    yield max_iters


# ---------------------------------------------------------------- plumbing: nothing below is about GPT

def main(argv=()):
    """Do what the flags in argv ask for: train and then write, or only write."""
    given = configure(argv)
    check()
    if sample_only or resume:
        path = newest('model.pt' if sample_only else 'checkpoint.pt')
        model, run = load(path, given)
    if not sample_only:
        data, meta = load_data()
        next(characters(None, meta['vocab'], 0))  # refuses a prompt with unknown characters before anything begins
        if not resume:
            torch.manual_seed(seed)
            model = GPT(len(meta['vocab'])).to(device)
            run = dict(vocab=meta['vocab'], text=meta['crc32'], step=0, best=math.inf, history=[], seconds=0.0)
        elif run['text'] != meta['crc32']:
            fail(f'{path} learnt another text than the one in tokens/: run python prepare.py on that text')
        learn(model, data, run, path.parent if resume else None)
    if rank == 0:
        for text in characters(model, run['vocab'], max_new_tokens):
            print(text, end='', flush=True)
        print()
    if world_size > 1 and not sample_only:
        torch.distributed.barrier()  # wait until the first process has written and saved
        torch.distributed.destroy_process_group()


def learn(model, data, run, folder):
    """Train the model. Every eval_interval steps measure the loss, let the model write a line, and save the run."""
    optimizers, V, start = make_optimizers(model), len(run['vocab']), run['step']
    for optimizer, state in zip(optimizers, run.get('optimizers', ())):  # a resumed run's, but not its rates
        optimizer.load_state_dict({'state': state, 'param_groups': optimizer.state_dict()['param_groups']})
    trained = torch.compile(model) if compile else model
    if world_size > 1:
        if batch_size % world_size:
            fail(f'batch_size = {batch_size} must be divisible by {world_size}: the processes share a batch equally')
        torch.distributed.init_process_group('nccl' if 'cuda' in device else 'gloo')
        trained = nn.parallel.DistributedDataParallel(trained)
    if rank > 0:  # only the first process measures, writes and saves
        for _ in train(trained, optimizers, data['train'], start):
            pass
        return
    folder = folder or new_folder()
    print(f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {device}, {V} different characters: '
          f'a blind guess has loss ln({V}) = {math.log(V):.2f}\n'
          f'{len(data["train"]):,} characters to learn from, {len(data["val"]):,} to test on\n'
          f'Saved in {folder}/ every {eval_interval} steps. Stop with Ctrl-C, continue with --resume', flush=True)
    begun, last = time.perf_counter() - run['seconds'], time.perf_counter()
    for step in train(trained, optimizers, data['train'], start):
        if resume and step <= start:  # measured before the stop
            continue
        next(model.parameters()).sum().item()  # a GPU works behind: wait until it has done these steps
        speed = (step - run['step']) * batch_size * block_size / (time.perf_counter() - last)
        losses = {split: estimate_loss(model, tokens, eval_windows) for split, tokens in data.items()}
        seconds = time.perf_counter() - begun
        if not math.isfinite(sum(losses.values())):
            fail(f'the loss is {sum(losses.values())} at step {step}: lower learning_rate and adamw_learning_rate')
        print(f'step {step:5}   train {losses["train"]:.4f}   val {losses["val"]:.4f}   {seconds:,.0f} s elapsed'
              + (f'   {seconds / step * (max_iters - step):,.0f} s left   {speed:,.0f} characters/s' if step else ''))
        _, *drawn = characters(model, run['vocab'], 80)
        print(' ' * 12 + ' / '.join(''.join(drawn).splitlines())[:80], flush=True)
        run |= dict(step=step, seconds=seconds, history=[*run['history'], (step, seconds, *losses.values())],
                    hyperparameters={name: globals()[name] for name in HYPERPARAMETERS}, weights=model.state_dict(),
                    optimizers=[optimizer.state_dict()['state'] for optimizer in optimizers])
        best = {name: run[name] for name in ('weights', 'vocab', 'hyperparameters', 'step')} | {'best': losses['val']}
        if losses['val'] < run['best'] and save(folder / 'model.pt', best):
            run['best'] = losses['val']
        save(folder / 'checkpoint.pt', run)
        rows = ['{},{:.2f},{:.6f},{:.6f}\n'.format(*row) for row in run['history']]
        save(folder / 'loss.csv', ''.join(['step,seconds,train,val\n', *rows]))
        last = time.perf_counter()

    model.load_state_dict(torch.load(folder / 'model.pt', map_location='cpu', weights_only=True)['weights'])
    val, most = data['val'], min(10 ** 6, len(data['val']) - 1) // block_size  # windows: of a long text these will do
    print(f'Done in {run["seconds"]:,.0f} s. The best weights are in {folder}/model.pt, with validation loss '
          f'{estimate_loss(model, val, most):.4f} over {most * block_size:,} of {len(val):,} characters.')
    best, last = min(run['history'], key=lambda row: row[3]), run['history'][-1]  # rows: step, seconds, train, val
    if best[0] < 0.8 * last[0]:
        print('Nothing better than a blind guess was learnt. ' * (best[0] == 0) + 'The validation loss was lowest at '
              f'step {best[0]}. After that', 'only the training loss fell: the model learns its text by heart (try '
              'dropout, a smaller model or more text), or the end of the text, which tests it, is unlike the rest.'
              if last[2] < best[2] else 'both losses rose: try a lower learning_rate and adamw_learning_rate.')
    print('The best weights write:\n')


def configure(argv):
    """Set the hyperparameters and options that are given as flags. Return these, {name: value}."""
    if hasattr(sys.stdout, 'reconfigure'):  # a notebook's lacks it
        sys.stdout.reconfigure(encoding='utf-8')  # for texts in any script
    parser = argparse.ArgumentParser(usage='%(prog)s [--NAME VALUE ...]', argument_default=argparse.SUPPRESS)
    top = Path(__file__).read_text(encoding='utf-8').split('\nOPTIONS')[0]
    comments = dict(re.findall(r'^(\w+) *=.*?# *(.+)', top, re.M))
    for name, value in (HYPERPARAMETERS | OPTIONS).items():
        explained = f'{comments.get(name, "")} (default: {value!r})'.replace('%', '%%')
        switch = dict(nargs='?', const=True) if isinstance(value, bool) else {}  # --name, --name=False or --no-name
        parser.add_argument(f'--{name}', type=str if isinstance(value, str) else number, help=explained, **switch)
        parser.add_argument(f'--no-{name}', dest=name, action='store_false', help=argparse.SUPPRESS)
    given = vars(parser.parse_args(argv))
    own, fresh = HYPERPARAMETERS | OPTIONS, {}
    for line in ast.parse(top).body:  # the top again, with the flags: so fused_attention follows --device
        exec(ast.unparse(line), fresh)
        fresh.update(given)
    globals().update({name: value for name, value in fresh.items() if name[0] != '_' and type(value) in
                      (bool, int, float, str, list, tuple) and value != own.get(name)} | given)
    return given


def number(text):
    value = float({'true': 1, 'false': 0}.get(text.lower(), text))
    return int(value) if value.is_integer() else value


def check():
    """Refuse, by name, a value that cannot work."""
    for names, least, most in (
            ('block_size n_embd num_heads num_layers batch_size max_iters eval_interval eval_windows', 1, math.inf),
            ('warmup_iters seed max_new_tokens top_k', 0, math.inf), ('temperature', 0.0, 1e6), ('dropout', 0.0, 0.99),
            ('learning_rate adamw_learning_rate weight_decay grad_clip', 0.0, math.inf)):
        for name in names.split():
            value, kind = globals()[name], 'whole number' if isinstance(least, int) else 'number'
            if type(value) not in (int, type(least)) or not least <= value <= most:
                fail(f'{name} = {value!r} must be a {kind}, at least {least}' + f', at most {most}' * (most < math.inf))
    if n_embd % num_heads:
        fail(f'n_embd = {n_embd} must be divisible by num_heads = {num_heads}: all heads have the same size')
    try:
        if device == 'cuda' and torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)))
        torch.zeros(1, device=device)
    except Exception as e:  # torch raises several kinds
        fail(f'device = {device!r} cannot be used on this machine: {e}')


def load_data():
    """Return the tokens of prepare.py as memory maps {'train': (N,), 'val': (M,)}, and what meta.json says of them."""
    try:
        meta = json.loads(Path('tokens/meta.json').read_text())
        data = {split: np.memmap(f'tokens/{split}.bin', dtype='<u2', mode='r') for split in ('train', 'val')}
    except (OSError, ValueError):
        fail('there are no tokens here, or not all of them: run python prepare.py')
    for split, tokens in data.items():
        if len(tokens) <= block_size:
            fail(f'tokens/{split}.bin has {len(tokens)} characters, too few for block_size = {block_size}: prepare a '
                 'longer text' + ', or make block_size smaller' * (len(tokens) > 1))
    return data, meta


def load(path, given=()):
    """Return the model and all else that was saved at path. Set its hyperparameters, but not those that flags gave."""
    fixed = ['block_size', 'n_embd', 'num_heads', 'num_layers', *['seed'] * resume]  # a sample may have any seed
    try:
        saved = torch.load(path, map_location='cpu', weights_only=True)  # runs no code from the file
        for name in HYPERPARAMETERS:
            now, own = globals()[name], saved['hyperparameters'].get(name, globals()[name])
            if now != own and name in given and name in fixed:
                fail(f'--{name} {now!r} does not fit {path}, which has {name} = {own!r}: leave --{name} out')
            if now != own and resume and rank == 0:
                print(f'{name} = {now!r}, from the flag (the run had {own!r})' if name in given else
                      f'{name} = {own!r}, from the run (the top of bigramv2.py says {now!r})')
            globals()[name] = now if name in given else own
        model = GPT(len(saved['vocab'])).to(device)
        model.load_state_dict(saved['weights'])
        return model, saved
    except Exception as e:
        fail(f'{path} is not a model of this bigramv2.py ({type(e).__name__}: {str(e).split(". ")[0][:200]})')


def newest(name):
    """The file of this name that was saved last: in out_dir/1, out_dir/2, ..., or in out_dir itself."""
    paths = [*Path(out_dir).glob(name), *Path(out_dir).glob(f'*/{name}')]
    return max(paths, key=os.path.getmtime) if paths else fail(f'{out_dir}/ has no {name}: train first')


def new_folder():
    """Make the first free one of out_dir/1, out_dir/2, ... mkdir fails if it is there, so no two runs share one."""
    try:
        Path(out_dir).mkdir(parents=True, exist_ok=True)
        for n in count(1):
            with suppress(FileExistsError):
                Path(out_dir, str(n)).mkdir()
                return Path(out_dir, str(n))
    except OSError as e:
        fail(f'cannot write to {e.filename}: {e.strerror}')


def save(path, content):
    """Replace a file in one move: at every instant it is whole, the old or the new one. Return True if it worked."""
    data, aside = io.BytesIO(), path.with_name(path.name + '.new')
    data.write(content.encode()) if isinstance(content, str) else torch.save(content, data)
    try:
        with open(aside, 'wb') as file:
            file.write(data.getvalue())
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        return True
    except OSError as e:  # a full disk; on Windows also a program that has the file open
        aside.unlink(missing_ok=True)
        if not path.exists():
            fail(f'cannot write to {path}: {e.strerror}')
        print(f'bigramv2.py: cannot write to {path} now: {e.strerror}. The training goes on', file=sys.stderr)


def characters(model, vocab, most):
    """Yield the prompt, then one character after another as it is drawn: `most` of them, the same ones every time."""
    text = prompt if '\\' in vocab else prompt.replace('\\n', '\n')
    for character in text:
        if character not in vocab:
            fail(f'the prompt has {character!a} (U+{ord(character):04X}), a character that the model does not know')
    yield text
    torch.manual_seed(seed)
    for token in islice(model.eval().stream(encode(text or vocab[0], vocab), temperature, top_k), most):
        yield vocab[token.item()]


def fail(message):
    sys.exit(f'bigramv2.py: {" ".join(message.split())}')


assert all(globals()[name] is value for name, value in (HYPERPARAMETERS | OPTIONS).items()), 'a name is used twice'
if __name__ == '__main__':
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        fail('stopped' + '. To continue from the last save, add --resume to the same command' * (not sample_only))
