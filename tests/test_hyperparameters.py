"""What a learner does first, editing the top of bigramv2.py: each line stays a flag, and no saved file is lost."""
import pytest
import torch
from conftest import SMALL, edited, refused, run, saved, succeeds

import bigramv2


def hyperparameters(folder, name='model.pt'):
    return saved(folder / 'out' / name)['hyperparameters']


# How people write a hyperparameter

LINES = dict(
    n_embd='n_embd = 4 * 4 # one space before the comment',
    block_size='block_size=16',
    num_layers='num_layers = 1',
    batch_size='batch_size = 2 + 2#no space',
    max_iters='max_iters = 2_0  # an underscore',
    eval_interval='eval_interval = 10',
    eval_windows='eval_windows = int(4.5)',
    dropout='dropout = 0  # a whole number',
    learning_rate='learning_rate = 1',
    seed='seed = 5; top_p = 1.0',
    max_new_tokens='max_new_tokens = 3 * 10',
    temperature='temperature = 1',
)
VALUES = dict(n_embd=16, block_size=16, num_layers=1, batch_size=4, max_iters=20, eval_interval=10, eval_windows=4,
              dropout=0, learning_rate=1, seed=5, top_p=1.0)


def test_every_way_to_write_a_hyperparameter_is_saved_read_and_resumed(folder):
    program = edited(folder, **LINES)
    assert 'step    20' in succeeds(program, cwd=folder)
    assert {name: hyperparameters(folder)[name] for name in VALUES} == VALUES
    assert len(succeeds(program, '--sample_only', cwd=folder)) == 31
    assert 'step    30' in succeeds(program, '--resume', '--max_iters', 30, cwd=folder)


@pytest.mark.parametrize('name, line, value', [
    ('dropout', 'dropout = 0', 0.1),
    ('learning_rate', 'learning_rate = 1', 0.03),
    ('learning_rate', 'learning_rate = 0.02', 1),
    ('n_embd', 'n_embd = 4 * 4 # channels', 32),
    ('max_iters', 'max_iters = 2_000', 10),
    ('grad_clip', 'grad_clip = 1', 'inf'),
    ('warmup_iters', 'warmup_iters=10#steps', 0),
    ('out_dir', "out_dir = 'elsewhere' # a folder", 'out'),
    ('temperature', 'temperature = 1', 0.5),
    ('kv_cache', 'kv_cache = False', None),
])
def test_every_way_to_write_a_hyperparameter_gives_a_flag_of_its_kind(folder, name, line, value):
    program = edited(folder, **{name: line})
    flag = [f'--{name}'] if value is None else [f'--{name}', value]
    succeeds(program, *SMALL, *flag, cwd=folder)
    if name not in ('out_dir', 'temperature', 'kv_cache'):
        assert hyperparameters(folder)[name] == float(value)


def test_a_whole_number_stays_whole_and_a_broken_one_where_none_can_be_is_refused(folder):
    program = edited(folder, learning_rate='learning_rate = 1')
    for value in ('2.5', '1e3', 'nan', 'True'):
        result = run(program, '--n_embd', value, cwd=folder)
        assert result.returncode > 0 and 'n_embd' in result.stderr and len(result.stderr.splitlines()) == 1


def test_the_help_text_does_not_need_a_comment(folder):
    text = ' '.join(succeeds(edited(folder, **LINES), '--help', cwd=folder).split())
    for part in ('one space before the comment (default: 16)', '--num_layers NUM_LAYERS (default: 1)',
                 'no space (default: 4)', 'a whole number (default: 0)', '--top_p TOP_P'):
        assert part in text


# A line that a learner adds

@pytest.fixture
def with_top_p(folder):
    return edited(folder, seed='seed = 1337\ntop_p = 1.0  # share of the probability')


def test_a_line_that_a_learner_adds_is_a_flag_at_once_and_saved(folder, with_top_p):
    succeeds(with_top_p, *SMALL, '--top_p', 0.9, cwd=folder)
    assert hyperparameters(folder)['top_p'] == 0.9
    text = succeeds(with_top_p, '--sample_only', '--top_p', 0.9, cwd=folder)
    assert text == succeeds(with_top_p, '--sample_only', cwd=folder)


@pytest.mark.parametrize('args', [['--sample_only'], ['--resume', '--max_iters', 30]], ids=lambda args: args[0])
@pytest.mark.parametrize('flag, value', [([], 1.0), (['--top_p', 0.5], 0.5)], ids=['top', 'flag'])
def test_a_file_that_lacks_an_added_line_loads_takes_its_value_and_says_so(folder, with_top_p, args, flag, value):
    result = run(with_top_p, *args, *flag, cwd=folder)
    name = 'model.pt' if args[0] == '--sample_only' else 'checkpoint.pt'
    assert result.returncode == 0
    assert result.stderr == f'bigramv2.py: out/{name} is older than top_p: it gets top_p = {value}\n'
    if args[0] == '--resume':
        assert hyperparameters(folder, 'checkpoint.pt')['top_p'] == value


