"""What a learner does first: edits the top of bigramv2.py, and sets values for one run with flags."""
import re

import pytest
import torch
from conftest import ROOT, SMALL, edited, refused, replaced, run, saved, succeeds

import bigramv2

# How people write a hyperparameter
LINES = dict(
    n_embd='n_embd = 4 * 4 # one space before the comment',
    block_size='block_size=16',
    num_layers='num_layers = 1',
    batch_size='batch_size = 2 + 2#no space',
    max_iters='max_iters = 2_0  # an underscore, and 100 %',
    eval_interval='eval_interval = 10',
    eval_windows='eval_windows = int(4.5)',
    dropout='dropout = 0  # a whole number',
    learning_rate='learning_rate = 1',
    seed='seed = 5; top_p = 1.0',
    temperature='temperature = 1',
    kv_cache='kv_cache = False',
)
VALUES = dict(n_embd=16, block_size=16, num_layers=1, batch_size=4, max_iters=20, eval_interval=10, eval_windows=4,
              dropout=0, learning_rate=1, seed=5, top_p=1.0)


def hyperparameters(path='out/1/model.pt'):
    return saved(path)['hyperparameters']


def test_every_setting_is_a_flag_with_its_default_and_its_comment(monkeypatch):
    monkeypatch.setenv('COLUMNS', '500')
    text = ' '.join(succeeds('bigramv2.py', '--help', cwd=ROOT).split())
    source = (ROOT / 'bigramv2.py').read_text(encoding='utf-8')
    assert len(bigramv2.HYPERPARAMETERS | bigramv2.OPTIONS) > 25
    for name in bigramv2.HYPERPARAMETERS | bigramv2.OPTIONS:
        value, comment = re.search(rf'^{name} = (.+?)(?:  # (.+))?$', source, re.M).groups()
        assert f'--{name} ' in text and (comment or '') in text
        if name not in ('device', 'fused_attention'):  # they depend on the machine
            assert comment and f'(default: {value.strip()})' in text


def test_every_way_to_write_a_line_is_a_flag_and_is_saved(folder):
    program = edited(folder, **LINES)
    text = ' '.join(succeeds(program, '--help', cwd=folder).split())
    for part in ('one space before the comment (default: 16)', ' (default: 1)', 'no space (default: 4)',
                 'an underscore, and 100 % (default: 20)', '--top_p TOP_P'):
        assert part in text
    succeeds(program, '--out_dir', 'top', cwd=folder)
    assert {name: hyperparameters('top/1/model.pt')[name] for name in VALUES} == VALUES
    given = dict(n_embd=32, block_size=8, num_layers=2, batch_size=2, max_iters=2, eval_interval=1, eval_windows=2,
                 dropout=0.1, learning_rate=0.03, seed=7, top_p=0.5, grad_clip=float('inf'))
    flags = [f'--{name}={value}' for name, value in given.items()]
    names = run(program, *flags, '--temperature', 0.5, '--kv_cache', '--out_dir', 'flags', cwd=folder).names
    assert {name: hyperparameters('flags/1/model.pt')[name] for name in given} == given
    assert names['temperature'] == 0.5 and names['kv_cache'] is True


@pytest.mark.parametrize('flag, value', [
    ('--compile=False', 0), ('--compile', 1), ('--compile=true', 1), ('--no-compile', 0), ('--kv_cache=False', 0)])
def test_f1_a_switch_is_set_in_each_way_that_people_know(flag, value):
    name = re.sub('--(no-)?|=.*', '', flag)
    assert bigramv2.configure([flag]) == {name: value} and getattr(bigramv2, name) == value


def test_a_line_that_a_learner_adds_is_a_flag_at_once_and_older_files_still_load(folder):
    program = edited(folder, seed='seed = 1337\ntop_p = 1.0  # share of the probability')
    assert len(succeeds(program, '--sample_only', cwd=folder)) == 501
    succeeds(program, '--resume', '--max_iters', 30, '--top_p', 0.9, cwd=folder)
    assert hyperparameters('out/1/checkpoint.pt')['top_p'] == 0.9
    assert len(succeeds('bigramv2.py', '--sample_only', cwd=folder)) == 501


def test_a_line_with_the_name_of_something_further_down_is_noticed_at_once(folder):
    for line in ('windows = 64', 'rank = 8'):
        with pytest.raises(AssertionError):
            run(edited(folder, seed=f'seed = 1337\n{line}'), *SMALL, cwd=folder)


# Values that are computed from others

IF = 'seed = 1337\nif n_embd > 64:\n    dropout = 0.5\n    grad_clip = dropout * 2'


@pytest.mark.parametrize('lines, flags, expected', [
    ({'adamw_learning_rate': 'adamw_learning_rate = learning_rate / 3'}, ['--learning_rate', 0.3],
     dict(learning_rate=0.3, adamw_learning_rate=0.3 / 3)),
    ({'adamw_learning_rate': 'adamw_learning_rate = learning_rate / 3'},
     ['--learning_rate', 0.3, '--adamw_learning_rate', 0.2], dict(adamw_learning_rate=0.2)),
    ({'num_heads': 'num_heads = n_embd // 8', 'num_layers': 'num_layers = num_heads // 2'}, ['--n_embd', 32],
     dict(n_embd=32, num_heads=4, num_layers=2)),
    ({'num_heads': 'num_heads = n_embd // 8', 'num_layers': 'num_layers = num_heads // 2'}, ['--num_heads', 2],
     dict(n_embd=128, num_heads=2, num_layers=1)),
    ({'n_embd': 'n_embd = 32', 'seed': IF}, ['--n_embd', 128], dict(dropout=0.5, grad_clip=1.0)),
    ({'seed': IF}, ['--n_embd', 32, '--grad_clip', 3], dict(dropout=0.0, grad_clip=3)),
    ({'seed': 'seed = 1337\nif n_embd > 64:\n    dropout = 0.5\nelse:\n    dropout = 0.1'}, ['--n_embd', 32],
     dict(dropout=0.1)),
], ids=['follows', 'its own flag wins', 'chain', 'middle', 'if', 'no longer if', 'else'])
def test_a_value_that_is_computed_from_another_follows_its_flag(folder, lines, flags, expected):
    names = run(edited(folder, **lines), *flags, '--sample_only', '--max_new_tokens', 1, cwd=folder).names
    expected |= {name: value for name, value in hyperparameters().items() if name not in expected}
    wrong = {name: (names[name], value) for name, value in expected.items() if names[name] != value}
    assert not wrong
