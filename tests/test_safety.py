"""What may happen to a run: kills, a full disk, damaged and hostile files, nonsense. Nothing is ever lost."""
import contextlib
import gc
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import time
import zipfile

import numpy as np
import pytest
import torch
from conftest import (
    DEVICES,
    SMALL,
    TEXT,
    default_signals,
    edited,
    ended,
    files_in,
    fuzz,
    good,
    losses,
    outcome,
    posix,
    refused,
    run,
    same_weights,
    saved,
    start,
    stop_at,
    succeeds,
)
from hypothesis import assume
from hypothesis import strategies as st

import bigramv2
import prepare

# Preparing a text

def read_tokens():
    """What bigramv2.py would train on: its files as bytes, or None where it refuses them."""
    try:
        data, vocab = bigramv2.load_data()
    except SystemExit as refusal:
        assert 'run python prepare.py' in str(refusal)
        return None
    return vocab, data['train'].tobytes(), data['val'].tobytes()


@pytest.mark.slow
def test_prepare_killed_at_any_moment_leaves_the_old_set_or_the_new_one(folder):
    old = read_tokens()
    shutil.copytree('tokens', 'old')
    (folder / 'long.txt').write_bytes(((TEXT + 'Ünïcode') * 150).encode())
    begun = time.perf_counter()
    good(ended(start('prepare.py', 'long.txt', cwd=folder)))
    whole = time.perf_counter() - begun
    new = read_tokens()
    assert old and new and old != new
    found = []
    for i in range(50):
        shutil.copytree('old', 'tokens', dirs_exist_ok=True)
        process = start('prepare.py', 'long.txt', cwd=folder)
        time.sleep(whole * (0.2 + 0.9 * i / 50))
        process.kill()
        ended(process)
        found.append(read_tokens())
        assert found[-1] in (old, new, None)
    assert old in found  # the kills did come before the end
    succeeds('prepare.py', 'long.txt', cwd=folder)
    assert read_tokens() == new and not list(folder.glob('tokens/*.new'))


@pytest.mark.parametrize('moves', range(4))
def test_prepare_killed_between_two_moves(folder, monkeypatch, moves):
    old = read_tokens()
    (folder / 'other.txt').write_bytes(TEXT[::-1].encode())  # as many characters, and the same ones
    stop_at(monkeypatch, os, 'replace', moves)
    with contextlib.suppress(KeyboardInterrupt):
        prepare.prepare('other.txt')
    found = read_tokens()
    assert found == old if moves == 0 else found is None if moves < 3 else found[0] == old[0] and found != old


# Stopping and going on

def flags(dropout):
    return [*SMALL, '--max_iters', 30, '--eval_interval', 10, '--dropout', dropout]


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dropout', [0, 0.2])
@pytest.mark.parametrize('step', [0, 9, 10, 17, 29])
def test_a_run_that_is_stopped_and_resumed_is_the_same_run(folder, monkeypatch, device, dropout, step):
    succeeds('bigramv2.py', *flags(dropout), '--out_dir', 'whole', cwd=folder, device=device)
    with monkeypatch.context() as patch:
        stop_at(patch, torch.nn.utils, 'clip_grad_norm_', step)
        result = run('bigramv2.py', *flags(dropout), '--out_dir', 'broken', cwd=folder, device=device)
    assert result.returncode == 130 and result.stderr == (
        f'bigramv2.py: Stopped. The last save is from step {step // 10 * 10}. '
        'To continue from the last save, add --resume to the same command\n')
    succeeds('bigramv2.py', '--resume', '--out_dir', 'broken', cwd=folder, device=device)
    tolerance = {} if device == 'cpu' else dict(atol=1e-3)
    assert same_weights('whole/checkpoint.pt', 'broken/checkpoint.pt', **tolerance)
    assert same_weights('whole/model.pt', 'broken/model.pt', **tolerance)
    if device == 'cpu':
        assert losses(folder / 'whole/loss.csv') == losses(folder / 'broken/loss.csv')


def test_a_stop_before_anything_was_saved_says_so(folder, monkeypatch):
    stop_at(monkeypatch, torch.nn.functional, 'cross_entropy', 0)
    result = run('bigramv2.py', *SMALL, cwd=folder)
    assert (result.returncode, result.stderr) == (130, 'bigramv2.py: Stopped. Nothing was saved yet\n')


