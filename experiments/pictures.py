"""Pictures of what was learnt: python experiments/pictures.py

Trains bigram.py and bigramv2.py as they are, unless results/ has their curves and experiments/out the model,
and draws everything that the README shows.
"""
import re
import subprocess
import sys

import matplotlib
import torch
from common import RESULTS, ROOT, append, bigramv2, read
from torch.nn import functional as F

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

OUT = 'experiments/out'
VERSE = 'ROMEO:\nBut, soft! what light through yon'
STEPS = (0, 50, 200, 1000)  # and the last: where the text is shown
plt.rcParams |= {'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False, 'savefig.dpi': 130,
                 'savefig.facecolor': 'white', 'svg.hashsalt': 'same'}


def show(text):
    return text.replace('\n', '⏎').replace(' ', '·')


def save(figure, name):
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / name, bbox_inches='tight')
    plt.close(figure)
    print(f'experiments/results/{name}')


def train_both():
    """The two scripts, as anyone runs them, and what they print."""
    if not read('curve_bigram.csv'):
        print('python bigram.py', flush=True)
        printed = subprocess.run([sys.executable, 'bigram.py'], capture_output=True, text=True, check=True).stdout
        for step, train, val, seconds in re.findall(r'^step +(\d+): train (\S+), val (\S+), (\d+) s', printed, re.M):
            append('curve_bigram.csv', {'step': step, 'seconds': seconds, 'train': train, 'val': val})
    if not read('curve_bigramv2.csv') or not (ROOT / OUT / 'model.pt').exists():
        print('python bigramv2.py', flush=True)
        command = ['bigramv2.py', '--out_dir', OUT, '--eval_interval', '50', '--prompt', 'ROMEO:\n']
        printed = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True).stdout
        samples = dict(re.findall(r'^step +(\d+) .*\n {12}(.*)$', printed, re.M))
        (RESULTS / 'curve_bigramv2.csv').write_text((ROOT / OUT / 'loss.csv').read_text())
        (RESULTS / 'completions.csv').unlink(missing_ok=True)
        losses = {row['step']: row['val'] for row in read('curve_bigramv2.csv')}
        for step in [*map(str, STEPS), max(samples, key=int)]:
            append('completions.csv', {'step': step, 'val': f'{float(losses[step]):.2f}', 'text': samples[step]})


def curves():
    figure, axes = plt.subplots(figsize=(6.5, 3.2))
    for name, colour in (('bigram', 'tab:orange'), ('bigramv2', 'tab:blue')):
        rows = [{key: float(value) for key, value in row.items()} for row in read(f'curve_{name}.csv')]
        seconds = [row['seconds'] for row in rows]
        axes.plot(seconds, [row['val'] for row in rows], color=colour, label=f'{name}.py, validation')
        axes.plot(seconds, [row['train'] for row in rows], color=colour, ls=':', label=f'{name}.py, training')
    axes.set(xlabel='seconds', ylabel='loss, nats a character', ylim=(1.2, 3))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save(figure, 'curves.png')


def attention_maps(model, vocab):
    """Every head's weights on one verse: the formula's dropout layer sees them go by."""
    bigramv2.fused_attention = False
    seen = []
    hooks = [block.sa.attn_dropout.register_forward_hook(lambda module, inputs, out: seen.append(out[0]))
             for block in model.blocks]
    model(bigramv2.encode(VERSE, vocab))
    for hook in hooks:
        hook.remove()
    bigramv2.fused_attention = True
    layers, heads = len(seen), seen[0].shape[0]
    figure, axes = plt.subplots(layers, heads, figsize=(3.6 * heads, 3.6 * layers), squeeze=False)
    for layer, weights in enumerate(seen):
        for head in range(heads):
            axis = axes[layer, head]
            axis.imshow(weights[head].sqrt().detach(), cmap='Blues', vmin=0, vmax=1)
            axis.set_title(f'block {layer + 1}, head {head + 1}')
            for set_ticks in (axis.set_xticks, axis.set_yticks):
                set_ticks(range(len(VERSE)), show(VERSE), fontsize=7, family='monospace')
    figure.tight_layout()
    save(figure, 'attention.png')
    (RESULTS / 'heads_look.csv').unlink(missing_ok=True)
    for layer, weights in enumerate(seen):
        for head in range(heads):
            append('heads_look.csv', {'block': layer + 1, 'head': head + 1, **looks(weights[head])})


