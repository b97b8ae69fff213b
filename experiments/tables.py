"""Fill the tables, listings and links of the READMEs from results and sources: python experiments/tables.py

A table stands between <!-- table NAME --> and <!-- end -->, what a rung of the ladder reaches between
<!-- rung NAME --> and <!-- end -->, and the body of a function between <!-- listing FILE NAME --> and <!-- end -->. A
link such as [`Head` in bigram.py](bigram.py) gets the lines of Head. The tests compare all of these with their sources.
"""
import ast
import re
from math import nan
from pathlib import Path
from statistics import mean, median

import common
from ablations import ELSEWHERE, PARTS
from common import ROOT, SEEDS, bigramv2, read
from hyperparameters import VALUES
from ladder import CHAPTER_ONE, COUNTED, LADDER, best_runs
from optimizers import ON_THE_LADDER, WAYS

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
    """The mean of a column over the seeds and, in brackets, half the distance from the lowest to the highest."""
    values = [float(row[column]) for row in rows]
    spread = f' (±{(max(values) - min(values)) / 2:.3f})' if len(values) > 1 else ''
    return f'{mean(values):.3f}{spread}'


def losses(rows):
    return [float(row['val']) for row in rows]


def noise(groups):
    """How far apart two seeds usually are: the median over the groups of rows that have two. It is nearly the standard
    deviation of a single training."""
    distances = [abs(losses(rows)[0] - losses(rows)[1]) for rows in groups if len(rows) > 1]
    return median([distance for distance in distances if distance == distance] or [nan])  # nan: a training diverged


def change(rows, others, usual):
    """How much higher the mean loss of some rows is than that of others, if this is beyond twice its standard error.

    `usual` is the noise.
    """
    difference, error = mean(losses(rows)) - mean(losses(others)), usual * (1 / len(rows) + 1 / len(others)) ** 0.5
    return 'no effect' if abs(difference) <= 2 * error else f'{difference:+.3f}'


def seconds(rows):
    return f'{mean(float(row["seconds"]) for row in rows):.0f}'


def line(text, characters=None):
    """A line of a model, or its first characters, as code."""
    return '`' + text[:characters].replace('|', '\\|').replace('`', "'").strip() + '`'


def measured_rungs():
    """The rows of each rung of the ladder that has been measured."""
    measured = {row['rung'] for row in read('ladder.csv')}
    return {rung: best_runs(rung) for rung in LADDER if rung in measured}


def ladder():
    rows, before, rungs = [], None, measured_rungs()
    usual = noise(rungs.values())
    for rung, runs in rungs.items():
        rows.append([rung, two(runs, 'val'), change(runs, before, usual) if before else '', seconds(runs),
                     f'{int(runs[0]["parameters"]):,}'])
        before = runs
    rows = [['counting up to six characters', f'{loss:.3f}', '', f'{took:.0f}', ''] for loss, took in counted()] + rows
    return table(['rung', 'val loss', 'change', 'seconds, one thread', 'parameters'], rows)


def hyperparameters():
    groups = by(read('hyperparameters.csv'), 'name', 'value')
    unchanged, rows, usual = groups[('default', 'default')], [], noise(groups.values())
    for name in VALUES:
        default = bigramv2.HYPERPARAMETERS[name]
        mine = {float(value): (value, runs) for (changed, value), runs in groups.items() if changed == name}
        mine[float(default)] = f'**{default}**', unchanged
        rows += [[f'`{name}`', value, two(runs, 'val'), '' if runs is unchanged else change(runs, unchanged, usual),
                  two(runs, 'train'), seconds(runs), f'{int(runs[0]["parameters"]):,}']
                 for _, (value, runs) in sorted(mine.items())]
    return table(['changed', 'to', 'val loss', 'change', 'train loss', 'seconds', 'parameters'], rows)


def ablations():
    """A part without its row at one length has not been measured there."""
    groups = by(read('ablations.csv'), 'part', 'steps')
    usual = {steps: noise(runs for (_, other), runs in groups.items() if other == steps) for steps in ('600', '2000')}
    rows = []
    for part in [*PARTS, *ELSEWHERE]:
        row, before = [part], part.rpartition(': ')[0]
        for steps in usual:
            runs = groups.get((part, steps), [])
            whole = groups.get((f'{before}: nothing' if before else 'nothing', steps))
            cost = change(runs, whole, usual[steps]) if runs and whole and runs != whole else ''
            row += [two(runs, 'val') if runs else '', cost]
        rows.append(row)
    return table(['taken out', '600 steps', 'cost', '2,000 steps', 'cost'], rows)


def optimizers():
    """Each way at its best rate, and at the others with the first seed. A way without a row is left out."""
    places = {way: ('ladder.csv', 'rung', *rung) for way, rung in ON_THE_LADDER.items()}
    places |= {way: ('optimizers.csv', 'way', way, 1.0) for way in WAYS}
    rows = []
    for way, (name, column, value, unit) in sorted(places.items()):
        first = {float(row['rate']) * unit: float(row['val']) for row in read(name)
                 if row[column] == value and row['seed'] == SEEDS[0]}
        if first:
            best = common.best_runs(name, column, value)
            rate = float(best[0]['rate']) * unit
            rows.append([way, f'{rate:g}', two(best, 'val'),
                         ', '.join(f'{first[other]:.3f} at {other:g}' for other in sorted(first) if other != rate)])
    return table(['way', 'rate of the matrices', 'val loss', 'at other rates, first seed'], rows)