@pytest.mark.parametrize('moment', range(7))
def test_a_stop_while_saving_names_the_step_that_is_in_the_checkpoint(folder, monkeypatch, moment):
    with monkeypatch.context() as patch:
        stop_at(patch, os, 'replace', moment)  # a look moves model.pt, loss.csv and checkpoint.pt into place
        result = run('bigramv2.py', *SMALL, '--out_dir', 'new', cwd=folder)
    if moment < 3:
        assert 'Nothing was saved yet' in result.stderr
    else:
        assert f'The last save is from step {saved("new/checkpoint.pt")["step"]}.' in result.stderr
        succeeds('bigramv2.py', '--resume', '--out_dir', 'new', cwd=folder)
        assert same_weights('new/model.pt', 'out/model.pt')


@pytest.mark.parametrize('kills, seed', [(3, 1), pytest.param(20, 2, marks=pytest.mark.slow)])
def test_a_chain_of_kills_and_resumes_ends_where_an_unbroken_run_does(folder, kills, seed):
    args = [*SMALL, '--max_iters', kills * 80, '--eval_interval', 10, '--dropout', 0.1, '--seed', seed]
    succeeds('bigramv2.py', *args, '--out_dir', 'whole', cwd=folder)
    dice, args = random.Random(seed), [*args, '--out_dir', 'broken']
    for _ in range(kills):
        process = start('bigramv2.py', *args, cwd=folder)
        for _ in range(dice.randrange(6, 11)):  # lines: past the first checkpoint, and then a moment more
            process.stdout.readline()
        time.sleep(dice.random() * 0.02)
        process.kill()
        ended(process)
        assert zipfile.ZipFile('broken/checkpoint.pt').testzip() is None
        args = ['--resume', '--out_dir', 'broken']
    succeeds('bigramv2.py', *args, cwd=folder)
    assert same_weights('whole/model.pt', 'broken/model.pt')
    assert same_weights('whole/checkpoint.pt', 'broken/checkpoint.pt')
    assert losses(folder / 'whole/loss.csv') == losses(folder / 'broken/loss.csv')


@posix
@pytest.mark.parametrize('name, dropout', [('SIGINT', 0), ('SIGTERM', 0.1)])
def test_a_signal_ends_a_run_at_once_and_it_resumes_from_its_last_look(folder, name, dropout):
    args = [*SMALL, '--max_iters', 300, '--eval_interval', 50, '--dropout', dropout]
    process = start('bigramv2.py', *args, '--out_dir', 'stopped', cwd=folder)
    for _ in range(8):  # three lines about the run, and then two a look
        process.stdout.readline()
    process.send_signal(getattr(signal, name))
    result = ended(process)
    step = saved('stopped/checkpoint.pt')['step']
    assert 50 <= step < 300 and step % 50 == 0
    if name == 'SIGINT':
        assert result.returncode == 130 and result.stderr == (
            f'bigramv2.py: Stopped. The last save is from step {step}. '
            'To continue from the last save, add --resume to the same command\n')
    else:
        assert result.returncode == -signal.SIGTERM
    succeeds('bigramv2.py', '--resume', '--out_dir', 'stopped', cwd=folder)
    succeeds('bigramv2.py', *args, '--out_dir', 'whole', cwd=folder)
    assert same_weights('stopped/checkpoint.pt', 'whole/checkpoint.pt')
    assert losses(folder / 'stopped/loss.csv') == losses(folder / 'whole/loss.csv')


@pytest.mark.parametrize('moment', ['fsync', 'replace'])
def test_a_kill_inside_the_writing_of_a_checkpoint_leaves_the_one_before(folder, monkeypatch, moment):
    before = (folder / 'out/checkpoint.pt').read_bytes()
    stop_at(monkeypatch, os, moment, 0)
    with pytest.raises(KeyboardInterrupt):
        bigramv2.save('checkpoint.pt', {'weights': torch.zeros(100_000)})
    assert (folder / 'out/checkpoint.pt').read_bytes() == before and not list(folder.glob('out/*.new'))


