"""A GPT in one short file, to be read from the top: python bigram.py

Chapter one begins with a table that counts which character follows which. (A bigram is a pair of characters.)
Then comes the Transformer, which looks further back. Each of its attention heads is a module of its own.
Chapter two, bigramv2.py, computes all heads at once and learns faster.

Shapes: B batch, T time (positions), C channels (n_embd), H heads, D head size (C / H), V vocabulary.
() is a single number, and an arrow stands between the shapes of what goes in and what comes out.
"""
import sys
import time
from collections import Counter
from itertools import pairwise

import torch
import torch.nn as nn
from torch.nn import functional as F

batch_size = 16       # B: pieces of text in a training step
block_size = 64       # T: how many characters the model sees at once
max_iters = 4500      # training steps
eval_interval = 500   # steps between two looks at the loss
eval_iters = 40       # batches that a look averages over
learning_rate = 2e-3  # size of AdamW's steps
n_embd = 96           # C: channels, the width of the model
num_heads = 4         # H: attention heads in a block, each of size D = C / H
num_layers = 3        # how many blocks, one after the other
dropout = 0.0         # share of numbers set to 0 in training, against overfitting
seed = 1337           # same seed, same machine: same result (on a CPU)
device = 'cuda' if torch.cuda.is_available() else 'cpu'


# Data: the text becomes one long row of numbers, and a batch is B pieces cut from it.

def read(path):
    """Return the vocabulary of a text (its different characters, sorted) and the text as tokens (N,)."""
    with open(path, encoding='utf-8-sig') as file:  # UTF-8; -sig: less the byte order mark that some files begin with
        text = file.read()                          # any line end becomes \n
    vocab = sorted(set(text))                       # each character once, in sorted order
    token_of = {character: token for token, character in enumerate(vocab)}  # a token is a place in the vocabulary
    return vocab, torch.tensor([token_of[character] for character in text], dtype=torch.long)  # (N,), whole numbers


def get_batch(data):
    """Cut B random pieces out of data (N,). Return inputs (B, T), and targets (B, T): the token that comes next."""
    # The last place to start at leaves room for T tokens and one more.
    starts = torch.randint(len(data) - block_size, (batch_size,))       # (B,): where the pieces start
    x = torch.stack([data[i:i + block_size] for i in starts])           # (B, T)
    y = torch.stack([data[i + 1:i + block_size + 1] for i in starts])   # (B, T), one place further on
    return x.to(device), y.to(device)                                   # to the CPU or GPU that computes


# Counting pairs: the simplest model. It sees one character and nothing before it.

def count_pairs(data, vocab_size):
    """Count which token follows which in data (N,). Return logits (V, V): row a is for the token that follows a."""
    counts = torch.ones(vocab_size, vocab_size)       # start at 1, so that no pair is impossible
    for (a, b), n in Counter(pairwise(data.tolist())).items():
        counts[a, b] += n                             # the row is the first of the pair, the column the second
    probs = counts / counts.sum(dim=1, keepdim=True)  # (V, V) / (V, 1) -> (V, V), each row sums to 1
    return probs.log()                                # logits: the softmax turns them back into probs


# Attention (Vaswani et al. 2017, "Attention is all you need", section 3.2)

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


# The model

