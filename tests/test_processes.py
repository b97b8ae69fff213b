"""What torchrun does with the same file: several processes take the steps of one, and end together."""
import os
import shutil
import signal
import socket
import subprocess

import numpy as np
import pytest
import torch
from conftest import SMALL, edited, ended, losses, posix, refused, same_weights, saved, start, succeeds

import bigramv2


def torchrun(*args, cwd, script='bigramv2.py', nodes=('--standalone', '--nproc_per_node=2')):
    return start(script, *args, cwd=cwd, launcher=['-m', 'torch.distributed.run', *nodes])


def workers(process):
    """The processes that torchrun started, the first one first."""
    if not shutil.which('pgrep'):
        pytest.skip('there is no pgrep to find the processes of torchrun with')
    return list(map(int, subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True).stdout.split()))


def read_until(process, text):
    while text not in (line := process.stdout.readline()):
        assert line, process.stderr.read()


# One run, shared

@posix
def test_two_processes_take_the_steps_of_one_with_no_other_flag(folder):
    result = ended(torchrun(*SMALL, '--out_dir', 'two', cwd=folder))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('step    20') == 1  # one of them prints
    assert same_weights('out/checkpoint.pt', 'two/checkpoint.pt', atol=1e-5)
    for one, two in zip(losses(folder / 'out/loss.csv')[1:], losses(folder / 'two/loss.csv')[1:], strict=True):
        assert list(map(float, one)) == pytest.approx(list(map(float, two)), abs=1e-5)
    assert saved('two/checkpoint.pt')['hyperparameters'] == saved('out/checkpoint.pt')['hyperparameters']
    for out in ('out', 'two'):  # one process goes on with either
        succeeds('bigramv2.py', '--resume', '--max_iters', 30, '--out_dir', out, cwd=folder)
    assert same_weights('out/checkpoint.pt', 'two/checkpoint.pt', atol=1e-4)


@posix
def test_two_machines_share_a_run_and_none_leaves_before_the_first_has_written_its_text(folder):
    program = edited(folder)
    source = program.read_text(encoding='utf-8')
    for old, new in (("\n    print()\n", "\n    print()\n    time.sleep(2)\n    Path('../written').touch()\n"),
                     ('\n        main()\n', "\n        main()\n        assert Path('../written').exists()\n")):
        assert source.count(old) == 1
        source = source.replace(old, new)
    program.write_text(source, encoding='utf-8')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    machines = []
    for name in 'ab':  # each has its own copy of the tokens
        shutil.copytree('tokens', folder / name / 'tokens')
        machines.append(torchrun(*SMALL, cwd=folder / name, script=program, nodes=(
            '--nnodes=2', '--nproc_per_node=1', '--rdzv_backend=c10d', f'--rdzv_endpoint=127.0.0.1:{port}')))
    results = [ended(machine) for machine in machines]
    assert [result.returncode for result in results] == [0, 0], results[0].stderr + results[1].stderr
    assert sorted('step    20' in result.stdout for result in results) == [False, True]
    first = 'a' if 'step    20' in results[0].stdout else 'b'
    assert len(results['ab'.index(first)].stdout.split('They write:\n\n')[1]) == 31
    assert same_weights('out/checkpoint.pt', f'{first}/out/checkpoint.pt', atol=1e-5)


def test_the_dice_of_dropout_depend_on_the_seed_the_step_and_the_process_alone(monkeypatch):
    for name, value in dict(dropout=0.1, max_iters=8, eval_interval=4, world_size=2).items():
        monkeypatch.setattr(bigramv2, name, value)
    data, used = np.arange(200, dtype='<u2') % 11, {}
    for rank, start_at in ((0, 0), (1, 0), (1, 4)):
        monkeypatch.setattr(bigramv2, 'rank', rank)
        model, seeds = bigramv2.GPT(11), []
        model.register_forward_pre_hook(lambda *_, seeds=seeds: seeds.append(torch.initial_seed()))
        for _ in bigramv2.train(model, bigramv2.make_optimizers(model), data, start_at):
            torch.manual_seed(5)  # as a look at the loss does
        used[rank, start_at] = seeds
    assert len({*used[0, 0], *used[1, 0]}) == 16
    assert used[1, 4] == used[1, 0][4:]


