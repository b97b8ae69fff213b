"""What a learner does first: edits the top of bigramv2.py, and sets values for one run with flags."""
import re
import runpy
import shutil

import pytest
import torch
from conftest import ROOT, SMALL, edited, refused, run, saved, stop_at, succeeds

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
    tiny = ['--block_size', 16, '--batch_size', 2, '--max_iters', 1, '--eval_windows', 1, '--max_new_tokens', 1]
    names = run(edited(folder, **lines), *tiny, *flags, cwd=folder).names
    assert {name: names[name] for name in expected} == expected
    assert hyperparameters('out/2/model.pt').items() >= expected.items()


@pytest.mark.parametrize('device, fused', [('mps', False), ('cpu', True)])
def test_on_a_mac_the_formula_stands_in_for_the_kernel_unless_the_device_is_the_cpu(monkeypatch, device, fused):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    mac = runpy.run_path(str(ROOT / 'bigramv2.py'))
    assert mac['device'] == 'mps' and mac['fused_attention'] is False
    mac['configure'](['--device', device])
    assert mac['configure'].__globals__['fused_attention'] is fused


# Resuming after an edit, or with another flag

@pytest.mark.parametrize('flags', [['--learning_rate', 0.01], ['--eval_interval', 5], ['--dropout', 0.1]], ids=str)
def test_r6_a_flag_wins_over_the_resumed_run_and_is_named(folder, flags):
    name, value = flags[0][2:], flags[1]
    printed = succeeds('bigramv2.py', '--resume', '--max_iters', 30, *flags, cwd=folder)
    now = hyperparameters('out/1/checkpoint.pt')
    assert now == bigramv2.HYPERPARAMETERS | hyperparameters() | {'max_iters': 30, name: value}
    line, = re.findall(rf'^{name} = .*', printed, re.M)
    assert f'{name} = {value}, from the flag' in line and str(hyperparameters()[name]) in line
    assert ('step    25' in printed) == (name == 'eval_interval')


def test_what_the_top_says_differently_is_named_and_not_taken(folder):
    program = edited(folder, dropout='dropout = 0.2', learning_rate='learning_rate = 0.01')
    printed = succeeds(program, '--resume', '--max_iters', 30, cwd=folder)
    for name, own, top in (('dropout', 0.0, 0.2), ('learning_rate', 0.025, 0.01)):
        line, = re.findall(rf'^{name} = .*', printed, re.M)
        assert f'{name} = {own}, from the run' in line and str(top) in line
        assert hyperparameters('out/1/checkpoint.pt')[name] == own
    assert 'weight_decay' not in printed  # it is the same in both


def test_the_sizes_and_the_seed_are_the_runs_own(folder):
    for name, value, own in (('n_embd', 32, 16), ('block_size', 8, 16), ('num_heads', 2, 4), ('num_layers', 2, 1),
                             ('seed', 7, 1337)):
        refused(folder, 'bigramv2.py', ['--resume', '--max_iters', 30, f'--{name}', value],
                f'--{name} {value}', 'out/1/checkpoint.pt', str(own), f'leave --{name} out')
    refused(folder, 'bigramv2.py', ['--sample_only', '--n_embd', 32], '--n_embd 32', 'out/1/model.pt', '16')
    succeeds('bigramv2.py', '--resume', '--n_embd', 16, '--seed', 1337, cwd=folder)  # they agree


# Mistakes

@pytest.mark.parametrize('args, says', [
    ('--n_embd 30 --num_heads 4', ['n_embd = 30', 'divisible by num_heads = 4']),
    ('--dropout 1.5', ['dropout = 1.5', '0.99']), ('--batch_size 0', ['batch_size = 0', 'at least 1']),
    ('--temperature nan', ['temperature = nan']), ('--top_k -1', ['top_k = -1']),
    ('--learning_rate -1', ['learning_rate = -1']), ('--max_iters 2.5', ['max_iters = 2.5', 'whole number']),
    ('--block_size 5000', ['3000 characters', 'too few for block_size = 5000', 'smaller']),
    ('--n_embed 64', ['--n_embed']), ('--n_embd many', ['--n_embd', 'many']), ('extra', ['extra']),
    ('--device tpu', ["device = 'tpu'"]), ('--device cuda:77', ["device = 'cuda:77'"]),
    ('--prompt A~B', ["'~'", 'U+007E']), ('--sample_only --prompt @ab', ["'@'"]),
    ('--sample_only --prompt a\u0301', ["'\\u0301'", 'U+0301']),
    ('--resume --out_dir new', ['new/', 'checkpoint.pt', 'train']),
    ('--sample_only --out_dir new', ['new/', 'model.pt', 'train']),
    ('--out_dir input.txt', ['cannot write to input.txt']), ('--out_dir input.txt/x', ['cannot write to input.txt']),
], ids=str)
def test_a_mistake_is_told_in_one_line_before_anything_else(folder, args, says):
    refused(folder, 'bigramv2.py', args.split(), *says)


def test_t4_tokens_that_are_too_few_or_not_there_are_told_with_what_to_do(folder):
    (folder / 'input.txt').write_text('0123456789')
    succeeds('prepare.py', cwd=folder)
    refused(folder, 'bigramv2.py', ['--block_size', 1], 'too few for block_size = 1: prepare a longer text')
    assert 'smaller' not in run('bigramv2.py', '--block_size', 1, cwd=folder).stderr  # T4: nothing is
    (folder / 'tokens/val.bin').unlink()
    refused(folder, 'bigramv2.py', SMALL, 'run python prepare.py')
    shutil.rmtree('tokens')
    refused(folder, 'bigramv2.py', SMALL, 'run python prepare.py')


def test_an_error_that_nobody_foresaw_keeps_its_traceback(folder, monkeypatch):
    stop_at(monkeypatch, torch.nn.functional, 'gelu', 0, RuntimeError('shapes do not match'))
    with pytest.raises(RuntimeError, match='shapes do not match'):
        run('bigramv2.py', *SMALL, cwd=folder)
