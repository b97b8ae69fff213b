"""What the README says: its excerpts, commands, files, defaults and figures are those of the project."""
import re
import shlex
import sys

import pytest
from conftest import ROOT

import bigramv2

sys.path.insert(0, str(ROOT / 'experiments'))
README = (ROOT / 'README.md').read_text(encoding='utf-8')
SOURCES = {path.name: path.read_text(encoding='utf-8') for path in ROOT.glob('*.py')}
EXCERPTS = re.findall(r'^```python\n(.*?)^```$', README, re.M | re.S)
COMMANDS = [part.strip() for line in re.findall(r'^ {4}((?:pip|python|torchrun) .*)$', README, re.M)
            for part in line.split('&&')] + re.findall(r'`((?:python|torchrun) [^`]+)`', README)


@pytest.mark.parametrize('excerpt', EXCERPTS, ids=lambda text: text.strip().splitlines()[0][:30])
def test_every_excerpt_is_in_a_source(excerpt):
    assert any(excerpt in source for source in SOURCES.values())


def test_there_are_excerpts_and_commands():
    assert len(EXCERPTS) >= 8 and len(COMMANDS) >= 15


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_parses(command, monkeypatch):
    for name in bigramv2.COMMENTS:  # to be put back after the test
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
    assert (ROOT / script).exists()
    if script == 'bigramv2.py' and '--help' not in words:
        for name, value in dict(block_size=128, n_embd=128, num_heads=4, num_layers=3, batch_size=16).items():
            monkeypatch.setattr(bigramv2, name, value)
        bigramv2.configure(words[words.index(script) + 1:])


def test_every_file_and_picture_exists():
    names = re.findall(r'\]\(([^)#]+)\)', README)
    names += re.findall(r'`((?:[\w.]+/)+[\w.]*|\w+\.(?:py|md|txt|toml))`', README)
    made = ('out/', 'tokens/train.bin', 'tokens/val.bin')  # by the program
    missing = [name for name in names if not name.startswith(made) and not (ROOT / name).exists()]
    assert len(names) > 20 and not missing


def test_every_link_to_a_section_has_one():
    titles = re.findall(r'^## (.+)$', README, re.M)
    titles = {re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-') for title in titles}
    assert set(re.findall(r'\]\(#([^)]+)\)', README)) <= titles


@pytest.mark.parametrize('script', ['bigram.py', 'bigramv2.py'])
def test_every_idea_in_the_code_is_explained(script):
    ideas = re.findall(r'^(?:class|def) (\w+)', SOURCES[script].split('- plumbing')[0], re.M)
    assert len(ideas) > 8
    assert [idea for idea in ideas if f'`{idea}`' not in README] == []


def test_the_table_of_hyperparameters_has_every_one_with_its_default():
    rows = dict(re.findall(r'^\| `(\w+)` \| `(.+?)` \| [^|]+ \|$', README.split('<!-- table settings -->')[1], re.M))
    lines = re.findall(r'^(\w+) = (.+?)  # ', SOURCES['bigramv2.py'].split('# ----')[0], re.M)
    assert len(lines) > 25
    for name, value in lines:
        assert name == 'device' or rows[name] == value.strip()


def test_every_table_of_results_is_that_of_its_file_and_every_link_has_its_lines(monkeypatch):
    monkeypatch.chdir(ROOT)
    from tables import TABLES, filled
    assert filled(README) == README
    named = re.findall(r'<!-- table (\w+) -->', README)
    assert sorted(named) == sorted(make.__name__ for make in TABLES)
