"""The two pictures of chapter one's running example: python experiments/one_head.py

Draws the mask for `hell`, and one head in the numbers of the README: from the vectors of the four characters to the
result, which is added to them. The numbers are those that bigram.Head computes.
"""
from itertools import count, product

import torch
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from pictures import BLUE, ORANGE, WIDTH, plt, save
from torch.nn import functional as F

import bigram

SEEN, NEXT = 'hell', 'ello'
KINDS = 'vowel', 'cons.'                                    # how much of a vowel, how much of a consonant
X = torch.tensor([[0., 1.], [2., 0.], [0., 2.], [0., 2.]])  # (T, C)
MATRICES = {'query': torch.tensor([[0., 1.], [0.5, 0.]]), 'key': torch.eye(2), 'value': torch.eye(2)}  # (D, C) each
LATER = torch.ones(4, 4).triu(1) == 1                       # (T, T): what the mask hides
HIDDEN, LINE = '#e4e4e4', '#a0a0a0'
LETTER = {'family': 'monospace'}                            # where an l does not look like an I
COLOURS = LinearSegmentedColormap.from_list('from orange to blue', [ORANGE, 'white', BLUE]).with_extremes(bad=HIDDEN)
CELL, ROW = (0.4, 0.29), 1.8  # inches: width and height of a cell, height of a row of matrices with their titles


def grid(axis, rows, columns):
    """Thin lines around every cell, and the names of the columns above."""
    axis.grid(False)
    axis.set_xticks([column - 0.5 for column in range(1, columns)], minor=True)
    axis.set_yticks([row - 0.5 for row in range(1, rows)], minor=True)
    axis.grid(which='minor', color=LINE, lw=0.8, alpha=1)
    axis.xaxis.tick_top()
    axis.tick_params(which='both', length=0)
    axis.spines[:].set(color=LINE, visible=True)


def cells(axis, title, numbers, names, largest=4):
    """A matrix (T, columns) as coloured cells with its numbers. In one of (T, T), what the mask hides is grey."""
    hidden = LATER[:, :len(names)] & (len(names) == len(SEEN))
    axis.imshow(numbers.masked_fill(hidden, float('nan')), cmap=COLOURS, vmin=-largest, vmax=largest, aspect='auto')
    digits = 0 if torch.equal(numbers, numbers.round()) else 2
    for row, column in product(range(len(SEEN)), range(len(names))):
        number = numbers[row, column].item()
        colour = 'grey' if hidden[row, column] else 'white' if abs(number) > 0.7 * largest else 'black'
        axis.text(column, row, f'{number:.{digits}f}'.replace('inf', '∞').replace('-', '−'), color=colour, fontsize=8,
                  ha='center', va='center')
    axis.set_title(title)
    axis.set_xticks(range(len(names)), names, fontsize=8, **(LETTER if len(names) == len(SEEN) else {}))
    axis.set_yticks(range(len(SEEN)), SEEN, **LETTER)
    grid(axis, *numbers.shape)


def one_head():
    q, k, v = (X @ MATRICES[name].T for name in ('query', 'key', 'value'))  # (T, D) each
    scores = q @ k.T                                                        # (T, T)
    masked = (scores / 2 ** 0.5).masked_fill(LATER, float('-inf'))
    weights = F.softmax(masked, dim=-1)
    result = weights @ v                                                    # (T, D)

    bigram.n_embd, bigram.block_size, bigram.dropout = 2, 4, 0.0
    head = bigram.Head(2)
    for name, matrix in MATRICES.items():
        getattr(head, name).weight.data = matrix
    torch.testing.assert_close(head(X[None])[0].detach(), result)           # the picture is that of the class

    numbers, figure = count(1), plt.figure(figsize=(WIDTH, 2 * ROW))
    for bottom, matrices in (
            (ROW, [('x', X, KINDS), ('query', q, KINDS), ('key', k, KINDS), ('value', v, KINDS),
                   ('scores: query · key', scores, SEEN)]),
            (0, [('divided by √2, masked', masked, SEEN), ('softmax: weights', weights, SEEN, 1),
                 ('result', result, KINDS), ('x + result', X + result, KINDS)])):
        widths, left = [CELL[0] * len(names) for _, _, names, *_ in matrices], 0.4
        for width, (title, *rest) in zip(widths, matrices):
            axis = figure.add_axes((left / WIDTH, (bottom + 0.12) / 2 / ROW, width / WIDTH, 2 * CELL[1] / ROW))
            cells(axis, f'{next(numbers)}. {title}', *rest)
            left += width + (WIDTH - 0.5 - sum(widths)) / (len(widths) - 1)
    save(figure, 'one_head.png')


def mask():
    T = len(SEEN)
    figure, axis = plt.subplots(figsize=(3.2, 2.6), layout='constrained')
    axis.imshow(~LATER, cmap=ListedColormap([HIDDEN, BLUE]))
    axis.set_xticks(range(T), SEEN, **LETTER)
    axis.set_yticks(range(T), SEEN, **LETTER)
    axis.xaxis.set_label_position('top')
    axis.set_xlabel('position that is looked at')
    axis.set_ylabel('position that looks')
    grid(axis, T, T)
    for row, character in enumerate(NEXT):
        axis.text(T - 0.3, row, f'→ {character}', va='center', color=ORANGE, fontweight='bold', **LETTER)
    axis.text(T + 0.6, (T - 1) / 2, 'to be predicted', va='center', ha='center', rotation=270, color=ORANGE)
    save(figure, 'mask.png')


if __name__ == '__main__':
    mask()
    one_head()
