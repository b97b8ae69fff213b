"""What may happen to a run: kills, a full disk, damaged and hostile files, nonsense. Nothing is ever lost."""
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, SMALL, TEXT, run, succeeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bigramv2
import prepare


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of the folder of a short training, and the working directory of this process."""
    shutil.copytree(trained, tmp_path / 'copy')
    monkeypatch.chdir(tmp_path / 'copy')
    return tmp_path / 'copy'


@pytest.fixture(autouse=True)
def globals_as_they_were():
    before = {name: getattr(bigramv2, name) for name in bigramv2.COMMENTS}
    yield
    vars(bigramv2).update(before)


def start(script, *args, cwd, **kwargs):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen([sys.executable, str(ROOT / script), *map(str, args)], cwd=cwd, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def weights(path):
    return torch.load(path, weights_only=True)['weights']


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(path):
    """loss.csv without its seconds."""
    return [(row[0], *row[2:]) for row in (line.split(',') for line in path.read_text().splitlines())]


# Kills

def read_tokens():
    """What bigramv2.py would train on: its files as bytes, or None where it refuses them."""
    try:
        data, vocab = bigramv2.load_data()
    except SystemExit as refusal:
        assert 'run python prepare.py' in str(refusal)
        return None
    return vocab, data['train'].tobytes(), data['val'].tobytes()


def test_prepare_killed_at_any_moment_leaves_the_old_set_or_the_new_one(folder):
    old = read_tokens()
    shutil.copytree('tokens', 'old')
    (folder / 'long.txt').write_text((TEXT + 'Ünïcode') * 150, encoding='utf-8')
    begun = time.perf_counter()
    succeeds('prepare.py', 'long.txt', cwd=folder)
    whole = time.perf_counter() - begun
    new = read_tokens()
    assert old and new and old != new
    found = []
    for i in range(50):
        shutil.copytree('old', 'tokens', dirs_exist_ok=True)
        process = start('prepare.py', 'long.txt', cwd=folder)
        time.sleep(whole * (0.2 + 0.9 * i / 50))
        process.kill()
        process.communicate()
        found.append(read_tokens())
        assert found[-1] in (old, new, None)
    assert old in found  # the kills did come before the end
    succeeds('prepare.py', 'long.txt', cwd=folder)
    assert read_tokens() == new and not list(folder.glob('tokens/*.new'))


@pytest.mark.parametrize('moves', range(4))
def test_prepare_killed_between_two_moves(folder, monkeypatch, moves):
    old = read_tokens()
    (folder / 'other.txt').write_text(TEXT[::-1], encoding='utf-8')  # as many characters, and the same ones
    real, left = os.replace, [moves]

    def replace(*paths):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt  # here the process ends
        real(*paths)

    monkeypatch.setattr(os, 'replace', replace)
    try:
        prepare.prepare('other.txt')
    except KeyboardInterrupt:
        pass
    found = read_tokens()
    assert found == old if moves == 0 else found is None if moves < 3 else found[0] == old[0] and found != old


def kill_and_resume(folder, kills, seed):
    """Train with kills at random moments, resuming each time; compare with a run that nothing stopped."""
    flags = [*SMALL, '--max_iters', 400, '--eval_interval', 5, '--dropout', 0.1, '--eval_windows', 1, '--seed', seed]
    succeeds('bigramv2.py', *flags, '--out_dir', 'whole', cwd=folder)
    dice, survived = random.Random(seed), 0
    arguments = [*flags, '--out_dir', 'broken']
    for _ in range(kills):
        process = start('bigramv2.py', *arguments, cwd=folder)
        for _ in range(dice.randrange(5, 12)):  # lines: past the first checkpoint, and then a moment more
            process.stdout.readline()
        time.sleep(dice.random() * 0.05)
        process.kill()
        process.communicate()
        assert bigramv2.zipfile.ZipFile('broken/checkpoint.pt').testzip() is None
        survived += 1
        arguments = ['--resume', '--out_dir', 'broken']
    succeeds('bigramv2.py', '--resume', '--out_dir', 'broken', cwd=folder)
    assert equal(weights('whole/model.pt'), weights('broken/model.pt'))
    assert equal(weights('whole/checkpoint.pt'), weights('broken/checkpoint.pt'))
    assert losses(folder / 'whole/loss.csv') == losses(folder / 'broken/loss.csv')
    return survived


def test_a_chain_of_kills_and_resumes_ends_where_an_unbroken_run_does(folder):
    assert kill_and_resume(folder, 4, seed=1) == 4


@pytest.mark.slow
def test_twenty_kills(folder):
    assert kill_and_resume(folder, 20, seed=2) == 20


def test_a_kill_inside_the_writing_of_a_checkpoint_leaves_the_one_before(folder, monkeypatch):
    before = (folder / 'out/checkpoint.pt').read_bytes()
    for moment in ('fsync', 'replace'):
        with monkeypatch.context() as patch:
            patch.setattr(os, moment, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                bigramv2.save('checkpoint.pt', {'weights': torch.zeros(100_000)})
        assert (folder / 'out/checkpoint.pt').read_bytes() == before


@pytest.mark.parametrize('signum, status', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_step_end_and_says_how_to_go_on(folder, signum, status):
    flags = [*SMALL, '--max_iters', 300, '--eval_interval', 50, '--dropout', 0.1]
    process = start('bigramv2.py', *flags, '--out_dir', 'stopped', cwd=folder)
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(signum)
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (status, '')
    assert 'To go on: python bigramv2.py --resume --out_dir stopped' in printed.splitlines()[-1]
    step = torch.load('stopped/checkpoint.pt')['step']
    assert 50 <= step < 300
    succeeds('bigramv2.py', '--resume', '--out_dir', 'stopped', cwd=folder)
    succeeds('bigramv2.py', *flags, '--out_dir', 'whole', cwd=folder)
    assert equal(weights('stopped/checkpoint.pt'), weights('whole/checkpoint.pt'))
    assert losses(folder / 'stopped/loss.csv') == losses(folder / 'whole/loss.csv')


# Going on, and starting anew

def test_resume_refuses_what_contradicts_the_checkpoint_and_lets_max_iters_grow(folder):
    result = run('bigramv2.py', '--resume', '--n_embd', 32, cwd=folder)
    assert result.returncode == 1 and 'n_embd = 32 contradicts out/checkpoint.pt, which has 16' in result.stderr
    result = run('bigramv2.py', '--resume', cwd=folder)
    assert result.returncode == 1 and '--resume --max_iters 40' in result.stderr
    printed = succeeds('bigramv2.py', '--resume', '--n_embd', 16, '--max_iters', 30, cwd=folder)
    assert [row[0] for row in losses(folder / 'out/loss.csv')] == ['step', '0', '10', '20', '30']
    assert 'step    30' in printed


def test_resume_without_a_checkpoint_or_on_another_text_is_refused(folder):
    (folder / 'other.txt').write_text('another text\n' * 200, encoding='utf-8')
    succeeds('prepare.py', 'other.txt', cwd=folder)
    result = run('bigramv2.py', '--resume', '--max_iters', 30, cwd=folder)
    assert result.returncode == 1 and 'learnt another text' in result.stderr
    shutil.rmtree(folder / 'out')
    result = run('bigramv2.py', '--resume', cwd=folder)
    assert result.returncode == 1 and 'out/checkpoint.pt does not exist' in result.stderr


@pytest.mark.parametrize('part, junk', [(part, junk) for part in bigramv2.PARTS['checkpoint.pt']
                                        for junk in (None, b'junk')])
def test_a_checkpoint_that_lacks_a_part_is_refused_in_one_line(folder, monkeypatch, part, junk):
    saved = torch.load('out/checkpoint.pt', weights_only=True)
    torch.save(saved | {part: junk} if junk else {name: saved[name] for name in saved if name != part},
               'out/checkpoint.pt')
    monkeypatch.setattr(sys, 'argv', ['bigramv2.py', '--resume', '--max_iters', '40'])
    with pytest.raises(SystemExit, match=r'^bigramv2.py: out/checkpoint.pt is damaged.*train again'):
        bigramv2.main()


@pytest.mark.parametrize('name', sorted(bigramv2.COMMENTS.keys() - bigramv2.FREE - {'fused_attention'}))
def test_a_checkpoint_with_junk_for_a_hyperparameter_is_refused_in_one_line(folder, monkeypatch, name):
    saved = torch.load('out/checkpoint.pt', weights_only=True)
    saved['hyperparameters'][name] = 'junk'
    torch.save(saved, 'out/checkpoint.pt')
    monkeypatch.setattr(sys, 'argv', ['bigramv2.py', '--resume', '--max_iters', '40'])
    with pytest.raises(SystemExit, match=rf"^bigramv2.py: ({name} = 'junk' must .+|out/checkpoint.pt is damaged.+)$"):
        bigramv2.main()


def test_a_batch_that_the_processes_cannot_share_is_refused(folder, monkeypatch):
    monkeypatch.setattr(bigramv2, 'world_size', 3)
    with pytest.raises(SystemExit, match='3 processes cannot share the batch of 4 in out/checkpoint.pt'):
        bigramv2.load('checkpoint.pt', {}, ['batch_size'])


def test_a_new_run_keeps_the_old_one_aside_and_never_drops_the_best(folder, capsys, monkeypatch):
    monkeypatch.setattr(bigramv2, 'out_dir', 'out')

    def run_with(loss):
        bigramv2.save('model.pt', {'best': loss})
        bigramv2.write('loss.csv', b'')

    first = weights('out/model.pt')
    bigramv2.keep_previous()
    assert equal(weights('out/previous/model.pt'), first) and not (folder / 'out/model.pt').exists()
    assert 'is now in out/previous/' in capsys.readouterr().out
    run_with(1.5)
    bigramv2.keep_previous()  # better than the one before: takes its place
    assert bigramv2.loss_of(folder / 'out/previous/model.pt') == 1.5
    assert '1.5000' in capsys.readouterr().out
    run_with(2.5)
    bigramv2.keep_previous()  # worse: the better one stays
    assert bigramv2.loss_of(folder / 'out/previous/model.pt') == 1.5
    assert 'keeps a better one, 1.5000' in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(folder, monkeypatch):
    before = (folder / 'out/checkpoint.pt').read_bytes()
    bigramv2.configure([*SMALL, '--max_iters', '40'])
    data, vocab = bigramv2.load_data()
    going = bigramv2.Run(vocab)
    forward = bigramv2.GPT.forward
    monkeypatch.setattr(bigramv2.GPT, 'forward', lambda self, *args, **kwargs: (
        None, forward(self, *args, **kwargs)[1] * (torch.nan if going.step == 7 else 1)))
    with pytest.raises(SystemExit, match='the loss is nan at step 7'):
        bigramv2.train(going, data, lambda losses: None)
    assert (folder / 'out/checkpoint.pt').read_bytes() == before


# A full disk

def limited(size):
    return dict(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))


def test_a_full_disk_while_preparing(folder):
    old = read_tokens()
    (folder / 'long.txt').write_text(TEXT * 10, encoding='utf-8')
    process = start('prepare.py', 'long.txt', cwd=folder, **limited(100_000))
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, printed) == (1, '') and len(errors.splitlines()) == 1
    assert errors.startswith('prepare.py: tokens') and read_tokens() == old
    assert not list(folder.glob('tokens/*.new'))


def test_a_full_disk_while_saving(folder):
    before = {name: (folder / 'out' / name).read_bytes() for name in ('model.pt', 'checkpoint.pt', 'loss.csv')}
    too_small = limited(len(before['checkpoint.pt']) // 2)
    process = start('bigramv2.py', '--resume', '--max_iters', 40, cwd=folder, **too_small)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and len(errors.splitlines()) == 1
    assert errors.startswith('bigramv2.py: cannot write out/')
    assert (folder / 'out/checkpoint.pt').read_bytes() == before['checkpoint.pt']
    assert not list(folder.glob('out/*.new'))
    succeeds('bigramv2.py', '--resume', '--max_iters', 40, cwd=folder)


def test_a_disk_that_is_really_full(folder):
    mount = folder / 'small disk'
    mount.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=400k', 'tmpfs', str(mount)], capture_output=True).returncode:
        pytest.skip('this user may not mount a tmpfs; the tests with a file-size limit stand for it')
    try:
        (mount / 'input.txt').write_text(TEXT, encoding='utf-8')
        succeeds('prepare.py', cwd=mount)
        tokens = {path.name: path.read_bytes() for path in mount.glob('tokens/*')}
        (folder / 'long.txt').write_text(TEXT * 10, encoding='utf-8')
        result = run('prepare.py', folder / 'long.txt', cwd=mount)
        assert result.returncode == 1 and 'No space left on device' in result.stderr
        assert {path.name: path.read_bytes() for path in mount.glob('tokens/*')} == tokens
        result = run('bigramv2.py', *SMALL, '--n_embd', 64, cwd=mount)
        assert result.returncode == 1 and 'No space left on device' in result.stderr
        assert len(result.stderr.splitlines()) == 1
    finally:
        subprocess.run(['umount', str(mount)], check=True)


# Files from strangers

class Hostile:
    def __reduce__(self):
        return os.system, ('touch hacked',)


@pytest.mark.parametrize('name, flag', [('model.pt', '--sample_only'), ('checkpoint.pt', '--resume')])
@pytest.mark.parametrize('as_zip', [True, False])
def test_a_hostile_pickle_is_refused_and_not_run(folder, name, flag, as_zip):
    if as_zip:
        saved = torch.load(folder / 'out' / name, weights_only=True)
        torch.save(saved | {'vocab': Hostile()}, folder / 'out' / name)
    else:
        (folder / 'out' / name).write_bytes(pickle.dumps(Hostile()))
    result = run('bigramv2.py', flag, cwd=folder)
    assert result.returncode == 1 and f'out/{name} is damaged or not a file of this program' in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not (folder / 'hacked').exists()


# Nonsense

LOOSE = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=200)


def outcome(work):
    """What a call gives, or how the program refused: one line. Anything else it may raise is a failure."""
    try:
        return work()
    except SystemExit as refusal:
        assert isinstance(refusal.code, str) and len(refusal.code.splitlines()) == 1
        return None


edits = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(['flip', 'cut', 'insert', 'drop']), st.binary(max_size=8)),
                 min_size=1, max_size=3)


def edited(data, changes):
    for where, how, new in changes:
        i = int(where * max(len(data) - 1, 0))
        flipped = bytes([data[i] ^ (1 << len(new) % 8)]) if data else b''
        data = data[:i] + {'flip': flipped, 'cut': b'', 'insert': new, 'drop': b''}[how] + (
            b'' if how == 'cut' else data[i + {'flip': 1, 'insert': 0, 'drop': 3}[how]:])
    return data


@given(text=st.one_of(st.binary(max_size=400), st.text(max_size=200).map(lambda s: s.encode('utf-8', 'surrogatepass'))))
@LOOSE
def test_any_bytes_as_a_text(folder, text):
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


@given(name=st.sampled_from(['meta.json', 'train.bin', 'val.bin']), changes=edits)
@LOOSE
def test_any_damage_to_the_tokens(folder, trained, name, changes):
    shutil.copytree(trained / 'tokens', folder / 'tokens', dirs_exist_ok=True)
    right = read_tokens()
    path = folder / 'tokens' / name
    path.write_bytes(edited(path.read_bytes(), changes))
    assert outcome(read_tokens) in (None, right)


@given(meta=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner:
                         st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
                             ['vocab', 'train', 'val', 'train_crc32', 'val_crc32']), inner, max_size=5)))
@LOOSE
def test_any_json_as_meta(folder, meta):
    (folder / 'tokens/meta.json').write_text(json.dumps(meta))
    assert outcome(read_tokens) is None


@given(name=st.sampled_from(['model.pt', 'checkpoint.pt']), changes=edits)
@LOOSE
def test_any_damage_to_what_was_saved(folder, trained, name, changes):
    bigramv2.out_dir = 'out'
    right = torch.load(trained / 'out' / name, weights_only=True)
    (folder / 'out' / name).write_bytes(edited((trained / 'out' / name).read_bytes(), changes))
    saved = outcome(lambda: bigramv2.load(name, {}, bigramv2.SIZES))
    assert saved is None or equal(saved['weights'], right['weights']) and saved['vocab'] == right['vocab']


values = st.one_of(st.integers(-3, 70).map(str), st.floats().map(str), st.text(max_size=4),
                   st.sampled_from(['', 'cpu', '0.1', '1e9', '-1', 'True', '9' * 30]))
flags = st.lists(st.tuples(st.sampled_from([name for name in bigramv2.COMMENTS if name not in ('out_dir', 'resume')]),
                           values, st.booleans()), max_size=3)


@given(given_flags=flags)
@LOOSE
def test_any_flags(folder, monkeypatch, capsys, given_flags):
    argv = list(SMALL)
    for name, value, joined in given_flags:
        boolean = isinstance(getattr(bigramv2, name), bool)
        argv += [f'--{name}'] if boolean else [f'--{name}={value}'] if joined else [f'--{name}', value]
    before = {name: getattr(bigramv2, name) for name in bigramv2.COMMENTS}
    monkeypatch.setattr(sys, 'argv', ['bigramv2.py', *argv, '--max_iters=2', '--out_dir=fuzz', '--max_new_tokens=9'])
    try:
        bigramv2.main()
    except SystemExit as end:
        refusal = end.code if isinstance(end.code, str) else capsys.readouterr().err
        assert len(refusal.strip().splitlines()) == 1, refusal
    finally:
        vars(bigramv2).update(before)
        capsys.readouterr()
