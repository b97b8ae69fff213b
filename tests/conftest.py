"""What the tests share: the two models at small sizes, and the real command lines in an empty folder."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bigram
import bigramv2

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / 'input.txt').read_text(encoding='utf-8')[:30_000]
SMALL = ['--n_embd', '16', '--block_size', '16', '--num_layers', '1', '--batch_size', '4', '--eval_windows', '4',
         '--max_iters', '20', '--eval_interval', '10', '--max_new_tokens', '30']


@pytest.fixture(autouse=True)
def one_thread_and_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small sizes in both scripts, on the CPU, and back again after the test."""
    sizes = dict(n_embd=32, num_heads=4, num_layers=2, block_size=16, batch_size=4, device='cpu')
    for script in (bigram, bigramv2):
        for name, value in sizes.items():
            monkeypatch.setattr(script, name, value)


@pytest.fixture(params=[True, False], ids=['fused', 'formula'])
def both_ways(request, monkeypatch):
    monkeypatch.setattr(bigramv2, 'fused_attention', request.param)


def shake(module):
    """Random weights everywhere: a new GPT's zeros would hide mistakes."""
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=0.2)
    return module.eval()


def run(script, *args, cwd, env=None, timeout=120):
    """Run one of the scripts, or the file at a path, as a user would."""
    path = script if Path(script).is_absolute() else ROOT / script
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONIOENCODING': 'utf-8', **(env or {})}
    return subprocess.run([sys.executable, str(path), *map(str, args)], cwd=cwd, env=environment,
                          capture_output=True, encoding='utf-8', timeout=timeout)


def succeeds(*args, **kwargs):
    result = run(*args, **kwargs)
    assert result.returncode == 0 and not result.stderr, result.stderr
    return result.stdout


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    """A folder where prepare.py and a short training have run; copy it before changing anything."""
    folder = tmp_path_factory.mktemp('trained')
    (folder / 'input.txt').write_text(TEXT, encoding='utf-8')
    (folder / 'prepared').write_text(succeeds('prepare.py', cwd=folder), encoding='utf-8')
    (folder / 'printed').write_text(succeeds('bigramv2.py', *SMALL, cwd=folder), encoding='utf-8')
    return folder