def counting():
    rows = [[row['characters'], f'{float(row["val"]):.3f}', row['seconds'], f'{int(row["contexts"]):,}']
            for row in read('counting.csv')]
    return table(['characters in a piece', 'val loss', 'seconds', 'different beginnings'], rows)


def pieces():
    """The same in two rows."""
    rows = read('counting.csv')[1:]
    return table(['characters in a piece', *(row['characters'] for row in rows)],
                 [['val loss', *(f'{float(row["val"]):.3f}' for row in rows)]])


def counted():
    """The loss of counting up to six characters, and its seconds, in a list that is empty before it is measured."""
    return [(float(row['val']), float(row['seconds'])) for row in read('counting.csv') if row['characters'] == '6']


def passing():
    """When each model of the curves passes counting up to six characters."""
    six, said = counted(), []
    for name in ('bigram', 'bigramv2'):
        rows = read(f'curve_{name}.csv')
        if not (six and rows):
            return 'Not measured yet.'
        passed = next((row for row in rows if float(row['val']) < six[0][0]), None)
        said.append(f'`{name}.py` does, after {float(passed["seconds"]):.0f} of its {float(rows[-1]["seconds"]):.0f} '
                    'seconds of training' if passed else f'`{name}.py` does not')
    return '; '.join(said) + '.'


def heads():
    rows = []
    for row in read('heads.csv'):
        cells, one_by_one = list(row.values()), float(row['modular, ms'])
        rows.append([*cells[:7], *(f'{one_by_one / float(row[f"{way}, ms"]):.2f}' for way in ('formula', 'fused')),
                     *cells[7:]])
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


def half_hour():
    """Each run, and the means of those that differ in nothing but the seed."""
    rows = []
    for (text, changed), runs in by(read('half_hour.csv'), 'text', 'changed').items():
        rows += [list(row.values()) for row in runs]
        if len(runs) > 1:
            seconds, last, best = (mean(float(row[column]) for row in runs) for column in ('seconds', 'last', 'best'))
            rows.append([text, changed, 'mean', runs[0]['steps'], f'{seconds:.0f}', f'{last:.4f}', f'{best:.4f}'])
    return table(['text', 'changed', 'seed', 'steps', 'processor seconds', 'last weights', 'best weights'], rows)


def as_it_is(name):
    rows = read(name)
    return table(list(rows[0]), [row.values() for row in rows]) if rows else 'Not measured yet.'


def settings():
    """The hyperparameters and options as they stand at the top of bigramv2.py."""
    source = Path(bigramv2.__file__).read_text(encoding='utf-8')
    found = {name: rest for name, *rest in re.findall(r'^(\w+) = (.+?) +# (.+)$', source, re.M)}
    found['device'] = 'the best there is', 'where it computes: `cuda`, `mps` or `cpu`'
    rows = [[f'`{name}`', f'`{value}`', comment] for name in bigramv2.HYPERPARAMETERS | bigramv2.OPTIONS
            for value, comment in [found[name]]]
    return table(['name', 'default', 'what it does'], rows)


TABLES = [settings, ladder, optimizers, counting, pieces, passing, hyperparameters, ablations, heads, looks,
          completions, benchmark, nanogpt, half_hour]


def rung(name):
    """What a part of chapter one buys, in a paragraph beside it."""
    order = [COUNTED, *CHAPTER_ONE]
    runs, before = best_runs(name), best_runs(order[order.index(name) - 1])
    return (f'**What it buys:** validation loss **{two(runs, "val")}** in place of {two(before, "val")}. It writes:\n'
            f'{line(runs[0]["sample"])}')


def place(file, name):
    """The syntax tree of a function, class or method of a script, and the lines of the script."""
    source = (ROOT / file).read_text(encoding='utf-8')
    found = ast.parse(source)
    for part in name.split('.'):
        found = next(node for node in found.body if getattr(node, 'name', None) == part)
    return found, source.splitlines()


def listing(file, name):
    """The body of a function without its docstring, as a block of code."""
    function, lines = place(file, name)
    start = function.body[0].end_lineno if ast.get_docstring(function) else function.lineno
    return '\n'.join(['```python', *lines[start:function.end_lineno], '```'])


def lines_of(match):
    """A link to the lines of what it names."""
    name, file, folder = match.groups()
    found, _ = place(file, name)
    first = min([found.lineno, *(decorator.lineno for decorator in getattr(found, 'decorator_list', []))])
    return f'[`{name}` in {file}]({folder}{file}#L{first}-L{found.end_lineno})'


def filled(text):
    """The page with every table, listing and link as its source has it."""
    makers = {make.__name__: make for make in TABLES}

    def fill(match):
        kind, name = match[1].split(' ', 1)
        made = makers[name]() if kind == 'table' else rung(name) if kind == 'rung' else listing(*name.split())
        return f'<!-- {match[1]} -->\n{made}\n<!-- end -->'

    text = re.sub(r'<!-- ((?:table|rung|listing) .+?) -->\n.*?<!-- end -->', fill, text, flags=re.S)
    return re.sub(r'\[`([\w.]+)`\s+in\s+(\w+\.py)\]\(((?:\.\./)?)\w+\.py[^)]*\)', lines_of, text)


if __name__ == '__main__' and not common.QUICK:  # the tables in the READMEs are of whole trainings
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding='utf-8')), encoding='utf-8', newline='\n')
