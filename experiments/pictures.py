"""The pictures of what was learnt: python experiments/pictures.py

Trains bigram.py's and bigramv2.py's models, unless results/ has their curves and experiments/out the model, and draws
everything that the READMEs show, except chapter one's two pictures (one_head.py).
"""
import time

import ladder
import matplotlib
from common import PROMPT, QUICK, RESULTS, ROOT, append, bigramv2, read, torch
from torch.nn import functional as F

import bigram

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import LinearSegmentedColormap  # noqa: E402

BLUE, ORANGE, GREY = '#1f77b4', '#ff7f0e', '#808080'
BLUES = LinearSegmentedColormap.from_list('from white to blue', ['white', BLUE, '#08306b'])
WIDTH = 6.4  # inches: 830 dots at 130 to an inch, the width of a README
plt.rcParams |= {'font.size': 9, 'axes.titlesize': 9, 'axes.spines.top': False, 'axes.spines.right': False,
                 'axes.grid': True, 'grid.alpha': 0.3, 'legend.frameon': False, 'savefig.dpi': 130,
                 'savefig.facecolor': 'white'}
MODEL = ROOT / 'experiments' / 'out' / ('quick.pt' if QUICK else 'model.pt')
ALL = 10 if QUICK else 10 ** 9  # windows: the whole validation split
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

def learn(name, GPT):
    """Train a model with bigramv2's settings as they are; write its curve, and return it with rows of its text.

    The seconds are those of the steps. The validation loss is over the whole split at every step that is measured.
    """
    data, vocab = bigramv2.load_data()
    torch.manual_seed(bigramv2.seed)
    model = GPT(len(vocab))
    optimizers = bigramv2.make_optimizers(model)
    print(f'training the model of {name}.py, {bigramv2.max_iters} steps', flush=True)
    curve, texts, seconds, begun = [], [], 0.0, time.perf_counter()
    for step in bigramv2.train(model, optimizers, data['train']):
        seconds += time.perf_counter() - begun
        losses = {'train': bigramv2.estimate_loss(model, data['train'], bigramv2.eval_windows),
                  'val': bigramv2.estimate_loss(model, data['val'], ALL)}
        curve.append({'step': step, 'seconds': f'{seconds:.2f}'} | {split: f'{losses[split]:.4f}' for split in losses})
        if GPT is bigramv2.GPT and (step in STEPS or step == bigramv2.max_iters):
            texts.append({'step': step, 'val': f'{losses["val"]:.2f}', 'text': bigramv2.sample_line(model, vocab)})
        begun = time.perf_counter()
    write(f'curve_{name}.csv', curve)
    return model, texts


def write(name, rows):
    """A whole table at once, in place of the old one."""
    (RESULTS / name).unlink(missing_ok=True)
    for row in rows:
        append(name, row)


def train_bigramv2():
    bigramv2.prompt, bigramv2.eval_interval = PROMPT, 50
    model, texts = learn('bigramv2', bigramv2.GPT)
    write('completions.csv', texts)
    MODEL.parent.mkdir(exist_ok=True)
    torch.save(model.state_dict(), MODEL)


def train_bigram():
    """The model, the sizes and the optimiser of bigram.py in the training loop of bigramv2."""
    before = dict(vars(bigramv2))
    ladder.with_adamw()
    names = 'n_embd', 'block_size', 'batch_size', 'max_iters', 'learning_rate'
    vars(bigramv2).update({name: vars(bigram)[name] for name in names}, eval_interval=250)
    if QUICK:
        bigramv2.max_iters = 20
    learn('bigram', bigram.GPT)
    vars(bigramv2).update(before)


# Losses

def curves():
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6), layout='constrained')
    for name, script, optimizer, colour in (('bigram', bigram, 'AdamW', ORANGE),
                                            ('bigramv2', bigramv2, 'Muon and AdamW', BLUE)):
        rows = [{key: float(value) for key, value in row.items()} for row in read(f'curve_{name}.csv')]
        sizes = (f'{script.n_embd} channels, {rows[-1]["step"]:,.0f} steps of {script.batch_size} windows of '
                 f'{script.block_size}, {optimizer}')
        axes.plot([row['seconds'] for row in rows], [row['val'] for row in rows], color=colour,
                  label=f'{name}.py: {sizes}')
        axes.annotate(f'{rows[-1]["val"]:.2f}', (rows[-1]['seconds'], rows[-1]['val']), color=colour,
                      xytext=(5, -3), textcoords='offset points')
    recipe = read('nanogpt.csv')
    if recipe:
        loss, seconds = (float(part.strip(' s')) for part in recipe[0]['nanoGPT'].split(','))
        axes.plot(seconds, loss, 'o', color='black',
                  label="nanoGPT's recipe for a CPU: 128 channels, 2,000 steps of 12 windows of 64, AdamW")
        axes.annotate(f'{loss:.2f}', (seconds, loss), xytext=(6, 2), textcoords='offset points')
    axes.set(xlabel='seconds of training', ylabel='validation loss', ylim=(1.4, 3.2))
    axes.legend(fontsize=8)
    save(figure, 'curves.png')