@posix
@pytest.mark.slow
def test_two_processes_with_dropout_are_stopped_and_resumed_to_the_bit(folder):
    args = [*SMALL, '--max_iters', 400, '--dropout', 0.2]
    assert ended(torchrun(*args, '--out_dir', 'whole', cwd=folder)).returncode == 0
    process = torchrun(*args, '--out_dir', 'broken', cwd=folder)
    read_until(process, 'step    60')
    process.send_signal(signal.SIGINT)
    ended(process)
    assert 50 <= saved('broken/checkpoint.pt')['step'] < 400
    assert ended(torchrun('--resume', '--out_dir', 'broken', cwd=folder)).returncode == 0
    assert same_weights('whole/checkpoint.pt', 'broken/checkpoint.pt')


# Stops and mistakes

@posix
@pytest.mark.parametrize('name, to', [('SIGINT', 'torchrun'), ('SIGTERM', 'a worker'), ('SIGKILL', 'a worker')])
def test_a_signal_to_any_process_ends_them_all_and_leaves_whole_files_that_resume(folder, name, to):
    process = torchrun('--resume', '--max_iters', 100_000, cwd=folder)  # it goes on with what one began
    read_until(process, 'step    50')  # the look at step 40 is saved
    os.kill(process.pid if to == 'torchrun' else workers(process)[1], getattr(signal, name))
    result = ended(process)
    assert result.returncode != 0
    step = saved('out/checkpoint.pt')['step']
    assert 40 <= step and step % 10 == 0
    assert saved('out/model.pt')['step'] <= step + 10
    printed = succeeds('bigramv2.py', '--resume', '--max_iters', step + 10, cwd=folder)
    assert f'step {step + 10:5}' in printed


@posix
def test_an_error_of_one_process_is_shown_as_what_it_is(folder):
    program = edited(folder)
    source = program.read_text(encoding='utf-8')
    line = '    return windows(data, starts[rank::world_size])'
    assert source.count(line) == 1
    program.write_text(source.replace(line, "    assert rank == 0 or step < 15, 'a shape is wrong'\n" + line),
                       encoding='utf-8')
    result = ended(torchrun(*SMALL, '--out_dir', 'new', cwd=folder, script=program))
    assert result.returncode != 0 and saved('new/checkpoint.pt')['step'] == 10
    assert 'AssertionError: a shape is wrong' in result.stderr and 'get_batch' in result.stderr
    assert 'memory' not in result.stderr


@pytest.fixture
def third_of_three(monkeypatch):
    """This process believes that torchrun started it, as one of three."""
    for name, value in dict(TORCHELASTIC_RUN_ID='x', RANK='2', LOCAL_RANK='2', WORLD_SIZE='3').items():
        monkeypatch.setenv(name, value)


def test_a_batch_that_the_processes_cannot_share_is_refused_in_one_line(folder, third_of_three):
    for args in (SMALL, ['--resume', '--max_iters', 30]):
        refused(folder, 'bigramv2.py', args, 1,
                'batch_size = 4 must be divisible by 3: the processes share a batch equally')


def test_a_process_without_a_gpu_of_its_own_is_refused_in_one_line(folder, third_of_three, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    refused(folder, 'bigramv2.py', [*SMALL, '--batch_size', 6, '--device', 'cuda'], 1,
            "device = 'cuda:2' is not on this machine, which has cpu, cuda:0, cuda:1")


@pytest.mark.parametrize('torchrun, device, becomes', [
    (False, 'cuda', 'cuda:0'), (True, 'cuda', 'cuda:1'), (True, 'cuda:0', 'cuda:0'), (True, 'mps', 'cpu'),
    (False, 'mps', 'mps'), (True, 'cpu', 'cpu')])
def test_each_process_has_a_device_that_can_share(monkeypatch, torchrun, device, becomes):
    monkeypatch.setenv('LOCAL_RANK', '1')
    monkeypatch.setattr(bigramv2, 'torchrun', torchrun)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'set_device', lambda device: None)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    bigramv2.configure(['--device', device])
    assert bigramv2.device == becomes


def test_of_several_processes_only_the_first_writes_a_text(folder, monkeypatch):
    for rank in '01':
        for name, value in dict(TORCHELASTIC_RUN_ID='x', RANK=rank, LOCAL_RANK=rank, WORLD_SIZE='2').items():
            monkeypatch.setenv(name, value)
        assert len(succeeds('bigramv2.py', '--sample_only', cwd=folder)) == (501 if rank == '0' else 0)


def test_what_an_earlier_torchrun_left_in_the_environment_is_not_taken_for_one(folder, monkeypatch):
    for name, value in dict(RANK='1', LOCAL_RANK='1', WORLD_SIZE='2').items():
        monkeypatch.setenv(name, value)
    assert 'step    20' in succeeds('bigramv2.py', *SMALL, cwd=folder)
