"""Counting instead of learning, the rival that costs nothing: python experiments/counting.py [TEXT]

The table of bigram.py counts which character follows one character. Here the tables for 0, 1, 2, ... characters are
blended by Kneser and Ney's method (1995): every count gives DISCOUNT away, and what is given away goes to the guess of
the table with one character less. For that guess, each piece of text counts once for each different character before
it, not as often as it occurs: "OMEO" is frequent, but it only ever follows "R".

Writes results/counting.csv, a row for each number of characters. With a TEXT (a file) it only prints that text's rows.
"""
import time

import numpy as np
from common import ARGS, QUICK, bigramv2, read, write
from numpy.lib.stride_tricks import sliding_window_view

import bigram

MOST = 3 if QUICK else 8  # characters in a piece: those that are looked at, and the one that they predict
DISCOUNT = 0.9            # best of 0.75, 0.8, ... 0.95 on the last tenth of the training part of input.txt


def number(a, b):
    """Number the pairs of whole numbers a (M,) and b (M,), from 0 on: equal pairs get equal numbers (M,)."""
    return np.unique(a * (b.max() + 1) + b, return_inverse=True)[1]


def blended(context, piece, places, asked, shorter):
    """The probabilities (M,) of the last characters at the places `asked` (M,), counted at other places (N,).

    context and piece say by number what stands at a place: the characters looked at, and these with the next one.
    shorter (M,) are the probabilities with one character less.
    """
    different = places[np.unique(piece[places], return_index=True)[1]]  # one place of each different piece
    count = np.bincount(piece[places], minlength=piece.max() + 1)[piece[asked]]
    total, kinds = (np.bincount(context[some], minlength=context.max() + 1)[context[asked]]
                    for some in (places, different))
    given = np.maximum(count - DISCOUNT, 0) + DISCOUNT * kinds * shorter
    return np.where(total > 0, given / np.maximum(total, 1), shorter)


def probabilities(train, asked, V):
    """For pieces of 1, 2, ... characters, counted in train (N,): yield the probability (M,) of the last token in each
    row of asked (M, MOST), and how many different beginnings the pieces have."""
    rows = np.concatenate((sliding_window_view(train, MOST), asked)).astype(np.int64)
    learnt, asked = np.split(np.arange(len(rows)), [len(rows) - len(asked)])
    context, piece, shorter = np.zeros(len(rows), dtype=np.int64), rows[:, -1], np.full(len(asked), 1 / V)
    for before in [*rows.T[-2::-1], None]:  # the tokens one place further back; None: no more
        yield blended(context, piece, learnt, asked, shorter), len(np.unique(context[learnt]))
        if before is not None:
            longer = number(piece, before)
            once = np.unique(longer[learnt], return_index=True)[1]  # a piece counts once for each token before it
            shorter = blended(context, piece, once, asked, shorter)
            context, piece = number(context, before), longer


def load():
    """The training tokens (N,), the validation tokens (M,) and V, of the text that is named, or of tokens/."""
    if ARGS:
        vocab, tokens = bigram.read(ARGS[0])
        return *np.split(tokens.numpy(), [len(tokens) * 9 // 10]), len(vocab)
    data, meta = bigramv2.load_data()
    return data['train'], data['val'], len(meta['vocab'])


def main():
    train, val, V = load()
    windows = sliding_window_view(np.concatenate((train[1 - MOST:], val)), MOST)  # (M, MOST), all of val last
    every = np.repeat(windows[::max(1, len(windows) // 1000)], V, axis=0)         # a thousand of them, with each
    every[:, -1] = np.arange(len(every)) % V                                      # of the V tokens at the end
    begun, rows = time.process_time(), []
    for n, (probs, contexts) in enumerate(probabilities(train, np.concatenate((windows, every)), V), 1):
        assert np.allclose(probs[len(val):].reshape(-1, V).sum(axis=1), 1)
        rows.append({'characters': n, 'val': f'{-np.log(probs[:len(val)]).mean():.4f}',
                     'seconds': f'{time.process_time() - begun:.1f}', 'contexts': contexts})
        print('{characters} characters: validation loss {val}, {seconds} s, {contexts:,} contexts'.format(**rows[-1]))
    if not ARGS and not read('counting.csv'):
        write('counting.csv', rows)


if __name__ == '__main__':
    main()