def test_a_complete_run_is_not_resumed_but_can_be_trained_further(folder):
    refused(folder, 'bigramv2.py', ['--resume'], 1,
            'has done 20 steps already, and max_iters is 20; to train it further, add --max_iters 40')
    refused(folder, 'bigramv2.py', ['--resume', '--max_iters', 5], 1, 'add --max_iters 40')
    printed = succeeds('bigramv2.py', '--resume', '--max_iters', 30, cwd=folder)
    assert [row[0] for row in losses(folder / 'out/loss.csv')] == ['step', '0', '10', '20', '30']
    assert 'step    30' in printed and 'step    20' not in printed


def test_a_run_that_was_stopped_is_not_told_to_train_for_longer(folder, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, torch.nn.utils, 'clip_grad_norm_', 15)
        run('bigramv2.py', *SMALL, '--out_dir', 'new', cwd=folder)
    refused(folder, 'bigramv2.py', ['--resume', '--out_dir', 'new', '--max_iters', 5], 1,
            'has done 10 steps already, and max_iters is 5; to train it further, add --max_iters 20')


def test_resume_without_a_model_saves_one_again(folder):
    (folder / 'out/model.pt').unlink()
    torch.save(saved('out/checkpoint.pt') | {'best': 0.0}, 'out/checkpoint.pt')  # no loss to come is below it
    assert 'They write:' in succeeds('bigramv2.py', '--resume', '--max_iters', 30, cwd=folder)
    assert saved('out/model.pt')['step'] == 30


def test_resume_without_a_checkpoint_or_on_another_text_is_refused(folder):
    for other in (b'another text\n' * 200, TEXT[::-1].encode()):  # the latter has the same characters
        (folder / 'other.txt').write_bytes(other)
        succeeds('prepare.py', 'other.txt', cwd=folder)
        refused(folder, 'bigramv2.py', ['--resume', '--max_iters', 30], 1, 'learnt another text')
    shutil.rmtree('out')
    refused(folder, 'bigramv2.py', ['--resume'], 1, 'out/checkpoint.pt does not exist')


def test_a_loss_that_is_not_finite_ends_the_run_at_the_look_before_anything_is_saved(folder, monkeypatch):
    real, calls = torch.nn.functional.cross_entropy, []

    def nan_from_step_13_on(*args):
        calls.append(1)
        return real(*args) * (torch.nan if len(calls) > 2 + 10 + 2 + 3 else 1)  # two looks of two, and 13 steps

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, 'cross_entropy', nan_from_step_13_on)
        result = run('bigramv2.py', *SMALL, '--out_dir', 'new', cwd=folder)
    assert result.returncode == 1 and result.stderr == (
        'bigramv2.py: the loss is nan at step 20: start a new run with a lower learning_rate\n')
    succeeds('bigramv2.py', '--resume', '--out_dir', 'new', cwd=folder)
    assert same_weights('new/checkpoint.pt', 'out/checkpoint.pt')


def test_a_model_of_a_step_that_the_resumed_run_never_looks_at_is_still_written_with(folder):
    """A kill between the saving of the model and of the checkpoint, then another max_iters, leave this."""
    torch.save(saved('out/model.pt') | {'step': 15}, 'out/model.pt')
    torch.save(saved('out/checkpoint.pt') | {'best': 0.0}, 'out/checkpoint.pt')
    assert 'They write:' in succeeds('bigramv2.py', '--resume', '--max_iters', 30, cwd=folder)


# Starting anew

def test_an_old_run_is_never_lost_whatever_text_it_learnt(folder):
    runs = [{path.name: path.read_bytes() for path in (folder / 'out').iterdir()}]
    for i, text in enumerate([TEXT[::-1], 'easy ' * 600, TEXT], start=1):
        (folder / 'input.txt').write_bytes(text.encode())
        succeeds('prepare.py', cwd=folder)
        assert f'The earlier run of out/ is now in out/{i}/\n' in succeeds('bigramv2.py', *SMALL, cwd=folder)
        runs.append({path.name: path.read_bytes() for path in (folder / 'out').iterdir() if path.is_file()})
        for j, old in enumerate(runs[:-1], start=1):
            assert {path.name: path.read_bytes() for path in (folder / f'out/{j}').iterdir()} == old
    assert len(succeeds('bigramv2.py', '--sample_only', '--out_dir', 'out/2', cwd=folder)) == 501


