"""Exercise 9: counting triples.

Two characters say more about the next one than one does: the validation loss falls from 2.48 to 2.06. Quadruples still
help, with 1.94. Then it gets worse: 2.15 with five, 2.57 with six. The table has 63 times as many rows each time, but
the text has no more characters to fill them. Of the 3,969 rows for two characters the text fills 1,377. Of the 250,047
for three it fills 11,234, and of the 15.8 million for four, 48,610. So most rows have seen little or nothing, and
what they have seen is remembered, not learnt. A Transformer has no row for each context. It shares what it has learnt
between contexts that are alike, and so it can look 128 characters back.

Starting each count at 1 is the worst part of it. experiments/counting.py fills a poor row from the row with one
character less, and ends at 1.51 with six characters.
"""
import numpy as np
import shared
import torch
from torch.nn import functional as F

EDITS = [('# Attention (Vaswani', '''\
def count_triples(data, vocab_size):
    """Count which token follows which two in data (N,). Return logits (V, V, V): row a, b is for what follows them."""
    counts = torch.ones(vocab_size, vocab_size, vocab_size)
    tokens = data.tolist()
    for (a, b, c), count in Counter(zip(tokens, tokens[1:], tokens[2:])).items():
        counts[a, b, c] += count
    probs = counts / counts.sum(dim=-1, keepdim=True)       # (V, V, V) / (V, V, 1) -> (V, V, V)
    return probs.log()


# Attention (Vaswani''')]


def before():
    return shared.program(file='bigram.py')


def after():
    return shared.program(*EDITS, file='bigram.py')


def check(program):
    assert hasattr(program, 'count_triples'), 'There is no function count_triples in bigram.py.'
    data, vocab = shared.tokens(shared.SHAKESPEARE)
    train, val = (torch.from_numpy(data[split].astype(np.int64)) for split in ('train', 'val'))
    table = program.count_triples(train, len(vocab))
    loss = F.cross_entropy(table[val[:-2], val[1:-1]], val[2:]).item()
    pairs = F.cross_entropy(program.count_pairs(train, len(vocab))[val[:-1]], val[1:]).item()
    assert abs(loss - 2.06) < 0.02, f'The loss of the triples is {loss:.3f}.'
    return f'Validation loss {loss:.3f} with triples, {pairs:.3f} with pairs.'


def loss_of_counts(data, V, n):
    """The validation loss when each token is predicted from the n - 1 before it, with counts that start at 1."""
    def numbers(tokens, n):  # one number for each piece of n tokens
        return sum(tokens[i:len(tokens) - n + 1 + i].astype(np.int64) * V ** i for i in range(n))

    def counts(n, last):  # how often the training text has each piece of the validation text, without its end
        seen, count = np.unique(numbers(data['train'], n), return_counts=True)
        asked = numbers(data['val'][:len(data['val']) - last], n)
        place = np.searchsorted(seen, asked).clip(max=len(seen) - 1)
        return np.where(seen[place] == asked, count[place], 0)

    return -np.log((counts(n, 0) + 1) / (counts(n - 1, 1) + V)).mean()


def long_check(program):
    check(program)
    data, vocab = shared.tokens(shared.SHAKESPEARE)
    losses = {n: loss_of_counts(data, len(vocab), n) for n in range(2, 8)}
    assert min(losses, key=losses.get) == 4, losses
    return 'Validation loss: ' + ', '.join(f'{loss:.3f} with {n}' for n, loss in losses.items())


if __name__ == '__main__':
    shared.main(before, after, check, long_check)
