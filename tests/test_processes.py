"""What torchrun does with the same file: several processes take the steps of one, and end together."""
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, SMALL, succeeds

FLAGS = [*SMALL, '--batch_size', '4', '--max_iters', '20', '--eval_interval', '10']


def torchrun(processes, *args, cwd):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}',
               str(ROOT / 'bigramv2.py'), *map(str, args)]
    return subprocess.Popen(command, cwd=cwd, env={**os.environ, 'OMP_NUM_THREADS': '1'}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def finished(process, timeout=60):
    try:
        printed, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, printed, errors


@pytest.fixture
def folder(trained, tmp_path):
    (tmp_path / 'tokens').symlink_to(trained / 'tokens')
    return tmp_path


def weights(path):
    return torch.load(path, weights_only=True)['weights']


def test_two_processes_at_half_the_batch_take_the_same_steps_and_one_goes_on(folder):
    succeeds('bigramv2.py', *FLAGS, '--batch_size', 8, '--out_dir', 'one', cwd=folder)
    status, printed, errors = finished(torchrun(2, *FLAGS, '--out_dir', 'two', cwd=folder))
    assert status == 0, errors
    assert printed.count('step    20') == 1  # one of them prints
    one, two = weights(folder / 'one/checkpoint.pt'), weights(folder / 'two/checkpoint.pt')
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=0)

    for out in ('one', 'two'):
        succeeds('bigramv2.py', '--resume', '--max_iters', 30, '--out_dir', out, cwd=folder)
    one, two = weights(folder / 'one/checkpoint.pt'), weights(folder / 'two/checkpoint.pt')
    for name in one:  # one process went on with the whole batch of two
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=0)
    status, _, errors = finished(torchrun(2, '--resume', '--max_iters', 40, '--out_dir', 'one', cwd=folder))
    assert status == 0 and torch.load(folder / 'one/checkpoint.pt')['step'] == 40, errors


def test_a_process_that_dies_ends_them_all_with_a_message(folder):
    process = torchrun(2, *FLAGS, '--max_iters', 100_000, cwd=folder)
    for _ in range(4):
        process.stdout.readline()
    workers = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(workers) == 2
    killed = time.monotonic()
    os.kill(int(workers[1]), signal.SIGKILL)
    status, _, errors = finished(process, timeout=90)
    assert status != 0 and time.monotonic() - killed < 90
    assert re.search(r'bigramv2.py: another process has ended|Signal 9 \(SIGKILL\)', errors)
    assert torch.load(folder / 'out/checkpoint.pt')['step'] % 10 == 0


def test_a_signal_stops_them_all_at_the_same_step(folder):
    process = torchrun(2, *FLAGS, '--max_iters', 100_000, cwd=folder)
    for _ in range(4):
        process.stdout.readline()
    workers = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(workers[1]), signal.SIGTERM)  # one alone is asked, and both stop
    status, printed, errors = finished(process)
    assert 'To go on: python bigramv2.py --resume' in printed, errors
    assert status != 0