def test_old_runs_go_past_files_and_folders_that_are_in_the_way(folder):
    (folder / 'out/1').write_bytes(b'a file')
    (folder / 'out/2').mkdir()
    assert 'is now in out/3/' in succeeds('bigramv2.py', *SMALL, cwd=folder)
    assert (folder / 'out/1').read_bytes() == b'a file' and (folder / 'out/3/model.pt').exists()


def test_a_file_of_the_users_own_stays_where_it_is(folder):
    (folder / 'out/notes.txt').write_bytes(b'mine')
    succeeds('bigramv2.py', *SMALL, cwd=folder)
    assert (folder / 'out/notes.txt').read_bytes() == b'mine'


def test_a_refused_run_moves_nothing(folder):
    refused(folder, 'bigramv2.py', [*SMALL, '--batch_size', 0], 1, 'batch_size')
    refused(folder, 'bigramv2.py', [*SMALL, '--prompt', '~'], 1, 'prompt')


@pytest.mark.parametrize('moves', range(4))
def test_an_old_run_outlives_a_kill_between_two_moves(folder, monkeypatch, moves):
    old = sorted(files_in(folder / 'out').values())
    with monkeypatch.context() as patch:
        stop_at(patch, os, 'replace', moves)
        assert run('bigramv2.py', *SMALL, cwd=folder).returncode == 130
    succeeds('bigramv2.py', *SMALL, cwd=folder)
    now = list(files_in(folder / 'out').values())
    assert all(content in now for content in old)


# A full disk

def limited(size):
    resource = pytest.importorskip('resource', reason='this system sets no limits on the size of files')

    def before():
        default_signals()
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return before


def test_a_full_disk_while_preparing(folder):
    old = read_tokens()
    (folder / 'long.txt').write_bytes(TEXT.encode() * 10)
    result = ended(start('prepare.py', 'long.txt', cwd=folder, before=limited(100_000)))
    assert (result.returncode, result.stdout) == (1, '') and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith('prepare.py: tokens') and read_tokens() == old
    assert not list(folder.glob('tokens/*.new'))