def climb():
    """The ladder: a dot for each seed, and from rung to rung what the new part gains or costs."""
    figure, axes = plt.subplots(figsize=(WIDTH, 4), layout='constrained')
    before = None
    for place, rung in enumerate(ladder.LADDER):
        losses = [float(row['val']) for row in ladder.best_runs(rung)]
        mean = sum(losses) / len(losses)
        if before:
            axes.barh(place, before - mean, left=mean, height=0.5, color=BLUE if mean < before else ORANGE, alpha=0.35)
        axes.plot(losses, [place] * len(losses), 'o', color=BLUE, ms=4)
        left = min(*losses, before or mean)
        axes.annotate(f'{mean:.2f}', (left, place), xytext=(-6, 0), textcoords='offset points', ha='right', va='center')
        before = mean
    axes.set_yticks(range(len(ladder.LADDER)), ladder.LADDER)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel('validation loss (each dot one seed)')
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
        axis.set(title=name, xscale='linear' if 0.0 in values else 'log')
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
        mine = [row for row in rows if row['way'] == way]
        for axis, column in zip(axes, ('milliseconds', 'megabytes')):
            points = [(int(row['H']), float(row[column])) for row in mine if row[column]]
            axis.plot(*zip(*points), '.-', color=colour, label=label)
    for axis, title in zip(axes, ('milliseconds, forward and backward', 'megabytes added to the peak memory')):
        axis.set(title=title, xlabel='heads', xscale='log', ylim=(0, None))
        axis.minorticks_off()
        axis.set_xticks([1, 2, 4, 8, 16], ['1', '2', '4', '8', '16'])
    axes[0].legend()
    save(figure, 'heads.png')


# Inside the trained model

@torch.no_grad()
def weights_on(model, tokens):
    """The attention weights (layers, B, H, T, T) on tokens (B, T), as they pass through the formula's dropout."""
    seen = []
    hooks = [block.sa.attn_dropout.register_forward_hook(lambda module, inputs, out: seen.append(out))
             for block in model.blocks]
    bigramv2.fused_attention = False
    model(tokens)
    bigramv2.fused_attention = True
    for hook in hooks:
        hook.remove()
    return torch.stack(seen)


def groups(text):
    """Where a position may look: for each group of places in the text a mask (T, T), True where they belong to it."""
    T = len(text)
    columns = {'words\' first letters': [c.isalpha() and not (i and (text[i - 1].isalpha() or text[i - 1] == "'"))
                                        for i, c in enumerate(text)],
               'spaces': [c == ' ' for c in text], 'line ends': [c == '\n' for c in text]}
    back = torch.arange(T)[:, None] - torch.arange(T)
    codes = torch.tensor([ord(c) for c in text])
    return {'itself': back == 0, 'the one before': back == 1, '2 to 4 back': (back >= 2) & (back <= 4),
            'the same character': (codes[:, None] == codes) & (back > 0),
            **{name: torch.tensor(places).expand(T, T) for name, places in columns.items()}}


def shares(model, vocab, count=2 if QUICK else 50):
    """Where each head looks in windows of the validation text: by (block, head), the shares of its weight.

    By (0, 0) those of chance: what it would be if each position looked at all that it sees alike.
    """
    data = bigramv2.load_data()[0]['val']
    starts = torch.linspace(0, len(data) - bigramv2.block_size - 1, count).long().numpy()
    tokens, _ = bigramv2.windows(data, starts)
    T = bigramv2.block_size
    seen = weights_on(model, tokens)                                       # (layers, B, H, T, T)
    chance = torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]     # (T, T)
    masks = [groups(bigramv2.decode(window, vocab)) for window in tokens]
    found = {}
    for name in masks[0]:
        mask = torch.stack([mask[name] for mask in masks])                 # (B, T, T)
        found.setdefault((0, 0), {})[name] = (chance * mask).sum(-1).mean().item()
        each = (seen * mask[None, :, None]).sum(-1).mean((1, 3))           # (layers, H)
        for layer, row in enumerate(each.tolist(), 1):
            for head, share in enumerate(row, 1):
                found.setdefault((layer, head), {})[name] = share
    return found


