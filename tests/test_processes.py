"""What torchrun does with the same file: several processes take the steps of one, and end together."""
import shutil
import socket

import numpy as np
import pytest
import torch
from conftest import SMALL, edited, ended, losses, posix, refused, same_weights, saved, start, succeeds

import bigramv2


def torchrun(*args, cwd, script='bigramv2.py', nodes=('--standalone', '--nproc_per_node=2')):
    return start(script, *args, cwd=cwd, launcher=['-m', 'torch.distributed.run', *nodes])


@pytest.fixture
def process(monkeypatch):
    """Let this process be one that torchrun started."""
    def become(rank, world_size):
        for name, value in dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world_size).items():
            monkeypatch.setenv(name, str(value))
    return become


@posix
def test_two_processes_take_the_steps_of_one_with_no_other_flag(folder):
    result = ended(torchrun(*SMALL, '--out_dir', 'two', cwd=folder))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('step    20') == result.stdout.count('write:') == 1  # one of them prints
    assert [path.name for path in (folder / 'two').iterdir()] == ['1']  # and saves
    assert same_weights('out/1/checkpoint.pt', 'two/1/checkpoint.pt', atol=1e-5)
    for one, two in zip(losses('out/1/loss.csv')[1:], losses('two/1/loss.csv')[1:], strict=True):
        assert list(map(float, one)) == pytest.approx(list(map(float, two)), abs=1e-5)
    assert saved('two/1/checkpoint.pt')['hyperparameters'] == saved('out/1/checkpoint.pt')['hyperparameters']
    for out in ('out', 'two'):  # one process goes on with either
        succeeds('bigramv2.py', '--resume', '--max_iters', 30, '--out_dir', out, cwd=folder)
    assert same_weights('out/1/checkpoint.pt', 'two/1/checkpoint.pt', atol=1e-4)


@posix
def test_two_machines_share_a_run_and_none_leaves_before_the_first_has_written_its_text(folder):
    written, own = "        Path('../written').touch()\n", "        assert Path('../written').exists()\n"
    program = edited(
        folder, ('\n        print()\n', f'\n        print()\n        time.sleep(1)\n{written}'),
        ('\n        main(sys.argv[1:])\n', f'\n        main(sys.argv[1:])\n{own}'))
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
    assert len(results['ab'.index(first)].stdout.split('write:\n\n')[1]) == 31
    assert same_weights('out/1/checkpoint.pt', f'{first}/out/1/checkpoint.pt', atol=1e-5)


def test_the_dice_of_dropout_depend_on_the_seed_the_step_and_the_process(monkeypatch):
    monkeypatch.setattr(bigramv2, 'max_iters', 8)
    model, used = bigramv2.GPT(11), set()
    model.register_forward_pre_hook(lambda *_: used.add(torch.initial_seed()))
    for rank, seed in ((0, 1), (1, 1), (0, 2)):
        monkeypatch.setattr(bigramv2, 'rank', rank)
        monkeypatch.setattr(bigramv2, 'seed', seed)
        list(bigramv2.train(model, bigramv2.make_optimizers(model), np.zeros(200, dtype='<u2')))
    assert len(used) == 24


def test_a_batch_that_the_processes_cannot_share_is_refused_in_one_line(folder, process):
    process(0, 3)
    for args in (SMALL, ['--resume', '--max_iters', 30]):
        refused(folder, 'bigramv2.py', args, 'batch_size = 4', 'divisible by 3')


def test_of_several_processes_only_the_first_writes_a_text(folder, process):
    for rank, length in ((0, 501), (1, 0)):
        process(rank, 2)
        assert len(succeeds('bigramv2.py', '--sample_only', cwd=folder)) == length


def test_each_process_takes_the_gpu_of_its_number(process, monkeypatch):
    used = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'set_device', used.append)
    monkeypatch.setattr(bigramv2, 'device', 'cuda')
    monkeypatch.setattr(torch, 'zeros', lambda *_, device: used.append(device))
    process(1, 2)
    bigramv2.check()
    assert used == [1, 'cuda']
