"""A GPT in one short file, the first version: one module for each attention head.

It began life as a bigram model, a table that guesses the next character from the last one alone, and
kept the name while it grew heads, blocks and a memory of block_size characters. bigramv2.py is the
second chapter: the same model with all heads computed at once, trained to learn much faster.

Shapes: B batch, T time, C channels (n_embd), D head size, V vocabulary.
"""
import sys
import time

import torch
import torch.nn as nn
from torch.nn import functional as F

batch_size = 16       # B: how many pieces of text a step learns from
block_size = 64       # T: how many characters back the model can look
max_iters = 4500      # training steps
eval_interval = 500   # steps between two looks at the loss
eval_iters = 40       # batches that a look averages over
learning_rate = 2e-3  # AdamW's
n_embd = 96           # C: channels, the width of the model
num_heads = 4         # attention heads in a block, each of size D = C / num_heads
num_layers = 3        # blocks
dropout = 0.0         # share of activations zeroed in training, against overfitting
seed = 1337
device = 'cuda' if torch.cuda.is_available() else 'cpu'


# Data: the text is one long row of numbers, and a batch is B pieces cut from it.

def read(path):
    """Return a text's vocabulary (its distinct characters, sorted) and the text as tokens (N,)."""
    try:
        with open(path, encoding='utf-8') as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as e:
        sys.exit(f'bigram.py: cannot read {path} as UTF-8 text: {e}')
    vocab = sorted(set(text))
    stoi = {character: i for i, character in enumerate(vocab)}
    return vocab, torch.tensor([stoi[character] for character in text], dtype=torch.long)


def get_batch(data):
    """Return inputs (B, T) and targets (B, T): at each position, the character that comes next."""
    ix = torch.randint(len(data) - block_size, (batch_size,))
    x = torch.stack([data[i:i + block_size] for i in ix])
    y = torch.stack([data[i + 1:i + block_size + 1] for i in ix])
    return x.to(device), y.to(device)


# Attention (Vaswani et al. 2017, "Attention is all you need", section 3.2)

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


# The model

class FeedForward(nn.Module):
    """Each position thinks for itself about what it has gathered: (B, T, C) -> (B, T, C)."""

    def __init__(self, n_embd):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd),  # (B, T, 4C)
            nn.ReLU(),
            nn.Linear(4 * n_embd, n_embd),  # (B, T, C)
            nn.Dropout(dropout),
        )

    def forward(self, x):
        return self.net(x)


class Block(nn.Module):
    """Communication, then computation, each added to what was there: (B, T, C) -> (B, T, C)."""

    def __init__(self, n_embd, num_heads):
        super().__init__()
        self.sa = MultiHeadAttention(num_heads, n_embd // num_heads)
        self.ffwd = FeedForward(n_embd)
        self.ln1 = nn.LayerNorm(n_embd)
        self.ln2 = nn.LayerNorm(n_embd)

    def forward(self, x):
        x = x + self.sa(self.ln1(x))
        x = x + self.ffwd(self.ln2(x))
        return x


class GPT(nn.Module):
    """Tokens in, a guess at each next token out: (B, T) -> (B, T, V)."""

    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.blocks = nn.Sequential(*[Block(n_embd, num_heads) for _ in range(num_layers)])
        self.ln = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab_size)

    def forward(self, idx, targets=None):
        T = idx.shape[1]
        x = self.token_embedding(idx)                                            # (B, T, C): what
        x = x + self.position_embedding(torch.arange(T, device=idx.device))      # + (T, C): where
        x = self.blocks(x)
        logits = self.head(self.ln(x))                                           # (B, T, V)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())  # (B*T, V), (B*T,) -> ()

    @torch.no_grad()
    def generate(self, idx, max_new_tokens):
        """Continue idx (B, T) by max_new_tokens, each drawn from the model's own guess."""
        for _ in range(max_new_tokens):
            logits, _ = self(idx[:, -block_size:])
            probs = F.softmax(logits[:, -1], dim=-1)  # (B, V), of the last position
            idx = torch.cat((idx, torch.multinomial(probs, num_samples=1)), dim=1)  # (B, T + 1)
        return idx


# Training

@torch.no_grad()
def estimate_loss(model, data):
    """Mean loss over eval_iters batches, dropout off."""
    model.eval()
    loss = torch.stack([model(*get_batch(data))[1] for _ in range(eval_iters)]).mean()
    model.train()
    return loss.item()


def main():
    torch.manual_seed(seed)
    vocab, tokens = read('input.txt')
    n = int(0.9 * len(tokens))
    train_data, val_data = tokens[:n], tokens[n:]
    if len(val_data) <= block_size:
        sys.exit(f'bigram.py: input.txt is too short: a tenth of it must exceed block_size = {block_size} characters')
    model = GPT(len(vocab)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)

    start = time.time()
    for step in range(max_iters + 1):
        if step % eval_interval == 0 or step == max_iters:
            train_loss, val_loss = estimate_loss(model, train_data), estimate_loss(model, val_data)
            print(f'step {step:5}: train {train_loss:.4f}, val {val_loss:.4f}, {time.time() - start:.0f} s', flush=True)
        if step == max_iters:
            break
        logits, loss = model(*get_batch(train_data))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.eval()
    first = torch.zeros((1, 1), dtype=torch.long, device=device)
    print(''.join(vocab[i] for i in model.generate(first, max_new_tokens=500)[0]))


if __name__ == '__main__':
    main()