def test_a_full_disk_while_saving(folder):
    before = files_in(folder / 'out')
    too_small = limited(len(before[folder / 'out/checkpoint.pt']) // 2)
    result = ended(start('bigramv2.py', '--resume', '--max_iters', 40, cwd=folder, before=too_small))
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith('bigramv2.py: cannot write to out/checkpoint.pt: File too large')
    assert (folder / 'out/checkpoint.pt').read_bytes() == before[folder / 'out/checkpoint.pt']
    assert not list(folder.glob('out/*.new'))
    succeeds('bigramv2.py', '--resume', '--max_iters', 40, cwd=folder)


def test_a_disk_that_is_really_full(folder):
    disk = folder / 'small disk'
    disk.mkdir()
    if not shutil.which('mount') or subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', 'size=400k', 'tmpfs', str(disk)], capture_output=True).returncode:
        pytest.skip('this user may not mount a tmpfs; the tests with a file-size limit stand for it')
    try:
        (disk / 'input.txt').write_bytes(TEXT.encode())
        succeeds('prepare.py', cwd=disk)
        tokens = files_in(disk)
        (folder / 'long.txt').write_bytes(TEXT.encode() * 10)
        for script, args in (('prepare.py', [folder / 'long.txt']), ('bigramv2.py', [*SMALL, '--n_embd', 64])):
            result = run(script, *args, cwd=disk)
            assert result.returncode == 1 and 'No space left on device' in result.stderr
            assert len(result.stderr.splitlines()) == 1
        assert tokens.items() <= files_in(disk).items() and not list(disk.rglob('*.new'))
    finally:
        gc.collect()  # closes the memory maps of the last run
        subprocess.run(['umount', str(disk)], check=True)


@pytest.mark.parametrize('args', [['--resume', '--max_iters', 40], ['--sample_only']], ids=lambda args: args[0])
def test_a_file_that_may_not_be_read_is_not_called_damaged(folder, monkeypatch, args):
    def locked(path):
        raise PermissionError(13, 'Permission denied', str(path))
    monkeypatch.setattr(zipfile, 'ZipFile', locked)  # root may read any file
    refused(folder, 'bigramv2.py', args, 1, '.pt cannot be read: you lack the permission')


# Files from strangers

class Hostile:
    def __reduce__(self):
        return os.system, ('echo > hacked',)


@pytest.mark.parametrize('name, flag', [('model.pt', '--sample_only'), ('checkpoint.pt', '--resume')])
@pytest.mark.parametrize('as_zip', [True, False])
def test_a_hostile_pickle_is_refused_and_not_run(folder, name, flag, as_zip):
    if as_zip:
        torch.save(saved(folder / 'out' / name) | {'vocab': Hostile()}, folder / 'out' / name)
    else:
        (folder / 'out' / name).write_bytes(pickle.dumps(Hostile()))
    refused(folder, 'bigramv2.py', [flag], 1, f'out/{name} is damaged, or not of this version of bigramv2.py')
    assert not (folder / 'hacked').exists()


RESUME = ['--resume', '--max_iters', 40]


@pytest.mark.parametrize('part', bigramv2.FILES['checkpoint.pt'])
@pytest.mark.parametrize('junk', [None, b'junk'])
def test_a_checkpoint_that_lacks_a_part_is_refused_in_one_line(folder, part, junk):
    parts = saved('out/checkpoint.pt')
    torch.save(parts | {part: junk} if junk else {name: parts[name] for name in parts if name != part},
               'out/checkpoint.pt')
    refused(folder, 'bigramv2.py', RESUME, 1, 'out/checkpoint.pt is damaged')


@pytest.mark.parametrize('spoil', [
    lambda all: [], lambda all: all[:1], lambda all: all[1:], lambda all: all[::-1], lambda all: [*all, all[0]],
    lambda all: [{'momentum': torch.zeros(3)}, *all[1:]],
    lambda all: [*all[:-1], all[-1] | {'exp_avg': torch.zeros(3)}],
    lambda all: [{'momentum': all[0]['momentum'].double()}, *all[1:]], lambda all: [*all[:-1], 3.0],
    lambda all: [{}] * len(all),
], ids=['none', 'one', 'one less', 'swapped', 'one more', 'Muon, shape', 'AdamW, shape', 'type', 'number', 'empty'])
def test_a_checkpoint_without_the_state_of_all_optimizers_is_damaged(folder, spoil):
    parts = saved('out/checkpoint.pt')
    torch.save(parts | {'optimizers': spoil(parts['optimizers'])}, 'out/checkpoint.pt')
    refused(folder, 'bigramv2.py', RESUME, 1, 'out/checkpoint.pt is damaged')


@pytest.mark.parametrize('part, junk', [
    ('seconds', float('nan')), ('seconds', float('inf')), ('seconds', -1.0), ('best', float('nan')),
    ('history', 'junk'), ('history', ''), ('history', '0,1,2\n'), ('history', '0,x,y,z\n'),
    ('history', '0,1.0,2.0,3.0'), ('step', -10), ('step', -2 ** 62), ('vocab', ''),
    ('hyperparameters', {'dropout': torch.zeros(2)}), ('hyperparameters', {2: 3}),
], ids=str)
def test_junk_of_the_right_type_in_a_checkpoint_is_refused_in_one_line(folder, part, junk):
    parts = saved('out/checkpoint.pt')
    torch.save(parts | {part: parts[part] | junk if isinstance(junk, dict) else junk}, 'out/checkpoint.pt')
    result = run('bigramv2.py', *RESUME, cwd=folder)
    if junk == {2: 3}:
        assert result.returncode == 0 and 'has 2 = 3, which bigramv2.py does not know' in result.stderr
    else:
        assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith('bigramv2.py: out/checkpoint.pt is damaged')


def test_a_run_with_parameters_that_are_frozen_or_not_used_is_resumed_as_the_same_run(folder, monkeypatch):
    program = edited(folder)
    source = program.read_text(encoding='utf-8')
    last = '        self.proj = nn.Linear(4 * n_embd, n_embd)\n'  # of FeedForward
    for old, new in (('x = self.token_embedding(idx) + positions ', 'x = self.token_embedding(idx)'),
                     (last, last + '        self.fc.weight.requires_grad_(False)\n')):
        assert source.count(old) == 1
        source = source.replace(old, new)
    program.write_text(source, encoding='utf-8')
    succeeds(program, *SMALL, '--out_dir', 'whole', cwd=folder)
    with monkeypatch.context() as patch:
        stop_at(patch, torch.nn.utils, 'clip_grad_norm_', 15)
        assert run(program, *SMALL, '--out_dir', 'broken', cwd=folder).returncode == 130
    succeeds(program, '--resume', '--out_dir', 'broken', cwd=folder)
    assert same_weights('whole/checkpoint.pt', 'broken/checkpoint.pt')


def test_the_state_of_each_parameter_goes_back_to_it_whichever_had_a_gradient_first(folder):
    parts = saved('out/checkpoint.pt')
    model = bigramv2.GPT(5)
    optimizers = bigramv2.make_optimizers(model)
    for unused in (True, False):  # at first the final LayerNorm has no gradient
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        if unused:
            model.ln.weight.grad = None
        for optimizer in optimizers:
            optimizer.step()
    kept = bigramv2.memory(optimizers)
    again = bigramv2.make_optimizers(model)
    bigramv2.remember(again, parts | {'optimizers': kept})
    for a, b in zip(kept, bigramv2.memory(again), strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_file_of_an_earlier_version_is_refused_in_one_line(folder):
    parts = saved('out/checkpoint.pt')
    del parts['top']
    torch.save(parts | {'history': [(0, 1.0, 2.0, 3.0)], 'world_size': 1}, 'out/checkpoint.pt')
    refused(folder, 'bigramv2.py', RESUME, 1, 'not of this version of bigramv2.py')


@pytest.mark.parametrize('name', bigramv2.HYPERPARAMETERS)
@pytest.mark.parametrize('junk', ['junk', None, -1, float('nan'), [1]], ids=str)
def test_a_checkpoint_with_junk_for_a_hyperparameter_is_refused_in_one_line(folder, name, junk):
    parts = saved('out/checkpoint.pt')
    parts['hyperparameters'][name] = junk
    torch.save(parts, 'out/checkpoint.pt')
    args = RESUME if name != 'max_iters' else ['--resume']
    result = run('bigramv2.py', *args, cwd=folder)
    refusal, = [line for line in result.stderr.splitlines() if ' keeps its ' not in line]
    assert result.returncode == 1 and refusal.startswith(f'bigramv2.py: {name} = {junk!r} must be a')


@pytest.mark.parametrize('key', ['main', 'fail', 'rank', 'out_dir', 'sample_only'])
def test_a_saved_file_cannot_put_anything_but_hyperparameters_into_the_program(folder, key):
    parts = saved('out/model.pt')
    parts['hyperparameters'][key] = 'junk'
    torch.save(parts, 'out/model.pt')
    result = run('bigramv2.py', '--sample_only', cwd=folder)
    assert result.returncode == 0 and len(result.stdout) == 501
    assert result.stderr == f"bigramv2.py: out/model.pt has {key} = 'junk', which bigramv2.py does not know\n"


# Nonsense: a few inputs, the same for everybody; with -m slow thousands, others every time

edits = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(['flip', 'cut', 'insert', 'drop']), st.binary(max_size=8)),
                 min_size=1, max_size=3)


