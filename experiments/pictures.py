"""The pictures of what was learnt: python experiments/pictures.py

Trains bigram.py's and bigramv2.py's models, unless results/ has their curves and experiments/out the model, and draws
everything that the READMEs show, except chapter one's drawing (drawing.py) and worked example (one_head.py).
"""
import re
import statistics
import time

import ladder
import looks
import matplotlib
import numpy as np
import tables
from common import PROMPT, QUICK, RESULTS, ROOT, bigramv2, read, torch, write
from torch.nn import functional as F

import bigram

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import LinearSegmentedColormap  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402

BLUE, ORANGE, GREY = '#1f77b4', '#ff7f0e', '#808080'
BLUES = LinearSegmentedColormap.from_list('from white to blue', ['white', BLUE, '#08306b'])
WIDTH = 6.4  # inches: 830 dots at 130 to an inch, the width of a README
plt.rcParams |= {'font.size': 9, 'axes.titlesize': 9, 'axes.spines.top': False, 'axes.spines.right': False,
                 'axes.grid': True, 'grid.alpha': 0.3, 'legend.frameon': False, 'savefig.dpi': 130,
                 'savefig.facecolor': 'white'}
MODEL = (RESULTS if QUICK else ROOT / 'experiments' / 'out') / 'model.pt'
VERSE = 'ROMEO:\nBut, soft! what light'
STEPS = (0, 50, 200, 1000)  # and the last: where completions.csv shows the text


def show(text):
    return text.replace('\n', '⏎').replace(' ', '·')


def save(figure, name):
    RESULTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULTS / name)
    plt.close(figure)
    print(RESULTS.relative_to(ROOT) / name)


# What is trained

def curve(model, steps, data):
    """A row at each of the steps that a training yields: the seconds of its steps so far, and its losses.

    The validation loss is over the whole split.
    """
    seconds, begun = 0.0, time.perf_counter()
    for step in steps:
        seconds += time.perf_counter() - begun
        yield {'step': step, 'seconds': f'{seconds:.2f}',
               'train': f'{bigramv2.estimate_loss(model, data["train"], bigramv2.eval_windows):.4f}',
               'val': f'{bigramv2.estimate_loss(model, data["val"], 10 if QUICK else 10 ** 9):.4f}'}
        begun = time.perf_counter()


def train_bigram():
    data, meta = bigramv2.load_data()
    before, bigramv2.block_size = bigramv2.block_size, bigram.block_size  # measured on windows as long as it learns
    torch.manual_seed(bigram.seed)
    model = bigram.GPT(len(meta['vocab']))
    print(f'training the model of bigram.py, {bigram.max_iters} steps', flush=True)
    steps = ladder.train_as_chapter_one(model, torch.from_numpy(data['train'].astype(np.int64)), interval=100)
    write('curve_bigram.csv', list(curve(model, steps, data)))
    bigramv2.block_size = before


def train_bigramv2():
    data, meta = bigramv2.load_data()
    bigramv2.prompt, bigramv2.eval_interval = PROMPT, 50
    torch.manual_seed(bigramv2.seed)
    model = bigramv2.GPT(len(meta['vocab']))
    print(f'training the model of bigramv2.py, {bigramv2.max_iters} steps', flush=True)
    rows, texts = [], []
    for row in curve(model, bigramv2.train(model, bigramv2.make_optimizers(model), data['train']), data):
        rows.append(row)
        if row['step'] in (*STEPS, bigramv2.max_iters):
            _, *drawn = bigramv2.characters(model, meta['vocab'], 80)
            texts.append({'step': row['step'], 'val': f'{float(row["val"]):.2f}',
                          'text': ''.join(drawn).replace('\n', ' / ')[:80]})
    write('curve_bigramv2.csv', rows)
    write('completions.csv', texts)
    MODEL.parent.mkdir(exist_ok=True)
    torch.save(model.state_dict(), MODEL)


# Losses

def nanogpts():
    """The runs of nanoGPT as (name, seconds, loss): by its recipe and, where it has been tried, at its best rate."""
    runs = {}
    for row in read('nanogpt.csv'):
        name = "nanoGPT's recipe, tuned" if 'tuned' in row['what'] else "nanoGPT's recipe for a CPU"
        run = re.fullmatch(r'([\d.]+), ([\d.]+) s', row['nanoGPT'])  # a loss and seconds
        if run:
            runs.setdefault(name, (float(run[2]), float(run[1])))
    return [(name, *run) for name, run in runs.items()]


