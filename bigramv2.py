"""A character-level GPT, trained in minutes on a laptop: python prepare.py, then python bigramv2.py

The second chapter after bigram.py: all heads of an attention layer at once, an optimiser that learns
faster, and text that is written as fast as it can be read. Read it from top to bottom; the ruler
"plumbing" is where the ideas end.

Shapes: B batch, T time, C channels (n_embd), H heads, D head size (C / H), S positions looked at, V vocabulary.
"""
import argparse
import io
import json
import math
import os
import re
import signal
import sys
import time
import zipfile
import zlib
from datetime import timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from torch.nn import functional as F

# Hyperparameters: edit them here, or give them for one run: python bigramv2.py --n_embd 192 --no-kv_cache

# the model
block_size = 128              # T: how many characters back the model can look
n_embd = 128                  # C: channels, the width of the residual stream
num_heads = 4                 # H: attention heads in a block, each of size D = C / H
num_layers = 3                # blocks
dropout = 0.0                 # share of activations zeroed in training, against overfitting
fused_attention = True        # attention by torch's fused kernel; --no-fused_attention: by the formula, line by line
# the training
batch_size = 12               # B: pieces of text a step learns from (in each process)
max_iters = 2000              # training steps
eval_interval = 200           # steps between two looks at the loss
eval_windows = 100            # windows of T characters that a look averages over, in each split
learning_rate = 0.02          # of Muon, for the matrices inside the blocks
adamw_learning_rate = 0.005   # of AdamW, for everything else
warmup_iters = 10             # steps over which the learning rates rise to these values, before they sink to 0
weight_decay = 0.0            # how strongly weights are pulled towards 0, against overfitting
grad_clip = 1.0               # the longest gradient that a step may follow
seed = 1337                   # same seed, same machine, same result
device = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'  # where it runs
compile = True                # torch.compile the model (on CUDA alone)
resume = False                # go on with the run whose checkpoint is in out_dir
# the text that it writes
prompt = '\n'                 # the beginning, which the model continues
max_new_tokens = 500          # how many characters to write
temperature = 0.8             # below 1 bolder in its favourites, above 1 wilder; 0: always the likeliest character
top_k = 0                     # draw from the k likeliest characters only; 0: from all
kv_cache = True               # remember keys and values, so a new character costs one position, not T
sample_only = False           # write with the model in out_dir, without training
out_dir = 'out'               # where loss.csv, model.pt and checkpoint.pt go


# ---------------------------------------------------------------- data

def windows(data, starts):
    """Cut windows out of the tokens data (N,), one at each of starts (B,).

    Returns inputs (B, T) and targets (B, T), the same shifted by one: what comes next at each position.
    """
    window = data[starts[:, None] + np.arange(block_size + 1)]  # (B, T + 1), gathered in one step
    window = torch.from_numpy(window.astype(np.int64))
    if device == 'cuda':
        window = window.pin_memory().to(device, non_blocking=True)
    else:
        window = window.to(device)
    return window[:, :-1], window[:, 1:]


def get_batch(data, generator):
    """A batch from random places: inputs (B, T), targets (B, T). Of several processes, each takes its share."""
    starts = torch.randint(len(data) - block_size, (world_size * batch_size,), generator=generator)
    return windows(data, starts[rank::world_size].numpy())


# ---------------------------------------------------------------- attention
# Vaswani et al. 2017, "Attention is all you need", section 3.2

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
        weights = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5   # (B, T, D) @ (B, D, T) -> (B, T, T)
        weights = weights.masked_fill(~self.tril[:T, :T], float('-inf'))  # no position sees a later one
        weights = F.softmax(weights, dim=-1)                      # each row sums to 1
        weights = self.dropout(weights)
        return weights @ v                                        # (B, T, T) @ (B, T, D) -> (B, T, D)


