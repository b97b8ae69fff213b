"""What may happen to a run: kills, a full disk, other runs, files from strangers. Nothing is ever lost."""
import os
import pickle
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import (
    DEVICES,
    SMALL,
    TEXT,
    edited,
    ended,
    files_in,
    losses,
    refused,
    run,
    same_weights,
    saved,
    start,
    stop_at,
    succeeds,
)

import bigramv2


def stopped(*args, at, module=torch.nn.utils, name='clip_grad_norm_', **kwargs):
    """Run bigramv2.py, or the program at a path, until the given call of a function, here one in each step."""
    program = [] if isinstance(args[0], Path) else ['bigramv2.py']
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, module, name, at)
        result = run(*program, *args, **kwargs)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1 and 'add --resume' in result.stderr
    return result


def same_run(a, b):
    """Whether two folders of runs hold the same, to the bit, but for the seconds."""
    one, two = saved(f'{a}/checkpoint.pt'), saved(f'{b}/checkpoint.pt')
    for states in zip(one['optimizers'], two['optimizers'], strict=True):
        for p, q in zip(states[0].values(), states[1].values(), strict=True):
            assert p.keys() == q.keys() and all(torch.equal(p[name], q[name]) for name in p)
    assert one['best'] == two['best'] and losses(f'{a}/loss.csv') == losses(f'{b}/loss.csv')
    return all(same_weights(f'{a}/{name}', f'{b}/{name}') for name in ('model.pt', 'checkpoint.pt'))


# Stopping and going on

@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dropout', [0, 0.2])
def test_a_run_that_is_stopped_anywhere_and_resumed_is_the_same_run(folder, device, dropout):
    args = dict(cwd=folder, device=device)
    flags = [*SMALL, '--max_iters', 30, '--dropout', dropout, '--out_dir']
    succeeds('bigramv2.py', *flags, 'whole', **args)
    for step in (0, 9, 10, 29):
        stopped(*flags, f'stopped{step}', at=step, **args)
        assert saved(f'stopped{step}/1/checkpoint.pt')['step'] == step // 10 * 10
        succeeds('bigramv2.py', '--resume', '--out_dir', f'stopped{step}', **args)
        if device == 'cpu':
            assert same_run('whole/1', f'stopped{step}/1')
        else:
            assert same_weights('whole/1/checkpoint.pt', f'stopped{step}/1/checkpoint.pt', atol=1e-3)


@pytest.mark.parametrize('kills, seed', [(2, 1), pytest.param(20, 2, marks=pytest.mark.slow)])
def test_a_chain_of_kills_and_resumes_ends_where_an_unbroken_run_does(folder, kills, seed):
    args = [*SMALL, '--max_iters', kills * 80, '--dropout', 0.1, '--seed', seed]
    succeeds('bigramv2.py', *args, '--out_dir', 'whole', cwd=folder)
    dice, args = random.Random(seed), [*args, '--out_dir', 'broken']
    for _ in range(kills):
        process = start('bigramv2.py', *args, cwd=folder)
        for _ in range(2):  # past the first checkpoint, and then a moment more
            next(line for line in process.stdout if line.startswith('step '))
        time.sleep(dice.random() * 0.02)
        process.kill()
        ended(process)
        args = ['--resume', '--out_dir', 'broken']
    assert 10 <= saved('broken/1/checkpoint.pt')['step'] < kills * 80
    succeeds('bigramv2.py', *args, cwd=folder)
    assert same_run('whole/1', 'broken/1')


@pytest.mark.parametrize('name, call', [('fsync', 3), ('fsync', 4), ('fsync', 5), ('replace', 3), ('replace', 4),
                                        ('replace', 5)])
def test_a_kill_inside_the_second_save_leaves_whole_files_from_which_the_run_goes_on(folder, name, call):
    stopped(*SMALL, '--out_dir', 'new', at=call, module=os, name=name, cwd=folder)  # model, checkpoint, curve: 3 calls
    assert saved('new/1/model.pt')['step'] == (0 if call == 3 else 10)
    assert saved('new/1/checkpoint.pt')['step'] == (10 if call == 5 else 0)
    succeeds('bigramv2.py', '--resume', '--out_dir', 'new', cwd=folder)
    assert same_run('out/1', 'new/1')


def test_parameters_that_are_frozen_or_not_used_are_resumed_too(folder):
    last = '        self.proj = nn.Linear(4 * n_embd, n_embd)\n'  # of FeedForward
    program = edited(folder, ('x = self.token_embedding(idx) + positions ', 'x = self.token_embedding(idx)'),
                     (last, last + '        self.fc.weight.requires_grad_(False)\n'))
    succeeds(program, *SMALL, '--out_dir', 'whole', cwd=folder)
    stopped(program, *SMALL, '--out_dir', 'broken', at=15, cwd=folder)
    succeeds(program, '--resume', '--out_dir', 'broken', cwd=folder)
    assert same_run('whole/1', 'broken/1')


def test_resume_refuses_another_text(folder):
    for other in ('another text\n' * 200, TEXT[::-1]):  # the latter has the same characters, and as many
        (folder / 'other.txt').write_text(other, encoding='utf-8')
        succeeds('prepare.py', 'other.txt', cwd=folder)
        refused(folder, 'bigramv2.py', ['--resume', '--max_iters', 30], 'out/1/checkpoint.pt', 'another text')


# A folder for each run

