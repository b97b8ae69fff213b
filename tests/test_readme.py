"""What both READMEs say: their excerpts, commands, files, links, defaults and tables are those of the project."""
import re
import shlex
import sys

import pytest
from conftest import ROOT

import bigramv2

sys.path.insert(0, str(ROOT / 'experiments'))
README = (ROOT / 'README.md').read_text(encoding='utf-8')
LABORATORY = (ROOT / 'experiments/README.md').read_text(encoding='utf-8')
SOURCES = {path.name: path.read_text(encoding='utf-8') for path in ROOT.glob('*.py')}
EXCERPTS = re.findall(r'^```python\n(.*?)^```$', README, re.M | re.S)
USE, = [excerpt for excerpt in EXCERPTS if excerpt.startswith('import bigramv2')]  # from Python, by the reader
EXCERPTS.remove(USE)
BOTH = README + LABORATORY
COMMANDS = sorted({part.strip() for line in re.findall(r'^ {4}((?:pip|python|torchrun) .*)$', BOTH, re.M)
                   for part in line.split('&&')} | set(re.findall(r'`((?:python|torchrun) [^`]+)`', BOTH)))


@pytest.mark.parametrize('excerpt', EXCERPTS, ids=lambda text: text.strip().splitlines()[0][:30])
def test_every_excerpt_is_in_a_source(excerpt):
    assert any(excerpt in source for source in SOURCES.values())


def test_there_are_excerpts_and_commands():
    assert len(EXCERPTS) >= 8 and len(COMMANDS) >= 15


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_parses(command, monkeypatch):
    for name in bigramv2.HYPERPARAMETERS | bigramv2.OPTIONS:  # to be put back after the test
        monkeypatch.setattr(bigramv2, name, getattr(bigramv2, name))
    program, *words = shlex.split(command)
    if program == 'pip':
        assert all((ROOT / name).exists() for name in words if name.endswith('.txt'))
        return
    assert program in ('python', 'torchrun')
    if words[0] == '-m':
        assert words[1] == 'pytest' and all((ROOT / word).exists() for word in words[2:] if word.startswith('tests'))
        return
    script = next(word for word in words if word.endswith('.py'))
    assert (ROOT / script).exists() or script == 'mine.py'  # which the reader writes
    if script == 'bigramv2.py' and '--help' not in words:
        for name, value in dict(block_size=128, n_embd=128, num_heads=4, num_layers=3, batch_size=16).items():
            monkeypatch.setattr(bigramv2, name, value)
        bigramv2.configure(words[words.index(script) + 1:])


@pytest.mark.parametrize('page', ['README.md', 'experiments/README.md'])
def test_every_file_and_picture_exists(page):
    text, folder = (ROOT / page).read_text(encoding='utf-8'), (ROOT / page).parent
    linked = [name for name in re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', text) if not name.startswith('https://')]
    assert len(linked) >= 4 and not [name for name in linked if not (folder / name).exists()]
    named = re.findall(r'`((?:[\w.]+/)+[\w.]*|\w+\.(?:py|md|txt|toml))`', text)
    made = ('out/', 'tokens/', 'experiments/out/')  # by the program
    missing = [name for name in named if not name.startswith(made)
               and not any((place / name).exists() for place in (ROOT, folder))]
    others = {'book.txt', 'characters/s', 'data/shakespeare_char', 'mine.py', 'mine2.py', 'model.html'}
    assert len(named) > 15 and set(missing) <= others


def anchors(text):
    return {re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-') for title in re.findall(r'^##+ (.+)$', text, re.M)}


def test_every_link_to_a_section_has_one():
    assert set(re.findall(r'\]\(#([^)]+)\)', README)) <= anchors(README)
    assert set(re.findall(r'\]\(#([^)]+)\)', LABORATORY)) <= anchors(LABORATORY)
    assert set(re.findall(r'\]\(experiments/README.md#([^)]+)\)', README)) <= anchors(LABORATORY)
    assert set(re.findall(r'\]\(../README.md#([^)]+)\)', LABORATORY)) <= anchors(README)


def test_the_model_is_used_from_python_as_the_readme_says(folder, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bigramv2, 'out_dir', 'out')
        exec(USE, {})
    assert len(capsys.readouterr().out) == 201


@pytest.mark.parametrize('script', ['bigram.py', 'bigramv2.py'])
def test_every_idea_in_the_code_is_explained(script):
    ideas = re.findall(r'^(?:class|def) (\w+)', SOURCES[script].split('- plumbing')[0], re.M)
    assert len(ideas) > 8
    assert [idea for idea in ideas if f'`{idea}`' not in README] == []


def test_the_table_of_hyperparameters_has_every_one_with_its_default():
    table = LABORATORY.split('<!-- table settings -->')[1]
    rows = dict(re.findall(r'^\| `(\w+)` \| `(.+?)` \| [^|]+ \|$', table, re.M))
    lines = dict(re.findall(r'^(\w+) = (.+?)  # ', SOURCES['bigramv2.py'].split('# ----')[0], re.M))
    names = bigramv2.HYPERPARAMETERS.keys() | bigramv2.OPTIONS.keys()
    assert len(names) > 25
    for name in names - {'device'}:
        assert rows[name] == lines[name].strip()


def test_every_table_of_results_is_that_of_its_file(monkeypatch):
    monkeypatch.chdir(ROOT)
    from tables import TABLES, filled
    assert filled(README) == README and filled(LABORATORY) == LABORATORY
    named = re.findall(r'<!-- table (\w+) -->', BOTH)
    assert sorted(named) == sorted(make.__name__ for make in TABLES)