class FeedForward(nn.Module):
    """A small network that works on each position by itself: (B, T, C) -> (B, T, C)."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(n_embd, 4 * n_embd)
        self.proj = nn.Linear(4 * n_embd, n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = F.relu(self.fc(x))                                     # (B, T, 4C), never below 0
        return self.dropout(self.proj(x))                          # (B, T, C), projection and dropout


class Block(nn.Module):
    """Attention, then feed-forward. Each adds its output to the stream x: (B, T, C) -> (B, T, C)."""

    def __init__(self):
        super().__init__()
        self.sa = MultiHeadAttention(num_heads, n_embd // num_heads)
        self.ffwd = FeedForward()
        self.ln1 = nn.LayerNorm(n_embd)
        self.ln2 = nn.LayerNorm(n_embd)

    def forward(self, x):
        # Each part reads a normalised copy of the stream, and its result is added to the stream.
        x = x + self.sa(self.ln1(x))                               # (B, T, C)
        x = x + self.ffwd(self.ln2(x))                             # (B, T, C)
        return x


class GPT(nn.Module):
    """Predicts the next token at each position: tokens (B, T) -> logits (B, T, V)."""

    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.blocks = nn.Sequential(*[Block() for _ in range(num_layers)])
        self.ln = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab_size)

    def forward(self, idx, targets=None):
        positions = torch.arange(idx.shape[1], device=idx.device)           # (T,): 0, 1, 2, ..., on the device of idx
        x = self.token_embedding(idx) + self.position_embedding(positions)  # (B, T, C) + (T, C) -> (B, T, C)
        x = self.blocks(x)                                                  # (B, T, C), through all blocks
        logits = self.head(self.ln(x))                                      # (B, T, V), of the normalised stream
        if targets is None:  # without targets there is no loss
            return logits, None
        # Each position of each text is one classification into V classes, so lay all B * T of them in one row.
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())  # (B * T, V), (B * T,) -> ()

    @torch.no_grad()
    def generate(self, idx, max_new_tokens):
        """Continue the tokens idx (B, T): (B, T + max_new_tokens)."""
        for _ in range(max_new_tokens):
            logits, _ = self(idx[:, -block_size:])         # (B, T, V), from the last block_size tokens
            probs = F.softmax(logits[:, -1], dim=-1)       # (B, V), of the last position
            new = torch.multinomial(probs, num_samples=1)  # (B, 1), drawn with these probabilities
            idx = torch.cat((idx, new), dim=1)             # (B, T + 1), appended
        return idx


# Training

def train_step(model, optimizer, x, y):
    """Change all parameters a little: the loss on inputs x and targets y, (B, T) each, should fall. Return it, ()."""
    logits, loss = model(x, y)  # (B, T, V), ()
    optimizer.zero_grad()       # forget the gradients of the step before
    loss.backward()             # the gradient of the loss for each parameter
    optimizer.step()            # a small step against the gradients
    return loss


@torch.no_grad()
def estimate_loss(model, data):
    """Mean loss over eval_iters random batches, without dropout."""
    model.eval()
    losses = []
    for _ in range(eval_iters):
        x, y = get_batch(data)      # (B, T) each
        logits, loss = model(x, y)  # (B, T, V), ()
        losses.append(loss.item())
    model.train()
    return sum(losses) / eval_iters


def main():
    if hasattr(sys.stdout, 'reconfigure'):  # a notebook's lacks it
        sys.stdout.reconfigure(encoding='utf-8')  # for texts in any script
    torch.manual_seed(seed)
    try:
        vocab, tokens = read('input.txt')
    except (OSError, UnicodeDecodeError) as e:
        sys.exit(f'bigram.py: cannot read input.txt as UTF-8 text: {e}')
    n = int(0.9 * len(tokens))
    train_data, val_data = tokens[:n], tokens[n:]
    if len(val_data) <= block_size:
        sys.exit(f'bigram.py: input.txt is too short: a tenth of it must exceed block_size = {block_size} characters')
    if len(vocab) > 10_000:
        sys.exit(f'bigram.py: input.txt has {len(vocab):,} different characters; 10,000 are the most')

    table = count_pairs(train_data, len(vocab))
    loss = F.cross_entropy(table[val_data[:-1]], val_data[1:])  # (N - 1, V), (N - 1,) -> ()
    written = [0]  # token 0 is the first of the vocabulary: in this text the line end
    for _ in range(80):
        probs = F.softmax(table[written[-1]], dim=-1)  # (V,), the row of the last token
        written.append(torch.multinomial(probs, num_samples=1).item())
    print(f'Counting pairs: val {loss:.4f}. The table writes:')
    print(''.join(vocab[token] for token in written[1:]).replace('\n', ' / '))

    model = GPT(len(vocab)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    print(f'The Transformer, with {sum(p.numel() for p in model.parameters()):,} parameters on {device}:', flush=True)
    start = time.time()
    for step in range(max_iters + 1):  # the last round only looks at the loss
        if step % eval_interval == 0 or step == max_iters:
            train_loss, val_loss = estimate_loss(model, train_data), estimate_loss(model, val_data)
            print(f'step {step:5}: train {train_loss:.4f}, val {val_loss:.4f}, {time.time() - start:.0f} s', flush=True)
        if step == max_iters:
            break
        train_step(model, optimizer, *get_batch(train_data))

    model.eval()
    first = torch.zeros((1, 1), dtype=torch.long, device=device)  # (B, T) = (1, 1): token 0, the line end again
    text = model.generate(first, max_new_tokens=500)[0, 1:]  # (1, 501) -> (500,)
    print('It writes:\n' + ''.join(vocab[token] for token in text))
    print('Next: python prepare.py, then python bigramv2.py')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        print('bigram.py: stopped', file=sys.stderr)
        sys.exit(130)