def damaged(data, changes):
    for where, how, new in changes:
        i = int(where * max(len(data) - 1, 0))
        flipped = bytes([data[i] ^ (1 << len(new) % 8)]) if data else b''
        data = data[:i] + {'flip': flipped, 'cut': b'', 'insert': new, 'drop': b''}[how] + (
            b'' if how == 'cut' else data[i + {'flip': 1, 'insert': 0, 'drop': 3}[how]:])
    return data


def test_any_bytes_as_a_text(folder, examples):
    texts = st.text(max_size=200).map(lambda text: text.encode('utf-8', 'surrogatepass'))

    @fuzz(examples, text=st.binary(max_size=400) | texts)
    def check(text):
        shutil.rmtree('tokens', ignore_errors=True)
        (folder / 'input.txt').write_bytes(text)
        meta = outcome(lambda: prepare.prepare('input.txt'))
        try:
            good = len(text.decode()) > 1
        except UnicodeDecodeError:
            good = False
        assert bool(meta) == good
        if meta:
            tokens = np.fromfile('tokens/train.bin', '<u2').tolist() + np.fromfile('tokens/val.bin', '<u2').tolist()
            assert bigramv2.decode(tokens, meta['vocab']).encode() == text
        else:
            assert not list(folder.glob('tokens/*'))