def curves():
    figure, axes = plt.subplots(figsize=(WIDTH, 3.8), layout='constrained')
    for name, colour in (('bigram', ORANGE), ('bigramv2', BLUE)):
        rows = [(float(row['seconds']), float(row['val'])) for row in read(f'curve_{name}.csv')]
        axes.plot(*zip(*rows), color=colour)
        axes.annotate(f'{rows[-1][1]:.2f}', rows[-1], (5, 0 if name == 'bigram' else -7), color=colour,
                      textcoords='offset points', va='center')
        if name == 'bigram':  # above the steep part, the other below its end
            above = next((row for row in rows if row[1] < 2.2), rows[-1])
            axes.annotate('bigram.py, chapter one', above, (6, 3), color=colour, textcoords='offset points')
        else:
            axes.annotate('bigramv2.py, chapter two', rows[-1], (0, -7), color=colour, textcoords='offset points',
                          va='top', ha='right')
    for name, seconds, loss in nanogpts():
        axes.plot(seconds, loss, 'o', color='black', ms=5)
        axes.annotate(f'{name}: {loss:.2f}', (seconds, loss), (5, 4), textcoords='offset points')
    for loss, _ in tables.counted():
        axes.axhline(loss, color=GREY, ls='--', lw=1)
        axes.annotate(f'counting up to six characters: {loss:.2f}', (0, loss), (0, -4), color=GREY,
                      textcoords='offset points', va='top')
    axes.set(xlabel='seconds of training; for the dots, seconds of the whole run', ylabel='validation loss',
             ylim=(1.3, 2.6))
    save(figure, 'curves.png')


def climb():
    """The ladder: a dot for each seed, and from rung to rung what the new part gains or costs."""
    rungs = tables.measured_rungs()
    figure, axes = plt.subplots(figsize=(WIDTH, 1.2 + 0.28 * len(rungs)), layout='constrained')
    before, usual = None, tables.noise(rungs.values())
    for place, runs in enumerate(rungs.values()):
        losses = tables.losses(runs)
        mean = left = statistics.mean(losses)
        if before:
            above = statistics.mean(tables.losses(before))
            effect = tables.change(runs, before, usual)
            colour = GREY if effect == 'no effect' else BLUE if mean < above else ORANGE
            axes.barh(place, above - mean, left=mean, height=0.5, color=colour, alpha=0.4)
            left = min(*losses, above)
        axes.plot(losses, [place] * len(losses), 'o', color='black', ms=3)
        axes.annotate(f'{mean:.2f}', (left, place), (-6, 0), textcoords='offset points', ha='right', va='center',
                      bbox={'color': 'white', 'pad': 0})
        before = runs
    handles = [Patch(color=BLUE, alpha=0.4, label='better than the row above'),
               Patch(color=ORANGE, alpha=0.4, label='worse than the row above'),
               Patch(color=GREY, alpha=0.4, label='no effect'),
               plt.Line2D([], [], color='black', marker='o', ms=3, ls='', label='one training')]
    for loss, _ in tables.counted():
        handles.append(axes.axvline(loss, color=GREY, ls='--', lw=1, label='counting up to six characters'))
    figure.legend(handles=handles, loc='outside upper center', ncols=2)
    axes.set_yticks(range(len(rungs)), rungs)
    axes.invert_yaxis()
    axes.set_xlim(1.2, None)  # room for the numbers
    axes.set_xlabel('validation loss')
    save(figure, 'ladder.png')


def hyperparameters():
    rows = read('hyperparameters.csv')
    names = list(dict.fromkeys(row['name'] for row in rows if row['name'] != 'default'))
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 4.4), sharey=True, layout='constrained')
    for name, axis in zip(names, axes.flat):
        default = bigramv2.HYPERPARAMETERS[name]
        runs = [(default if row['name'] == 'default' else float(row['value']), row) for row in rows
                if row['name'] in (name, 'default')]
        values = sorted({value for value, _ in runs})
        for column, label, colour in (('val', 'validation', BLUE), ('train', 'training', ORANGE)):
            axis.plot([value for value, _ in runs], [float(row[column]) for _, row in runs], '.', color=colour, ms=4)
            same = {value: [float(row[column]) for other, row in runs if other == value] for value in values}
            means = {value: sum(losses) / len(losses) for value, losses in same.items()}
            axis.plot(values, means.values(), color=colour, label=label, lw=1)
            axis.plot(default, means[default], '*', color=colour, ms=10)
        axis.set(xlabel=name, xscale='linear' if 0.0 in values else 'log')
        axis.minorticks_off()
        axis.set_xticks(values, [f'{value:g}' for value in values])
    axes[0, 0].legend()
    for axis in axes[:, 0]:
        axis.set_ylabel('loss')
    save(figure, 'hyperparameters.png')


def heads():
    rows = [row for row in read('heads.csv') if (row['B'], row['T'], row['C']) == ('12', '128', '128')]
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.8), layout='constrained')
    for way, label, colour in (('modular', 'one module per head', ORANGE),
                               ('formula', 'all at once, line by line', GREY),
                               ('fused', 'all at once, fused kernel', BLUE)):
        for axis, unit in zip(axes, ('ms', 'MB')):
            points = [(int(row['H']), float(row[f'{way}, {unit}'])) for row in rows]
            axis.plot(*zip(*points), '.-', color=colour, label=label)
    for axis, title in zip(axes, ('milliseconds, forward and backward', 'megabytes added to the peak memory')):
        axis.set(title=title, xlabel='heads', xscale='log', ylim=(0, None))
        axis.minorticks_off()
        axis.set_xticks([1, 2, 4, 8, 16], ['1', '2', '4', '8', '16'])
    axes[0].legend()
    save(figure, 'heads.png')