def looks(found):
    """The shares in per cent, as a table."""
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
    seen, T = weights_on(model, bigramv2.encode(VERSE, vocab))[:, 0], len(VERSE)  # (layers, H, T, T)
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 6.9), layout='constrained')
    maps = [(seen[block - 1, head - 1], title) for (block, head), title in most_telling(found).items()]
    maps.append((torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None], 'chance: all that it sees alike\n'))
    for (weights, title), axis in zip(maps, axes.flat):
        axis.imshow(weights.sqrt(), cmap=BLUES, vmin=0, vmax=1)
        axis.set_title(title)
        axis.grid(False)
        for set_ticks in (axis.set_xticks, axis.set_yticks):
            set_ticks(range(T), show(VERSE), fontsize=7, family='monospace')
        axis.tick_params(length=0)
    for axis in axes[:, 0]:
        axis.set_ylabel('the position that looks')
    for axis in axes[1]:
        axis.set_xlabel('the position that it looks at')
    save(figure, 'attention.png')


def positions(model):
    start = bigramv2.GPT(1)
    figure = plt.figure(figsize=(WIDTH, 5.4), layout='constrained')
    axes = figure.subplot_mosaic([['waves', 'waves'], ['at the start', 'after training']], height_ratios=[1, 2])
    for channel, colour in zip((4, 12, 20, 32), (GREY, ORANGE, BLUE, 'black')):
        axes['waves'].plot(start.position_embedding.weight[:, channel].detach(), color=colour, lw=1,
                           label=f'channel {channel}')
    axes['waves'].set(xlabel='position', ylabel='value')
    axes['waves'].set_title('the waves at the start, four of the channels', pad=24)
    axes['waves'].legend(loc='lower center', bbox_to_anchor=(0.5, 0.98), ncols=4, fontsize=8)
    for when, gpt in (('at the start', start), ('after training', model)):
        weight = F.normalize(gpt.position_embedding.weight.detach(), dim=-1)  # (T, C)
        image = axes[when].imshow(weight @ weight.T, cmap=BLUES, vmin=0, vmax=1)
        axes[when].set(title=f'likeness of positions {when}', xlabel='position', ylabel='position')
        axes[when].grid(False)
    figure.colorbar(image, ax=[axes['at the start'], axes['after training']], label='cosine similarity')
    save(figure, 'positions.png')


def learning_rate():
    """The two learning rates against the step, from the start to the end and, larger, the warm-up."""
    rates = ('Muon', bigramv2.learning_rate, BLUE), ('AdamW', bigramv2.adamw_learning_rate, ORANGE)
    lasts = 4 * bigramv2.warmup_iters, bigramv2.max_iters
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.5), layout='constrained', sharey=True, width_ratios=[1, 2])
    for axis, last, title in zip(axes, lasts, ('the warm-up', 'the whole run')):
        for name, rate, colour in rates:
            axis.plot([rate * bigramv2.lr_scale(step) for step in range(last + 1)], color=colour, label=name)
        axis.set(title=title, xlabel='step')
    axes[0].set_ylabel('learning rate')
    axes[1].legend()
    save(figure, 'lr.png')


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
    bigramv2.device = bigram.device = 'cpu'
    if QUICK:
        bigramv2.max_iters = 60
    if not read('curve_bigram.csv'):
        train_bigram()
    if not read('curve_bigramv2.csv') or not MODEL.exists():
        train_bigramv2()
    vocab = bigramv2.load_data()[1]
    model = bigramv2.GPT(len(vocab)).eval()
    model.load_state_dict(torch.load(MODEL))
    found = shares(model, vocab)
    looks(found)
    attention(model, vocab, found)
    positions(model)
    temperatures(model, vocab)
    learning_rate()
    curves()
    for table, draw in (('ladder', climb), ('hyperparameters', hyperparameters), ('heads', heads)):
        if read(f'{table}.csv'):
            draw()


if __name__ == '__main__':
    main()