def test_any_damage_to_the_tokens(folder, trained, examples):
    right = read_tokens()

    @fuzz(examples, name=st.sampled_from(['meta.json', 'train.bin', 'val.bin']), changes=edits)
    def check(name, changes):
        shutil.copytree(trained / 'tokens', 'tokens', dirs_exist_ok=True)
        path = folder / 'tokens' / name
        path.write_bytes(damaged(path.read_bytes(), changes))
        assert outcome(read_tokens) in (None, right)


def test_any_json_as_meta(folder, examples):
    parts = st.sampled_from(['vocab', 'train', 'val', 'train_crc32', 'val_crc32'])

    @fuzz(examples, meta=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(parts, inner, max_size=5)))
    def check(meta):
        (folder / 'tokens/meta.json').write_text(json.dumps(meta))
        assert outcome(read_tokens) is None


def test_any_damage_to_what_was_saved(folder, trained, examples):
    @fuzz(examples, name=st.sampled_from(['model.pt', 'checkpoint.pt']), changes=edits)
    def check(name, changes):
        right = (trained / 'out' / name).read_bytes()
        (folder / 'out' / name).write_bytes(damaged(right, changes))
        found = outcome(lambda: bigramv2.read(name))
        (folder / 'out' / name).write_bytes(right)
        whole = bigramv2.read(name)
        assert found is None or found['vocab'] == whole['vocab'] and all(
            torch.equal(found['weights'][key], whole['weights'][key]) for key in whole['weights'])


def test_anything_of_another_type_in_a_checkpoint(folder, examples):
    right = saved('out/checkpoint.pt')
    values = right['hyperparameters'] | right
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3))

    @fuzz(examples, part=st.sampled_from(sorted(values)), new=junk)
    def check(part, new):
        assume(type(new) is not type(values[part]))
        parts = {**right, 'hyperparameters': dict(right['hyperparameters'])}
        (parts if part in right else parts['hyperparameters'])[part] = new
        torch.save(parts, 'out/checkpoint.pt')
        one_line(run('bigramv2.py', *RESUME, '--max_new_tokens', 1, cwd=folder))


def one_line(result):
    """It worked, or it was refused in one line, which may follow what the program notes about each value."""
    lines = [line for line in result.stderr.splitlines() if not line.startswith('bigramv2.py: out/checkpoint.pt ')]
    assert result.returncode in (0, 1, 2) and len(lines) <= bool(result.returncode), result.stderr


numbers = st.integers(-3, 70).map(str) | st.floats().map(str) | st.sampled_from(['1e9', '1e-190', 'True', '9' * 30])
words = st.text(st.characters(exclude_characters='/\\'), max_size=4) | st.sampled_from(
    ['', '.', 'cpu', 'cuda:7', 'a/b', 'out', 'tokens', 'input.txt', 'input.txt/x', 'x' * 300, '\0', 'new\nline', '--'])
names = st.sampled_from(sorted(bigramv2.HYPERPARAMETERS | bigramv2.OPTIONS)) | st.just('out_dir')


def test_any_flags(folder, examples):
    @fuzz(examples, flags=st.lists(st.tuples(names, numbers | words, st.booleans()), max_size=3))
    def check(flags):
        args = [*SMALL, '--out_dir', 'fuzz', '--max_new_tokens', 9]
        for name, value, joined in flags:
            if isinstance(getattr(bigramv2, name), bool):
                args += [f'--{name}' if joined else f'--no-{name}']
            else:
                args += [f'--{name}={value}'] if joined else [f'--{name}', value]
        result = run('bigramv2.py', *args, '--max_iters=2', cwd=folder)
        assert result.returncode in (0, 1, 2)
        assert len(result.stderr.splitlines()) == (result.returncode > 0), (args, result.stderr)
        shutil.rmtree('fuzz', ignore_errors=True)
