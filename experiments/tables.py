"""Put the results into the README's tables: python experiments/tables.py

A table stands between <!-- table NAME --> and <!-- end -->, and a link such as [`Head`, lines 54 to 72 of bigram.py]()
says where an idea stands; tests/test_readme.py holds each table to its CSV file and each link to the code.
"""
import ast
import re
from statistics import mean

from common import ROOT, bigramv2, read

README = ROOT / 'README.md'


def table(head, rows):
    return '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in (head, ['---'] * len(head), *rows))


def two(rows, column):
    """The mean of a column over the seeds and, in brackets, how far apart they are."""
    values = [float(row[column]) for row in rows]
    return f'{mean(values):.3f} (±{(max(values) - min(values)) / 2:.3f})'


def verse(text):
    return text.replace('|', '\\|').replace('`', "'").strip()


def default(name):
    """A hyperparameter's default as it stands in bigramv2.py."""
    return re.search(rf'^{name} = (.+?)  # ', bigramv2.TOP, re.M)[1].strip()


def hyperparameters():
    rows, unchanged = [], [row for row in read('hyperparameters.csv') if row['name'] == 'default']
    names = list(dict.fromkeys(row['name'] for row in read('hyperparameters.csv') if row['name'] != 'default'))
    for name in names:
        mine = [row for row in read('hyperparameters.csv') if row['name'] == name]
        values = {float(row['value']): row['value'] for row in mine}
        values[float(default(name))] = None
        for _, value in sorted(values.items()):
            same = unchanged if value is None else [row for row in mine if row['value'] == value]
            shown = f'**{default(name)}**' if value is None else value
            rows.append([f'`{name}`', shown, two(same, 'val'), two(same, 'train'),
                         f'{mean(float(row["seconds"]) for row in same):.0f}', f'{int(same[0]["parameters"]):,}'])
    return table(['changed', 'to', 'val loss', 'train loss', 'seconds', 'parameters'], rows)


def ablations():
    rows = []
    for part in dict.fromkeys(row['part'] for row in read('ablations.csv')):
        same = [row for row in read('ablations.csv') if row['part'] == part]
        rows.append([part, two(same, 'val'), two(same, 'train'), f'`{verse(same[0]["sample"])}`'])
    return table(['taken out', 'val loss', 'train loss', 'what it writes after `ROMEO:`'], rows)


def heads():
    rows = []
    for size in dict.fromkeys((row['B'], row['T'], row['C'], row['H']) for row in read('heads.csv')):
        ways = {row['way']: row for row in read('heads.csv') if (row['B'], row['T'], row['C'], row['H']) == size}
        base = float(ways['modular']['milliseconds'])
        rows.append([*size, *(f'{ways[way]["milliseconds"]}' for way in ways),
                     *(f'{base / float(ways[way]["milliseconds"]):.2f}' for way in ('formula', 'fused')),
                     *(ways[way]['megabytes'] for way in ways)])
    return table(['B', 'T', 'C', 'H', 'one by one, ms', 'formula, ms', 'fused, ms', 'formula is faster by', 'fused by',
                  'one by one, MB', 'formula, MB', 'fused, MB'], rows)


def looks():
    rows = read('heads_look.csv')
    return table(list(rows[0]), [row.values() for row in rows])


def completions():
    return table(['step', 'val loss', 'after `ROMEO:`'],
                 [[row['step'], row['val'], f'`{verse(row["text"])}`'] for row in read('completions.csv')])


def benchmark():
    return table(['what', 'here', 'other', 'ratio'], [row.values() for row in read('benchmark.csv')])


def nanogpt():
    rows = read('nanogpt.csv')
    return table(list(rows[0]), [row.values() for row in rows])


def settings():
    rows = []
    for name, comment in bigramv2.COMMENTS.items():
        shown = default(name) if name != 'device' else 'the best there is'
        rows.append([f'`{name}`', f'`{shown}`', comment])
    return table(['name', 'default', 'what it does'], rows)


TABLES = [settings, hyperparameters, ablations, heads, looks, completions, benchmark, nanogpt]


def link(match):
    """Where a class or function, or a method as in GPT.stream, stands in its file."""
    name, file = match.groups()
    node = ast.parse((ROOT / file).read_text(encoding='utf-8'))
    for part in name.split('.'):
        node = next(inner for inner in node.body if getattr(inner, 'name', None) == part)
    return f'[`{name}`, lines {node.lineno} to {node.end_lineno} of {file}]({file}#L{node.lineno}-L{node.end_lineno})'


def filled(text):
    """The README with every table as the results have it, and every link as the code has it."""
    text = re.sub(r'\[`([\w.]+)`, lines \d+ to \d+ of (\w+\.py)\]\(.*?\)', link, text)
    for make in TABLES:
        start, end = f'<!-- table {make.__name__} -->\n', '<!-- end -->'
        if start in text:
            before, rest = text.split(start)
            text = before + start + make() + '\n' + end + rest.split(end, 1)[1]
    return text


if __name__ == '__main__':
    README.write_text(filled(README.read_text(encoding='utf-8')), encoding='utf-8')
