"""The two pictures of chapter one: python experiments/one_head.py

Draws the mask for eight characters, and the worked example of the README step by step: the scores of four
positions, the scores with the mask, the weights and the result. The numbers are those that bigram.Head computes.
"""
import sys
from pathlib import Path

import matplotlib
import torch
from torch.nn import functional as F

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import LinearSegmentedColormap, ListedColormap  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'experiments' / 'results'
sys.path.insert(0, str(ROOT))

import bigram  # noqa: E402

WORD = 'farewells'
CHARACTERS = 'hell'
X = torch.tensor([[0., 1.], [2., 0.], [0., 2.], [0., 2.]])  # (T, C): how much of a vowel, how much of a consonant
MATRICES = {'query': torch.tensor([[0., 1.], [0.5, 0.]]), 'key': torch.eye(2),
            'value': torch.tensor([[1., -1.], [1., 1.]])}   # (D, C) each
BLUE, ORANGE, GREY, LINE = '#1f77b4', '#ff7f0e', '#e4e4e4', '#a0a0a0'
BLUES = LinearSegmentedColormap.from_list('from white to blue', ['white', BLUE])
BOTH = LinearSegmentedColormap.from_list('from orange to blue', [ORANGE, 'white', BLUE])
plt.rcParams |= {'font.size': 10, 'savefig.dpi': 130, 'savefig.facecolor': 'white'}


def save(figure, name):
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / name, bbox_inches='tight')
    plt.close(figure)
    print(f'experiments/results/{name}')


def grid(axis, rows, columns):
    """Thin lines around every cell."""
    axis.set_xticks([column - 0.5 for column in range(1, columns)], minor=True)
    axis.set_yticks([row - 0.5 for row in range(1, rows)], minor=True)
    axis.grid(which='minor', color=LINE, lw=0.8)
    axis.tick_params(which='both', length=0)
    axis.spines[:].set_color(LINE)


def cells(axis, numbers, colours, limits, title, columns):
    """A matrix as coloured cells with its numbers in them. Cells behind the mask are grey."""
    axis.imshow(numbers.masked_fill(numbers == float('-inf'), float('nan')), cmap=colours.with_extremes(bad=GREY),
                vmin=limits[0], vmax=limits[1])
    for row, line in enumerate(numbers.tolist()):
        for column, number in enumerate(line):
            dark = abs(number) > 0.7 * limits[1] and number != float('-inf')
            text = '−∞' if number == float('-inf') else f'{number:.2f}'.replace('-', '−')
            axis.text(column, row, text, ha='center', va='center', color='white' if dark else 'black')
    axis.set_title(title, fontsize=10)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(CHARACTERS)), CHARACTERS)
    axis.xaxis.tick_top()
    grid(axis, *numbers.shape)


def draw_head():
    q, k, v = (X @ MATRICES[name].T for name in ('query', 'key', 'value'))  # (T, D) each
    scores = q @ k.T                                                        # (T, T)
    later = torch.ones(4, 4).triu(1) == 1
    masked = (scores / 2 ** 0.5).masked_fill(later, float('-inf'))
    weights = F.softmax(masked, dim=-1)
    result = weights @ v                                                    # (T, D)

    bigram.n_embd, bigram.block_size, bigram.dropout = 2, 4, 0.0
    head = bigram.Head(2)
    for name, matrix in MATRICES.items():
        getattr(head, name).weight.data = matrix
    torch.testing.assert_close(head(X[None])[0].detach(), result)           # the picture is that of the class

    figure, axes = plt.subplots(1, 5, figsize=(11, 2.9), width_ratios=[4, 4, 4, 2, 2])
    cells(axes[0], scores, BLUES, (0, 4), '1. scores: query · key', CHARACTERS)
    cells(axes[1], masked, BLUES, (0, 4 / 2 ** 0.5), '2. divided by √2, masked', CHARACTERS)
    cells(axes[2], weights, BLUES, (0, 1), '3. softmax: weights', CHARACTERS)
    cells(axes[3], v, BOTH, (-3, 3), '4. values', '12')
    cells(axes[4], result, BOTH, (-3, 3), '5. result', '12')
    axes[0].set_ylabel('position that looks')
    axes[0].set_xlabel('position that is looked at')
    figure.tight_layout()
    save(figure, 'one_head.png')


def draw_mask():
    seen, following = WORD[:-1], WORD[1:]                                   # inputs and targets
    T = len(seen)
    figure, axis = plt.subplots(figsize=(3.6, 3.6))
    axis.imshow(torch.tril(torch.ones(T, T)), cmap=ListedColormap([GREY, BLUE]))
    axis.set_xticks(range(T), seen)
    axis.set_yticks(range(T), seen)
    axis.xaxis.tick_top()
    axis.xaxis.set_label_position('top')
    axis.set_xlabel('position that is looked at')
    axis.set_ylabel('position that looks')
    grid(axis, T, T)
    for row, character in enumerate(following):
        axis.text(T - 0.2, row, f'→ {character}', va='center', color=ORANGE, fontweight='bold')
    axis.text(T + 1.1, (T - 1) / 2, 'to be predicted', va='center', ha='center', rotation=270, color=ORANGE)
    save(figure, 'mask.png')


def main():
    draw_head()
    draw_mask()


if __name__ == '__main__':
    main()