def looks(weights):
    """Where one head's weights (T, T) go, averaged over the verse: shares in per cent."""
    t = torch.arange(len(VERSE))
    same = torch.tensor([[a == b for b in VERSE] for a in VERSE]).tril(-1)
    ends = torch.tensor([character in ' \n' for character in VERSE])
    shares = {'itself': weights.diagonal().mean(), 'the one before': weights.diagonal(-1).mean(),
              '2 to 4 back': sum(weights.diagonal(-k).sum() for k in (2, 3, 4)) / len(t),
              'the same character': (weights * same).sum(-1).mean(),
              'spaces and line ends': weights[:, ends].sum(-1).mean()}
    return {name: f'{100 * share:.0f}' for name, share in shares.items()}


def positions(model):
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
    for axis, title, gpt in zip(axes, ('at the start', 'learnt'), (bigramv2.GPT(1), model)):
        weight = F.normalize(gpt.position_embedding.weight.detach(), dim=-1)  # (T, C)
        image = axis.imshow(weight @ weight.T, cmap='Blues', vmin=0, vmax=1)
        axis.set(title=title, xlabel='position')
    axes[0].set_ylabel('position')
    figure.colorbar(image, ax=axes, label='cosine similarity')
    save(figure, 'positions.png')


def temperatures(model, vocab, prompt='ROMEO:\nI s'):
    logits = model(bigramv2.encode(prompt, vocab))[0][0, -1].detach()  # (V,)
    likeliest = logits.topk(12).indices
    figure, axes = plt.subplots(1, 3, figsize=(8, 2.2), sharey=True)
    for axis, temperature in zip(axes, (0.5, 1.0, 2.0)):
        probs = F.softmax(logits / temperature, dim=-1)[likeliest]
        axis.bar(range(12), probs, color='tab:blue')
        axis.set_xticks(range(12), [show(vocab[i]) for i in likeliest], family='monospace')
        axis.set_title(f'temperature {temperature}')
    axes[0].set_ylabel('probability')
    save(figure, 'temperature.png')


def hyperparameters():
    rows = read('hyperparameters.csv')
    names = list(dict.fromkeys(row['name'] for row in rows if row['name'] != 'default'))
    figure, axes = plt.subplots(2, 3, figsize=(8.5, 4.6), sharey=True)
    for name, axis in zip(names, axes.flat):
        default = getattr(bigramv2, name)
        mine = [(float(row['value']) if row['name'] == name else default, float(row['val']), float(row['train']))
                for row in rows if row['name'] in (name, 'default')]
        values = sorted({value for value, _, _ in mine})
        for column, label, colour in ((1, 'validation', 'tab:blue'), (2, 'training', 'tab:orange')):
            axis.plot([values.index(point[0]) for point in mine], [point[column] for point in mine], '.', color=colour)
            means = [[point[column] for point in mine if point[0] == value] for value in values]
            axis.plot(range(len(values)), [sum(m) / len(m) for m in means], color=colour, label=label, lw=1)
        axis.set_xticks(range(len(values)), [f'{value:g}' + ('*' if value == default else '') for value in values])
        axis.set_title(name)
        axis.grid(alpha=0.3)
    axes[0, 0].legend(frameon=False)
    axes[0, 0].set_ylabel('loss')
    axes[1, 0].set_ylabel('loss')
    figure.tight_layout()
    save(figure, 'hyperparameters.png')


def heads():
    rows = [row for row in read('heads.csv') if (row['B'], row['T'], row['C']) == ('12', '128', '128')]
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8))
    for way, label, colour in (('modular', 'one module a head', 'tab:orange'),
                               ('formula', 'all at once, formula', 'tab:green'),
                               ('fused', 'all at once, fused kernel', 'tab:blue')):
        mine = [row for row in rows if row['way'] == way]
        for axis, column in zip(axes, ('milliseconds', 'megabytes')):
            x, y = [int(row['H']) for row in mine], [float(row[column]) for row in mine]
            axis.plot(x, y, '.-', color=colour, label=label)
    for axis, title in zip(axes, ('milliseconds, forward and backward', 'peak memory added, MB')):
        axis.set(title=title, xlabel='heads', xscale='log', ylim=(0, None))
        axis.set_xticks([1, 2, 4, 8, 16], ['1', '2', '4', '8', '16'])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    save(figure, 'heads.png')


def main():
    train_both()
    bigramv2.out_dir = OUT
    saved = bigramv2.load('model.pt', {}, bigramv2.SIZES)
    model, vocab = bigramv2.GPT(len(saved['vocab'])).eval(), saved['vocab']
    model.load_state_dict(saved['weights'])
    curves()
    attention_maps(model, vocab)
    positions(model)
    temperatures(model, vocab)
    if read('hyperparameters.csv'):
        hyperparameters()
    if read('heads.csv'):
        heads()


if __name__ == '__main__':
    main()