# Inside the trained model

def table_of_looks(found):
    """The shares of each head's weight, in per cent."""
    write('heads_look.csv', [{'block': block or 'chance', 'head': head or ''}
                             | {name: f'{100 * share:.0f}' for name, share in mine.items()}
                             for (block, head), mine in sorted(found.items())])


def most_telling(found):
    """For three groups the head that looks there most, each head once, with the title of its picture."""
    chosen = {}
    for name in ('the one before', "words' first letters", 'line ends'):
        block, head = max(found.keys() - {(0, 0)} - chosen.keys(), key=lambda place: found[place][name])
        chosen[block, head] = (f'block {block}, head {head}: {name.replace("one", "character")}\n'
                               f'{found[block, head][name]:.0%} of its weight, by chance {found[0, 0][name]:.0%}')
    return chosen


def attention(model, vocab, found):
    T, H, seen = len(VERSE), bigramv2.num_heads, looks.weights_on(model, bigramv2.encode(VERSE, vocab))  # (heads, T, T)
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 7.1), layout='constrained')
    maps = [(seen[(block - 1) * H + head - 1], title) for (block, head), title in most_telling(found).items()]
    maps.append((looks.chance(T), 'chance: all that it sees alike\n'))
    for (weights, title), axis in zip(maps, axes.flat):
        axis.imshow(weights.sqrt(), cmap=BLUES, vmin=0, vmax=1)
        itself, = axis.plot(range(T), range(T), '.', color=ORANGE, ms=4, label='the position itself')
        axis.set_title(title)
        axis.grid(False)
        for set_ticks in (axis.set_xticks, axis.set_yticks):
            set_ticks(range(T), show(VERSE), fontsize=7, family='monospace')
        axis.tick_params(length=0)
    for axis in axes[:, 0]:
        axis.set_ylabel('the position that looks')
    for axis in axes[1]:
        axis.set_xlabel('the position that it looks at')
    figure.legend(handles=[itself], loc='outside upper center')
    save(figure, 'attention.png')


def positions(model, place=64):
    """The waves, and how like one position the others are: at the start, after training and with random numbers."""
    start, T = bigramv2.GPT(1).position_embedding.weight.detach(), bigramv2.block_size  # (T, C)
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 4.8), layout='constrained', sharex=True)
    for channel, colour in zip((4, 12, 20, 32), (GREY, ORANGE, BLUE, 'black')):
        axes[0].plot(start[:, channel], color=colour, lw=1, label=f'channel {channel}')
    axes[0].set(ylabel='value at the start')
    for label, weight, colour, width in (
            ('random numbers', torch.randn(start.shape, generator=torch.Generator().manual_seed(1)), GREY, 1),
            ('the waves, at the start', start, BLUE, 3),
            ('the waves, after training', model.position_embedding.weight.detach(), ORANGE, 1)):
        axes[1].plot(F.cosine_similarity(weight, weight[place:place + 1]), color=colour, lw=width, label=label)
    axes[1].set(xlabel='position', ylabel=f'likeness to position {place}')
    for axis in axes:
        axis.legend(loc='lower center', bbox_to_anchor=(0.5, 0.98), ncols=4)
        axis.set_xlim(0, T - 1)
    save(figure, 'positions.png')


def temperatures(model, vocab, prompt='ROMEO:\nI s'):
    logits = model(bigramv2.encode(prompt, vocab))[0][0, -1].detach()  # (V,)
    likeliest = logits.topk(12).indices
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2), sharey=True, layout='constrained')
    for axis, temperature in zip(axes, (0.5, 1.0, 2.0)):
        axis.bar(range(12), F.softmax(logits / temperature, dim=-1)[likeliest], color=BLUE)
        axis.set_xticks(range(12), [show(vocab[i]) for i in likeliest], family='monospace')
        axis.grid(False)
        axis.set_title(f'temperature {temperature}')
    axes[0].set_ylabel('probability')
    save(figure, 'temperature.png')


def main():
    bigram.device = 'cpu'
    if QUICK:
        bigram.max_iters, bigramv2.max_iters = 20, 60
    # Both models on the same machine, and all that their training writes
    if not (read('curve_bigram.csv') and read('curve_bigramv2.csv') and read('completions.csv') and MODEL.exists()):
        train_bigram()
        train_bigramv2()
    data, meta = bigramv2.load_data()
    model = bigramv2.GPT(len(meta['vocab'])).eval()
    model.load_state_dict(torch.load(MODEL))
    starts = np.linspace(0, len(data['val']) - bigramv2.block_size - 1, 2 if QUICK else 50).astype(np.int64)
    found = looks.shares(model, meta['vocab'], bigramv2.windows(data['val'], starts)[0])
    table_of_looks(found)
    attention(model, meta['vocab'], found)
    positions(model)
    temperatures(model, meta['vocab'])
    curves()
    for table, draw in (('ladder', climb), ('hyperparameters', hyperparameters), ('heads', heads)):
        if read(f'{table}.csv'):
            draw()


if __name__ == '__main__':
    main()