class MultiHeadAttention(nn.Module):
    """Heads side by side, each a module of its own: (B, T, C) -> (B, T, C)."""

    def __init__(self, num_heads, head_size):
        super().__init__()
        self.heads = nn.ModuleList(Head(head_size) for _ in range(num_heads))
        self.proj = nn.Linear(num_heads * head_size, n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        out = torch.cat([head(x) for head in self.heads], dim=-1)  # num_heads times (B, T, D) -> (B, T, C)
        return self.dropout(self.proj(out))


class MultiHeadAttn(nn.Module):
    """The same function with all heads at once: (B, T, C) -> (B, T, C).

    The matrices of the heads lie side by side in one, and H becomes a dimension of the tensors. A cache
    (2, B, H, block_size, D) has the keys and values of the `past` positions before x.
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
        # each (B, T, C) -> (B, T, H, D) -> (B, H, T, D)
        q, k, v = (linear(x).view(B, T, self.num_heads, -1).transpose(1, 2)
                   for linear in (self.query, self.key, self.value))
        if cache is not None:  # writing: x holds only what is new, the cache the keys and values of the past before it
            cache[0, :, :, past:past + T], cache[1, :, :, past:past + T] = k, v
            k, v = cache[:, :, :, :past + T]                          # (B, H, S, D) each
        S = past + T
        if fused_attention:
            out = F.scaled_dot_product_attention(
                q, k, v, dropout_p=self.attn_dropout.p if self.training else 0.0, is_causal=T == S)
        else:  # the same, line by line
            weights = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5   # (B, H, T, D) @ (B, H, D, S) -> (B, H, T, S)
            weights = weights.masked_fill(~self.tril[S - T:S, :S], float('-inf'))
            weights = self.attn_dropout(F.softmax(weights, dim=-1))
            out = weights @ v                                         # (B, H, T, S) @ (B, H, S, D) -> (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)                    # (B, H, T, D) -> (B, T, H, D) -> (B, T, C)
        return self.dropout(self.proj(out))


# ---------------------------------------------------------------- model

class FeedForward(nn.Module):
    """Each position thinks for itself about what it has gathered: (B, T, C) -> (B, T, C)."""

    def __init__(self, n_embd):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd),  # (B, T, 4C)
            nn.GELU(),
            nn.Linear(4 * n_embd, n_embd),  # (B, T, C)
            nn.Dropout(dropout),
        )

    def forward(self, x):
        return self.net(x)


class Block(nn.Module):
    """Communication, then computation, each added to what was there: (B, T, C) -> (B, T, C)."""

    def __init__(self, n_embd, num_heads):
        super().__init__()
        head_size = n_embd // num_heads  # D, which the first of these two asks for
        # self.sa = MultiHeadAttention(num_heads, head_size)                   # one module per head
        self.sa = MultiHeadAttn(num_heads, n_embd, block_size, dropout=dropout)  # all heads at once
        self.ffwd = FeedForward(n_embd)
        self.ln1 = nn.LayerNorm(n_embd)
        self.ln2 = nn.LayerNorm(n_embd)

    def forward(self, x, *cache):  # when writing: the cache and past of MultiHeadAttn
        x = x + self.sa(self.ln1(x), *cache)
        x = x + self.ffwd(self.ln2(x))
        return x


class GPT(nn.Module):
    """Tokens in, a guess at each next token out: (B, T) -> (B, T, V)."""

    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        # Positions start as waves of many lengths, near ones alike (Vaswani et al. 2017, section 3.5).
        angle = torch.arange(block_size)[:, None] * 10000 ** (-torch.arange(0, n_embd, 2) / n_embd)   # (T, C / 2)
        waves = torch.cat((angle.sin(), angle.cos()), dim=-1)[:, :n_embd]                             # (T, C)
        self.position_embedding = nn.Embedding.from_pretrained(waves, freeze=False)
        self.blocks = nn.ModuleList(Block(n_embd, num_heads) for _ in range(num_layers))
        self.ln = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab_size)

        # A block starts by adding nothing, and the head by favouring nobody: learning begins at loss ln(V).
        nn.init.normal_(self.token_embedding.weight, std=0.5)
        for last in (self.head, *(b.sa.proj for b in self.blocks), *(b.ffwd.net[2] for b in self.blocks)):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, idx, targets=None, cache=None, past=0):
        """Return the logits (B, T, V) after tokens idx (B, T), and with targets (B, T) the mean loss in nats.

        A cache (layers, 2, B, H, block_size, D) has the keys and values of `past` positions before idx.
        """
        where = slice(past, past + idx.shape[1])
        x = self.token_embedding(idx) + self.position_embedding.weight[where]        # (B, T, C) + (T, C)
        for i, block in enumerate(self.blocks):
            x = block(x) if cache is None else block(x, cache[i], past)              # (B, T, C)
        logits = self.head(self.ln(x))                                               # (B, T, V)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())      # (B*T, V), (B*T,) -> ()

    @torch.inference_mode()
    def stream(self, idx, temperature=1.0, top_k=0, generator=None):
        """Yield the tokens that the model puts after idx (B, T), one (B, 1) at a time, without end."""
        idx, cache, past = idx[:, -block_size:], None, 0
        if kv_cache and all(isinstance(block.sa, MultiHeadAttn) for block in self.blocks):
            cache = torch.empty(num_layers, 2, len(idx), num_heads, block_size, n_embd // num_heads, device=idx.device)
        while True:
            logits, _ = self(idx[:, past:], cache=cache, past=past)
            logits = logits[:, -1]                                                   # (B, V), of the last position
            if top_k:
                kth = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]       # (B, 1), the least to keep
                logits = logits.masked_fill(logits < kth, float('-inf'))
            if temperature == 0:
                new = logits.argmax(dim=-1, keepdim=True)                            # (B, 1)
            else:
                probs = F.softmax(logits / temperature, dim=-1)                      # (B, V)
                new = torch.multinomial(probs, num_samples=1, generator=generator)   # (B, 1)
            yield new
            past = idx.shape[1] if cache is not None else 0
            idx = torch.cat((idx, new), dim=1)                                       # (B, T + 1)
            if idx.shape[1] > block_size:  # full: go on from the last half, whose positions, and so cache, start anew
                idx, past = idx[:, -((block_size + 1) // 2):], 0

    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=0, generator=None):
        """Continue idx (B, T) by max_new_tokens: (B, T + max_new_tokens)."""
        return torch.cat([idx, *islice(self.stream(idx, temperature, top_k, generator), max_new_tokens)], dim=1)


# ---------------------------------------------------------------- optimiser

class Muon(torch.optim.Optimizer):
    """Momentum whose steps turn all directions of a matrix equally far (Jordan et al. 2024).

    A gradient matrix is mostly a few strong directions. Muon replaces it by the nearest orthogonal
    matrix, so the rare directions are learnt as fast as the strong ones. For 2-D weights inside the
    network; embeddings, gains and the head want AdamW. Same step as torch.optim.Muon, but in float32
    and with all matrices of one shape in one product.
    """

    def __init__(self, params, lr, momentum=0.95, weight_decay=0):
        by_shape = {}
        for p in params:
            by_shape.setdefault(p.shape, []).append(p)
        super().__init__([{'params': same} for same in by_shape.values()],
                         dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            params, lr = group['params'], group['lr']
            grad = torch.stack([p.grad for p in params])                             # (n, rows, columns)
            state = self.state[params[0]]
            if not state:
                state['momentum'] = torch.zeros_like(grad)
            state['momentum'].lerp_(grad, 1 - group['momentum'])
            update = orthogonalize(grad.lerp(state['momentum'], group['momentum']))  # Nesterov's look ahead
            rows, columns = grad.shape[1:]
            for p, u in zip(params, update):
                p.mul_(1 - lr * group['weight_decay']).add_(u, alpha=-lr * max(1, rows / columns) ** 0.5)


def orthogonalize(g):
    """The orthogonal matrices nearest to g (n, rows, columns), roughly, by five Newton-Schulz steps.

    With g = U S V', a step maps each singular value s to 3.4445 s - 4.7750 s^3 + 2.0315 s^5, which drives
    all of them into 0.7 ... 1.2 and leaves U and V alone.
    """
    if g.shape[-2] > g.shape[-1]:
        return orthogonalize(g.mT).mT
    x = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)   # now no singular value is above 1
    for _ in range(5):
        a = x @ x.mT                                      # (n, rows, rows)
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445)           # (n, rows, columns)
    return x


def make_optimizers(model):
    """Muon for the matrices inside the blocks, AdamW for the rest: embeddings, biases, gains, head."""
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if all(p is not m for m in matrices)]
    return [Muon(matrices, lr=learning_rate, weight_decay=weight_decay),
            torch.optim.AdamW(rest, lr=adamw_learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)]


# ---------------------------------------------------------------- training

def lr_scale(step):
    """The share of the full learning rate at a step: up over warmup_iters, then down to 0 in a straight line."""
    return min((step + 1) / (warmup_iters + 1), 1 - step / max_iters)


@torch.no_grad()
def estimate_loss(model, data, count=None):
    """Mean loss a character over data (N,), dropout off, in nats: over windows that tile it without overlap.

    With a count, over that many of them, evenly spread and always the same, so the curve shows learning
    and not the luck of the draw.
    """
    model.eval()
    starts = np.arange(0, len(data) - block_size, block_size)
    if count and count < len(starts):
        starts = starts[np.linspace(0, len(starts) - 1, count).astype(int)]
    batches = [starts[i:i + 16] for i in range(0, len(starts), 16)]
    total = sum(model(*windows(data, batch))[1].item() * len(batch) for batch in batches)
    model.train()
    return total / len(starts)


def train(run, data, report):
    """Train run.model on data['train'] up to max_iters, and report the losses every eval_interval steps."""
    model = parallel(run.model)
    while True:
        if run.step % eval_interval == 0 or run.step == max_iters:
            report({split: estimate_loss(run.model, tokens, eval_windows) for split, tokens in data.items()})
        if run.step >= max_iters or run.stopped():
            break
        for optimizer, lr in zip(run.optimizers, (learning_rate, adamw_learning_rate)):
            for group in optimizer.param_groups:
                group['lr'] = lr * lr_scale(run.step)
        x, y = get_batch(data['train'], run.generator)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == 'cuda'):
            logits, loss = model(x, y)
        run.check(loss.item())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        run.step += 1


# ---------------------------------------------------------------- plumbing
# Nothing below is about GPT: it reads flags and files, and keeps a run safe from whatever may stop it.

rank, world_size = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))  # set by torchrun

# every hyperparameter by name, with its comment, read from the top of this file
TOP = Path(__file__).read_text(encoding='utf-8').split('# ----')[0]
COMMENTS = dict(re.findall(r'^(\w+) = .+?  # (.+)$', TOP, re.M))
SIZES = ('block_size', 'n_embd', 'num_heads', 'num_layers')       # what gives the weights their shapes
FREE = ('max_iters', 'device', 'compile', 'resume', 'prompt', 'max_new_tokens', 'temperature', 'top_k', 'kv_cache',
        'sample_only', 'out_dir')                                 # what may change when a run goes on

# what a saved file has, and of what kind
PARTS = {'model.pt': {'weights': dict, 'vocab': str, 'step': int, 'best': float, 'hyperparameters': dict}}
PARTS['checkpoint.pt'] = PARTS['model.pt'] | {
    'optimizers': list, 'history': list, 'seconds': float, 'world_size': int, 'random': list}


def main():
    given = configure(sys.argv[1:])
    if sample_only:
        saved = load('model.pt', given, SIZES)
        model = GPT(len(saved['vocab'])).to(device)
        put_weights(model, saved, 'model.pt')
        return write_text(model, saved['vocab'])

    saved = load('checkpoint.pt', given, COMMENTS.keys() - FREE) if resume else None
    data, vocab = load_data()
    encode(prompt, vocab)
    start_processes()
    run = Run(vocab)
    if saved:
        run.restore(saved)
    elif rank == 0:
        keep_previous()
    if rank == 0:
        parameters = sum(p.numel() for p in run.model.parameters())
        print(f'{parameters / 1e6:.2f} M parameters on {device}, {len(data["train"]):,} characters to learn from, '
              f'{len(data["val"]):,} to test on, {len(vocab)} distinct: a blind guess costs ln({len(vocab)}) = '
              f'{math.log(len(vocab)):.2f}', flush=True)
    signal.signal(signal.SIGINT, run.on_signal)
    signal.signal(signal.SIGTERM, run.on_signal)
    train(run, data, run.report)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if run.step < max_iters:
        run.save()
        if rank == 0:
            print(f'Stopped at step {run.step}, and all is in {out_dir}/checkpoint.pt. To go on: {how_to_resume()}')
    elif rank == 0:
        put_weights(run.model, load('model.pt', {}, ()), 'model.pt')
        print(f'Done in {clock(run.seconds())}. The best weights are in {out_dir}/model.pt, with validation loss ',
              end='', flush=True)  # of a long text this takes a while
        print(f'{estimate_loss(run.model, data["val"]):.4f} over all {len(data["val"]):,} characters. They write:')
        write_text(run.model, vocab)
    if world_size > 1:
        torch.distributed.destroy_process_group()
    if run.signal:
        sys.exit(128 + run.signal)


class Run:
    """A training run: all that must be kept to go on with it as if it had never stopped."""

    def __init__(self, vocab):
        torch.manual_seed(seed)
        self.vocab = vocab
        self.model = GPT(len(vocab)).to(device)
        self.optimizers = make_optimizers(self.model)
        self.generator = torch.Generator().manual_seed(seed)  # draws the batches, alike in all processes
        torch.manual_seed(seed + rank)                        # draws the dropout, in each process its own
        self.step, self.best, self.history, self.signal = 0, math.inf, [], 0
        self.begun = self.reported = time.perf_counter()
        self.reported_step = 0

    def seconds(self):
        return time.perf_counter() - self.begun

    def on_signal(self, signum, frame):
        """Let the step in hand end; a second signal ends the process at once."""
        self.signal = signum
        signal.signal(signum, signal.SIG_DFL)

    def stopped(self):
        """Whether a signal asked this process, or one that it trains with, to stop: all get the same answer."""
        asked = self.signal
        if world_size > 1:
            asked = torch.tensor(asked, device=device)
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            asked = asked.item()
            self.signal = self.signal or asked
        return asked

    def check(self, *losses):
        """End the run, before anything is saved, when a loss is not a number to go on with."""
        for loss in losses:
            if not math.isfinite(loss):
                fail(f'the loss is {loss} at step {self.step}: try a lower learning_rate. '
                     f'{out_dir}/checkpoint.pt is from before')

    def report(self, losses):
        """Tell how the run does, let the model write a line, and save everything."""
        self.check(*losses.values())
        if rank > 0:
            return
        now = time.perf_counter()
        steps = self.step - self.reported_step
        characters = steps * world_size * batch_size * block_size
        print(f'step {self.step:5}   train {losses["train"]:.4f}   val {losses["val"]:.4f}',
              f'{characters / (now - self.reported):,.0f} characters/s' if steps else '',
              f'{clock(self.seconds())} gone',
              f'{clock(self.seconds() / self.step * (max_iters - self.step))} left' if steps else '', sep='   ')
        print('            ' + self.sample(), flush=True)

        row = (self.step, round(self.seconds(), 2), losses['train'], losses['val'])
        self.history = [earlier for earlier in self.history if earlier[0] < self.step] + [row]
        if losses['val'] < self.best:
            self.best = losses['val']
            save('model.pt', self.trained())
        lines = ['{},{:.2f},{:.6f},{:.6f}'.format(*row) for row in self.history]
        write('loss.csv', '\n'.join(['step,seconds,train,val', *lines, '']).encode())
        self.save()
        self.reported, self.reported_step = time.perf_counter(), self.step

    def sample(self):
        """A line of text from the model as it stands, drawn alike every time."""
        self.model.eval()
        dice = torch.Generator(device).manual_seed(seed)
        idx = self.model.generate(encode(prompt, self.vocab), 80, temperature, top_k, dice)
        self.model.train()
        return decode(idx[0, -80:], self.vocab).replace('\n', ' / ')[:80]

    def trained(self):
        return {'weights': self.model.state_dict(), 'vocab': self.vocab, 'step': self.step, 'best': self.best,
                'hyperparameters': {name: globals()[name] for name in COMMENTS}}

    def save(self):
        if rank == 0:
            cuda = torch.cuda.get_rng_state_all() if device == 'cuda' else []
            save('checkpoint.pt', self.trained() | {
                'optimizers': [optimizer.state_dict() for optimizer in self.optimizers],
                'history': self.history, 'seconds': self.seconds(), 'world_size': world_size,
                'random': [self.generator.get_state(), torch.get_rng_state(), *cuda]})

    def restore(self, saved):
        """Go back to where the checkpoint was saved."""
        if saved['vocab'] != self.vocab:
            fail(f'{out_dir}/checkpoint.pt learnt another text than the one in tokens/; run python prepare.py on that')
        if saved['step'] >= max_iters:
            fail(f'the run in {out_dir}/ has all its {max_iters} steps; '
                 f'for more: {how_to_resume()} --max_iters {2 * max_iters}')
        put_weights(self.model, saved, 'checkpoint.pt')
        try:
            for optimizer, state in zip(self.optimizers, saved['optimizers']):
                optimizer.load_state_dict(state)
            self.step, self.best, self.history = saved['step'], saved['best'], saved['history']
            self.reported_step, self.begun = self.step, self.begun - saved['seconds']
            batches, dropout_state, *cuda = saved['random']
            self.generator.set_state(batches)
            torch.set_rng_state(dropout_state)
            if device == 'cuda' and cuda:
                torch.cuda.set_rng_state(cuda[0])
        except Exception:  # broken in whatever way
            fail(f'{out_dir}/checkpoint.pt is damaged; train again, with python bigramv2.py')
        if world_size > 1:
            torch.manual_seed(seed + rank + self.step * world_size)


def configure(argv):
    """Set the hyperparameters that are given as flags, and return those."""
    parser = argparse.ArgumentParser(description='Train a character-level GPT and let it write.', allow_abbrev=False)
    for name, comment in COMMENTS.items():
        default = globals()[name]
        kind = {'action': argparse.BooleanOptionalAction} if isinstance(default, bool) else {'type': type(default)}
        explained = f'{comment} (default: {default!r})'.replace('%', '%%')
        parser.add_argument(f'--{name}', default=argparse.SUPPRESS, help=explained, **kind)
    parser.error = lambda message: parser.exit(2, f'bigramv2.py: {message}; python bigramv2.py --help lists all\n')
    given = vars(parser.parse_args(argv))
    sys.stdout.reconfigure(errors='replace')  # a terminal may lack some of the text's characters
    globals().update(given)
    check_hyperparameters()
    if device == 'cuda':
        torch.set_float32_matmul_precision('high')  # TF32
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)))
    return given


def check_hyperparameters():
    """Refuse, by name, a value that cannot work."""
    whole = {'block_size': 1, 'n_embd': 1, 'num_heads': 1, 'num_layers': 1, 'batch_size': 1, 'max_iters': 1,
             'eval_interval': 1, 'eval_windows': 1, 'warmup_iters': 0, 'seed': 0, 'max_new_tokens': 0, 'top_k': 0}
    for name, least in whole.items():
        if type(globals()[name]) is not int or not least <= globals()[name] < 2 ** 40:
            fail(f'{name} = {globals()[name]!r} must be a whole number from {least} up')
    for name, least, most in (('dropout', 0, 0.99), ('learning_rate', 0, 1e3), ('adamw_learning_rate', 0, 1e3),
                              ('weight_decay', 0, 1e3), ('grad_clip', 0, math.inf), ('temperature', 0, 1e6)):
        if type(globals()[name]) not in (int, float) or not least <= globals()[name] <= most:
            fail(f'{name} = {globals()[name]!r} must lie between {least} and {most}')
    if n_embd % num_heads:
        fail(f'n_embd = {n_embd} must be divisible by num_heads = {num_heads}: each head gets an equal share')
    if not prompt:
        fail("prompt = '' must have a character to go on from")
    here = {'cpu': True, 'cuda': torch.cuda.is_available(), 'mps': torch.backends.mps.is_available()}
    if not here.get(device):
        fail(f'device = {device!r} is not on this machine; there is {", ".join(name for name in here if here[name])}')


def load_data():
    """The token files of prepare.py as memory maps {'train': (N,), 'val': (M,)}, checked, and their vocabulary."""
    again = 'run python prepare.py again'
    try:
        meta = json.loads(Path('tokens/meta.json').read_text(encoding='utf-8'))
        vocab = meta['vocab']
        checksum = zlib.crc32(vocab.encode())
        expected = {split: (int(meta[split]), int(meta[f'{split}_crc32'])) for split in ('train', 'val')}
    except FileNotFoundError:
        fail('tokens/meta.json is missing: run python prepare.py')
    except Exception:  # broken in whatever way
        fail(f'tokens/meta.json is broken: {again}')
    data = {}
    for split, (count, crc32) in expected.items():
        path = Path(f'tokens/{split}.bin')
        if not path.exists():
            fail(f'{path} is missing: {again}')
        if path.stat().st_size != 2 * count or count < 1:
            fail(f'{path} has {path.stat().st_size:,} bytes, not {2 * count:,} as tokens/meta.json says: {again}')
        data[split] = np.memmap(path, dtype='<u2', mode='r')
        if zlib.crc32(data[split], checksum) != crc32:
            largest = data[split].max()
            fail(f'{path} has a token {largest}, outside the {len(vocab)} of tokens/meta.json: {again}'
                 if largest >= len(vocab) else f'{path} and tokens/meta.json do not belong together: {again}')
        if count <= block_size:
            fail(f'{path} has {count} characters, too few for block_size = {block_size}: '
                 'lower it, or prepare a longer text')
    return data, vocab


def encode(text, vocab):
    """Text -> tokens (1, T)."""
    for character in text:
        if character not in vocab:
            fail(f'prompt has {character!r}, which is not in the text that the model knows; '
                 'choose another: --prompt TEXT')
    return torch.tensor([[vocab.index(character) for character in text]], device=device)


def decode(tokens, vocab):
    """Tokens (T,) -> text."""
    return ''.join(vocab[token] for token in tokens)


def write_text(model, vocab):
    """Print the prompt and what the model makes of it, each character as it is drawn."""
    model.eval()
    torch.manual_seed(seed)
    idx = encode(prompt, vocab)
    print(prompt, end='')
    for token in islice(model.stream(idx, temperature, top_k), max_new_tokens):
        print(vocab[token.item()], end='', flush=True)
    print()


def save(name, state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write(name, buffer.getbuffer())


def write(name, data):
    """Replace out_dir/name in one move: at every instant there is one whole file, the new or the old."""
    path = Path(out_dir, name)
    aside = path.with_name(name + '.new')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as e:
        aside.unlink(missing_ok=True)
        fail(f'cannot write {path}: {e.strerror}; what was there before is whole')


def load(name, given, fixed):
    """Read out_dir/name and take over its hyperparameters, those in fixed even against the flags given."""
    path = Path(out_dir, name)
    try:
        if zipfile.ZipFile(path).testzip():  # compares checksums, which torch.load does not
            raise zipfile.BadZipFile
        saved = torch.load(path, map_location='cpu', weights_only=True)  # runs no code from the file
        before = {name: saved['hyperparameters'][name] for name in fixed}
        if not all(isinstance(saved[part], kind) for part, kind in PARTS[name].items()):
            raise TypeError
        if name == 'checkpoint.pt':
            before['max_iters'] = given.get('max_iters', saved['hyperparameters']['max_iters'])
            whole_batch = saved['hyperparameters']['batch_size'] * saved['world_size']
            share, left = divmod(whole_batch, world_size)  # there may be more processes now, or fewer
    except FileNotFoundError:
        fail(f'{path} does not exist: train first, with python bigramv2.py')
    except Exception:  # broken in whatever way
        fail(f'{path} is damaged or not a file of this program; train again, with python bigramv2.py')
    if name == 'checkpoint.pt':
        if left:
            fail(f'{world_size} processes cannot share the batch of {whole_batch} in {path}: take a divisor of it')
        before['batch_size'] = share
    for name, value in before.items():
        if given.get(name, value) != value:
            fail(f'{name} = {given[name]!r} contradicts {path}, which has {value!r}; leave it out')
    globals().update(before)
    check_hyperparameters()
    return saved


def put_weights(model, saved, name):
    try:
        model.load_state_dict(saved['weights'])
    except (RuntimeError, AttributeError):
        fail(f'the weights in {out_dir}/{name} have other shapes than this bigramv2.py; train again')


def keep_previous():
    """Before a new run replaces one in out_dir, move that to out_dir/previous, unless a better one is there."""
    out, previous = Path(out_dir), Path(out_dir, 'previous')
    if not (out / 'model.pt').exists():
        return
    old, older = loss_of(out / 'model.pt'), loss_of(previous / 'model.pt')
    if older < old:
        print(f'{out}/ has a run with validation loss {old:.4f}, which this one replaces; '
              f'{previous}/ keeps a better one, {older:.4f}')
        return
    print(f'{out}/ has a run with validation loss {old:.4f}, which is now in {previous}/'
          + (f', in place of one with {older:.4f}' if older < math.inf else ''))
    previous.mkdir(exist_ok=True)
    for name in ('checkpoint.pt', 'loss.csv', 'model.pt'):
        if (out / name).exists():
            os.replace(out / name, previous / name)


def loss_of(path):
    try:
        return float(torch.load(path, map_location='cpu', weights_only=True)['best'])
    except Exception:
        return math.inf


def start_processes():
    """Under torchrun, meet the other processes."""
    if world_size > 1:
        torch.distributed.init_process_group('nccl' if device == 'cuda' else 'gloo', timeout=timedelta(minutes=10))


def parallel(model):
    """The model for the loop: compiled on CUDA, and under torchrun averaging its gradients with the others'."""
    if compile and device == 'cuda':
        model = torch.compile(model)
    if world_size > 1:
        model = nn.parallel.DistributedDataParallel(model)
    return model


def how_to_resume():
    return 'python bigramv2.py --resume' + (f' --out_dir {out_dir}' if out_dir != 'out' else '')


def clock(seconds):
    return f'{int(seconds) // 60}:{int(seconds) % 60:02}'


def fail(message):
    sys.exit(f'bigramv2.py: {message}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has gone
        os._exit(1)
    except (RuntimeError, MemoryError) as e:
        if 'memory' in str(e) or isinstance(e, MemoryError):
            fail('this does not fit into memory: lower batch_size, block_size or n_embd')
        if world_size == 1:
            raise
        fail(f'a process that this one trains with has ended, and so does the run. To go on: {how_to_resume()}')
