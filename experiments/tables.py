"""Fill the tables of README.md and experiments/README.md from the results: python experiments/tables.py

A table stands between <!-- table NAME --> and <!-- end -->. The tests compare each with its CSV file.
"""
import re
from pathlib import Path
from statistics import mean

from ablations import PARTS
from common import ROOT, bigramv2, read
from hyperparameters import VALUES
from ladder import LADDER, best_runs

PAGES = [ROOT / 'README.md', ROOT / 'experiments' / 'README.md']


def table(head, rows):
    return '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in (head, ['---'] * len(head), *rows))


def by(rows, *columns):
    """The rows in groups that agree in these columns, in the order in which they first occur."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return groups


def two(rows, column):
    """The mean of a column over the seeds and, in brackets, half the distance between them."""
    values = [float(row[column]) for row in rows]
    spread = f' (±{(max(values) - min(values)) / 2:.3f})' if len(values) > 1 else ''
    return f'{mean(values):.3f}{spread}'


def seconds(rows):
    return f'{mean(float(row["seconds"]) for row in rows):.0f}'


def line(text, characters=None):
    """A line of a model, or its first characters, as code."""
    return '`' + text[:characters].replace('|', '\\|').replace('`', "'").strip() + '`'


def ladder():
    rows = []
    for rung in LADDER:
        runs = best_runs(rung)
        rows.append([rung, two(runs, 'val'), seconds(runs), f'{int(runs[0]["parameters"]):,}',
                     line(runs[0]['sample'], 44)])
    return table(['rung', 'val loss', 'seconds', 'parameters', 'what it writes after `ROMEO:`'], rows)


def hyperparameters():
    groups = by(read('hyperparameters.csv'), 'name', 'value')
    unchanged, rows = groups[('default', 'default')], []
    for name in VALUES:
        default = bigramv2.HYPERPARAMETERS[name]
        mine = {float(value): (value, runs) for (changed, value), runs in groups.items() if changed == name}
        mine[float(default)] = f'**{default}**', unchanged
        rows += [[f'`{name}`', value, two(runs, 'val'), two(runs, 'train'), seconds(runs),
                  f'{int(runs[0]["parameters"]):,}'] for _, (value, runs) in sorted(mine.items())]
    return table(['changed', 'to', 'val loss', 'train loss', 'seconds', 'parameters'], rows)


def ablations():
    groups = by(read('ablations.csv'), 'part')
    rows = [[part, two(groups[part,], 'val'), two(groups[part,], 'train'), line(groups[part,][0]['sample'], 44)]
            for part in PARTS]
    return table(['taken out', 'val loss', 'train loss', 'what it writes after `ROMEO:`'], rows)


def heads():
    rows = []
    for size, runs in by(read('heads.csv'), *'BTCH').items():
        ways = {row['way']: row for row in runs}
        time = {way: float(row['milliseconds']) for way, row in ways.items()}
        rows.append([*size, *(row['milliseconds'] for row in ways.values()),
                     *(f'{time["modular"] / time[way]:.2f}' for way in ('formula', 'fused')),
                     *(row['megabytes'] for row in ways.values())])
    return table(['B', 'T', 'C', 'H', 'one by one, ms', 'formula, ms', 'fused, ms', 'one by one / formula',
                  'one by one / fused', 'one by one, MB', 'formula, MB', 'fused, MB'], rows)


def completions():
    return table(['step', 'val loss', 'after `ROMEO:`'],
                 [[row['step'], row['val'], line(row['text'])] for row in read('completions.csv')])


def looks():
    return as_it_is('heads_look.csv')


def benchmark():
    return as_it_is('benchmark.csv')


def nanogpt():
    return as_it_is('nanogpt.csv')


def as_it_is(name):
    rows = read(name)
    return table(list(rows[0]), [row.values() for row in rows])


def settings():
    """The hyperparameters and options as they stand at the top of bigramv2.py."""
    source = Path(bigramv2.__file__).read_text(encoding='utf-8')
    found = {name: rest for name, *rest in re.findall(r'^(\w+) = (.+?) +# (.+)$', source, re.M)}
    found['device'] = 'the best there is', 'where it computes: `cuda`, `mps` or `cpu`'
    rows = [[f'`{name}`', f'`{value}`', comment] for name in bigramv2.HYPERPARAMETERS | bigramv2.OPTIONS
            for value, comment in [found[name]]]
    return table(['name', 'default', 'what it does'], rows)


TABLES = [settings, ladder, hyperparameters, ablations, heads, looks, completions, benchmark, nanogpt]


def filled(text):
    """The page with every table as the results have it."""
    for make in TABLES:
        begin, end = f'<!-- table {make.__name__} -->\n', '<!-- end -->'
        if begin in text:
            before, rest = text.split(begin)
            text = before + begin + make() + '\n' + end + rest.split(end, 1)[1]
    return text


if __name__ == '__main__':
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding='utf-8')), encoding='utf-8', newline='\n')