def test_a_file_with_a_line_that_is_gone_loads_and_says_so(folder, with_top_p):
    succeeds(with_top_p, *SMALL, cwd=folder)
    result = run('bigramv2.py', '--sample_only', cwd=folder)
    assert result.returncode == 0
    assert result.stderr == 'bigramv2.py: out/model.pt has top_p = 1.0, which bigramv2.py does not know\n'


@pytest.mark.parametrize('line', ['memory = 16', 'rank = 8', 'time = 3', "count = 'all'", 'windows = 64'])
def test_a_line_with_the_name_of_something_further_down_is_refused(folder, line):
    program, name = edited(folder, seed=f'seed = 1337\n{line}'), line.split()[0]
    refused(folder, program, SMALL, 1, f'{name}, at the top, is also the name of something further down')


# Resuming after an edit or with another flag

def test_a_run_keeps_its_values_and_names_each_that_the_top_now_gives_differently(folder):
    program = edited(folder, dropout='dropout = 0.2', learning_rate='learning_rate = 0.01')
    result = run(program, '--resume', '--max_iters', 30, cwd=folder)
    assert result.returncode == 0 and sorted(result.stderr.splitlines()) == [
        'bigramv2.py: out/checkpoint.pt keeps its dropout = 0.0; the 0.2 at the top of bigramv2.py is for new runs',
        'bigramv2.py: out/checkpoint.pt keeps its learning_rate = 0.025; '
        'the 0.01 at the top of bigramv2.py is for new runs']
    assert hyperparameters(folder, 'checkpoint.pt')['dropout'] == 0.0


def test_the_flags_with_which_a_run_began_are_not_taken_for_edits(folder):
    assert 'step    30' in succeeds('bigramv2.py', '--resume', '--max_iters', 30, cwd=folder)  # and nothing on stderr
    assert 'step    40' in succeeds('bigramv2.py', '--resume', '--max_iters', 40, cwd=folder)  # also the second time


def test_an_edit_to_the_value_that_the_run_has_is_not_worth_a_line(folder):
    succeeds(edited(folder, n_embd='n_embd = 16'), '--resume', '--max_iters', 30, cwd=folder)


def test_an_edit_of_max_iters_is_told_too(folder):
    result = run(edited(folder, max_iters='max_iters = 3000'), '--resume', cwd=folder)
    keeps, complete = result.stderr.splitlines()
    assert 'keeps its max_iters = 20; the 3000 at the top of bigramv2.py is for new runs' in keeps
    assert 'has done 20 steps already, and max_iters is 20; to train it further, add --max_iters 40' in complete


def test_a_flag_that_contradicts_the_run_is_refused_and_one_that_agrees_is_not(folder):
    for flag, value, own in (('n_embd', 32, '16'), ('dropout', 0.1, '0.0'), ('seed', 7, '1337')):
        refused(folder, 'bigramv2.py', ['--resume', '--max_iters', 30, f'--{flag}', value], 1,
                f'{flag} = {value} contradicts out/checkpoint.pt, which has {own}: leave --{flag} out')
    succeeds('bigramv2.py', '--resume', '--max_iters', 30, '--n_embd', 16, '--dropout', 0, cwd=folder)
    refused(folder, 'bigramv2.py', ['--sample_only', '--n_embd', 32], 1, 'n_embd = 32 contradicts out/model.pt')


def test_what_is_not_saved_is_always_of_today(folder):
    assert not bool(set(hyperparameters(folder)) & {'device', 'prompt', 'temperature', 'out_dir', 'resume'})
    printed = succeeds('bigramv2.py', '--resume', '--max_iters', 30, '--prompt', 'The ', '--max_new_tokens', 5,
                       '--temperature', 0, cwd=folder)
    assert len(printed.split('They write:\n\n')[1]) == 4 + 5 + 1


# What a machine lacks

def test_where_torch_has_a_mac_gpu_the_formula_stands_in_for_the_kernel(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    text = ' '.join(succeeds('bigramv2.py', '--help', cwd=folder).split())
    assert "as on a Mac's GPU (default: False)" in text and "(default: 'mps')" in text


@pytest.mark.parametrize('device, triton, compiled', [
    ('cuda', True, True), ('cuda:1', True, True), ('cuda', False, False), ('cpu', True, False), ('mps', True, False)])
def test_the_model_is_compiled_only_on_cuda_and_where_triton_is(monkeypatch, device, triton, compiled):
    monkeypatch.setattr(bigramv2, 'device', device)
    monkeypatch.setattr(bigramv2, 'find_spec', lambda name: triton)
    monkeypatch.setattr(torch, 'compile', lambda model: 'compiled')
    assert bigramv2.parallel('model') == ('compiled' if compiled else 'model')


def test_text_is_written_in_full_precision(folder, monkeypatch):
    precision, real = [], torch.nn.Module.eval
    monkeypatch.setattr(torch.nn.Module, 'eval', lambda model: (
        precision.append(torch.get_float32_matmul_precision()), real(model))[1])
    succeeds('bigramv2.py', *SMALL, cwd=folder)
    assert precision[-1] == 'highest' and 'high' in precision
    succeeds('bigramv2.py', '--sample_only', cwd=folder)
    assert precision[-1] == 'highest'