def test_r2_two_runs_never_share_a_folder_and_each_can_be_resumed(folder):
    first = files_in(folder / 'out')
    stopped(*SMALL, at=15, cwd=folder)  # the run that is still living
    living = files_in(folder / 'out/2')
    assert 'Saved in out/3/' in succeeds('bigramv2.py', *SMALL, '--seed', 2, cwd=folder)
    assert (first | living).items() <= files_in(folder / 'out').items()  # not a byte has changed
    newest = succeeds('bigramv2.py', '--sample_only', cwd=folder)
    assert newest == succeeds('bigramv2.py', '--sample_only', '--out_dir', 'out/3', cwd=folder)
    assert newest != succeeds('bigramv2.py', '--sample_only', '--out_dir', 'out/1', cwd=folder)
    assert 'Saved in out/2/' in succeeds('bigramv2.py', '--resume', '--out_dir', 'out/2', cwd=folder)
    assert same_run('out/1', 'out/2') and first.items() <= files_in(folder / 'out').items()
    assert 'Saved in out/2/' in succeeds('bigramv2.py', '--resume', '--max_iters', 30, cwd=folder)  # now the newest


def test_r2_runs_that_start_at_the_same_instant_get_folders_of_their_own(folder, monkeypatch):
    mkdir = Path.mkdir
    monkeypatch.setattr(Path, 'mkdir', lambda *args, **kwargs: (time.sleep(0.001), mkdir(*args, **kwargs)))
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: bigramv2.new_folder(), range(16)))
    assert len(set(made)) == 16 and Path('out/1') not in made


def test_a_new_folder_goes_past_whatever_is_in_the_way(folder):
    (folder / 'out/2').write_bytes(b'a file')
    assert 'Saved in out/3/' in succeeds('bigramv2.py', *SMALL, cwd=folder)
    assert 'Saved in a/b c/1/' in succeeds('bigramv2.py', *SMALL, '--out_dir', 'a/b c', cwd=folder)
    assert 'Saved in 1/' in succeeds('bigramv2.py', *SMALL, '--out_dir', '.', cwd=folder)


# Files that cannot be written

def failing(monkeypatch, name, times):
    """The file of this name cannot be replaced, so many times."""
    real, left = os.replace, [times]

    def replace(source, target):
        if Path(target).name == name and left[0]:
            left[0] -= 1
            raise PermissionError(13, 'Access is denied', str(source))
        return real(source, target)

    monkeypatch.setattr(os, 'replace', replace)


def test_r1_a_curve_that_cannot_be_written_does_not_end_a_training(folder):
    (folder / 'out/1/loss.csv').unlink()
    (folder / 'out/1/loss.csv').mkdir()
    result = run('bigramv2.py', '--resume', '--max_iters', 30, cwd=folder)
    line, = result.stderr.splitlines()
    assert result.returncode == 0 and 'cannot write to out/1/loss.csv' in line
    assert saved('out/1/checkpoint.pt')['step'] == 30 and 'write:' in result.stdout


@pytest.mark.parametrize('name', ['model.pt', 'checkpoint.pt'])
def test_a_file_that_another_program_has_open_is_saved_the_next_time(folder, monkeypatch, name):
    with monkeypatch.context() as patch:
        failing(patch, name, 1)
        result = run('bigramv2.py', '--resume', '--max_iters', 40, cwd=folder)
    line, = result.stderr.splitlines()
    assert result.returncode == 0 and f'cannot write to out/1/{name}' in line
    assert saved(f'out/1/{name}')['step'] == 40 and not list(folder.glob('out/1/*.new'))
    assert 'step    40' in result.stdout and f'{saved("out/1/checkpoint.pt")["best"]:.4f}' in result.stdout


@pytest.mark.parametrize('module, name', [(os, 'fsync'), (Path, 'mkdir')])
def test_a_disk_that_is_full_from_the_start_ends_the_run_before_any_training(folder, monkeypatch, module, name):
    with monkeypatch.context() as patch:
        stop_at(patch, module, name, 0 if module is os else 1, OSError(28, 'No space left on device'))
        result = run('bigramv2.py', *SMALL, '--out_dir', 'new', cwd=folder)
    line, = result.stderr.splitlines()
    assert result.returncode == 1 and 'cannot write to' in line and 'No space left on device' in line
    assert 'step    10' not in result.stdout and not list(folder.glob('new/1/*'))


# Files from strangers

class Hostile:
    def __reduce__(self):
        return os.system, ('echo > hacked',)


@pytest.mark.parametrize('name, flag', [('model.pt', '--sample_only'), ('checkpoint.pt', '--resume')])
@pytest.mark.parametrize('as_zip', [True, False])
def test_nothing_in_a_file_is_ever_run(folder, name, flag, as_zip):
    path = folder / 'out/1' / name
    torch.save(saved(path) | {'vocab': Hostile()}, path) if as_zip else path.write_bytes(pickle.dumps(Hostile()))
    refused(folder, 'bigramv2.py', [flag], f'out/1/{name} is not a model of this bigramv2.py')
    assert not (folder / 'hacked').exists()


@pytest.mark.parametrize('spoil', [
    lambda path: path.write_bytes(b'a text'), lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    lambda path: torch.save([], path), lambda path: torch.save({'weights': saved(path)['weights']}, path),
    lambda path: torch.save(saved(path) | {'weights': {'head.weight': torch.zeros(3, 3)}}, path),
], ids=['a text', 'cut short', 'a list', 'parts', 'another model'])
@pytest.mark.parametrize('name, flag', [('model.pt', '--sample_only'), ('checkpoint.pt', '--resume')])
def test_a_file_that_is_no_model_is_refused_in_one_line(folder, spoil, name, flag):
    spoil(folder / 'out/1' / name)
    refused(folder, 'bigramv2.py', [flag], f'out/1/{name} is not a model of this bigramv2.py')
