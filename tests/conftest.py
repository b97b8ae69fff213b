"""What the tests share: the models at small sizes, the devices there are, and the scripts as a user runs them."""
import contextlib
import io
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import bigram
import bigramv2

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / 'input.txt').read_text(encoding='utf-8')[:30_000]
SMALL = ['--n_embd', '16', '--block_size', '16', '--num_layers', '1', '--batch_size', '4', '--eval_windows', '4',
         '--max_iters', '20', '--eval_interval', '10', '--max_new_tokens', '30']
DEVICES = ['cpu', *['cuda'] * torch.cuda.is_available(), *['mps'] * torch.backends.mps.is_available()]
posix = pytest.mark.skipif(os.name == 'nt', reason='Windows does this in another way')
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small sizes in both scripts, on the CPU. All else is as in the files, and back again after the test."""
    torch.manual_seed(0)
    sizes = dict(n_embd=32, num_heads=4, num_layers=2, block_size=16, batch_size=4, device='cpu')
    for script, values in ((bigram, sizes), (bigramv2, bigramv2.HYPERPARAMETERS | bigramv2.OPTIONS | sizes)):
        for name, value in values.items():
            monkeypatch.setattr(script, name, value)


@pytest.fixture(params=DEVICES if len(DEVICES) > 1 else None)
def device(request, small, monkeypatch):
    """Each device of this machine in turn: tensors and models are made there."""
    name = getattr(request, 'param', 'cpu')
    monkeypatch.setattr(bigram, 'device', name)
    monkeypatch.setattr(bigramv2, 'device', name)
    with torch.device(name):
        yield name


@pytest.fixture(params=[True, False], ids=['fused', 'formula'])
def both_ways(request, monkeypatch):
    monkeypatch.setattr(bigramv2, 'fused_attention', request.param)


def shake(module):
    """Random weights everywhere: a new GPT's zeros would hide mistakes."""
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=0.2)
    return module.eval()


# The scripts as a user runs them

def command(script, args, device):
    """The command line. bigramv2.py gets its device, so that a test means the same on every machine."""
    where = ['--device', device] if Path(script).name == 'bigramv2.py' else []
    return [str(ROOT / script), *where, *map(str, args)]


def slashes(text):
    """Paths as the tests write them."""
    return text.replace('\\', '/') if os.name == 'nt' else text


def run(script, *args, cwd, device='cpu', encoding='utf-8'):
    """Run a script of the project, or the file at a path, from its first line to its last, in this process.

    That saves the seconds in which a new process imports torch. An error that the script does not handle is raised.
    The names of the script as they are at its end come with the result.
    """
    printed, errors, status, names = io.BytesIO(), io.StringIO(), 0, {}
    out = io.TextIOWrapper(printed, encoding, newline='', write_through=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, 'argv', command(script, args, device))
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
                names = runpy.run_path(sys.argv[0], run_name='__main__')
        except SystemExit as end:  # with a message, Python prints it, and the status is 1
            status = end.code if isinstance(end.code, int) else errors.write(f'{end.code}\n') and 1
    return SimpleNamespace(returncode=status, stdout=slashes(printed.getvalue().decode('utf-8')),
                           stderr=slashes(errors.getvalue()), names=names)


def start(script, *args, cwd, device='cpu', launcher=(), env=None):
    """Start a script as a process of its own."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONIOENCODING': 'utf-8', **(env or {})}
    return subprocess.Popen([sys.executable, *launcher, *command(script, args, device)], cwd=cwd, env=environment,
                            encoding='utf-8', stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def ended(process, timeout=120):
    """Wait for a process, and return what `run` returns, but for the names."""
    try:
        printed, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill() if os.name == 'nt' else os.killpg(process.pid, signal.SIGKILL)
        raise
    return SimpleNamespace(returncode=process.returncode, stdout=slashes(printed), stderr=slashes(errors))


def good(result):
    """What a run printed; it had nothing to complain about."""
    assert result.returncode == 0 and not result.stderr, result.stderr
    return result.stdout


def succeeds(*args, **kwargs):
    return good(run(*args, **kwargs))


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def refused(folder, script, args, *says):
    """One line on stderr that says it, after argparse's usage if that is there. Nothing else is printed but what counts
    for a resumed run, and no file is changed."""
    before = files_in(folder)
    result = run(script, *args, cwd=folder)
    *usage, line = result.stderr.splitlines()
    assert result.returncode in (1, 2) and files_in(folder) == before
    assert all(re.match(r'\w+ = .*, from the (?:flag|run) ', line) for line in result.stdout.splitlines())
    assert line.startswith(Path(script).name) and not [part for part in says if part not in line], line
    assert not usage or result.returncode == 2 and usage[0].startswith('usage: ') and len(usage) == 1


def edited(folder, *pairs, **lines):
    """A copy of bigramv2.py in the folder, in which a learner has put other code, or other lines at the top."""
    source = (ROOT / 'bigramv2.py').read_text(encoding='utf-8')
    olds = {name: next(old for old in source.splitlines() if old.startswith(f'{name} =')) for name in lines}
    for old, new in [*pairs, *((olds[name], line) for name, line in lines.items())]:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    (folder / 'bigramv2.py').write_text(source, encoding='utf-8')
    return folder / 'bigramv2.py'


def stop_at(monkeypatch, module, name, calls, error=KeyboardInterrupt):
    """From the given call of a function on, the process is as good as killed, or the function fails."""
    real, left = getattr(module, name), [calls]

    def stopping(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, stopping)


# What a training leaves

@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    """A folder where prepare.py and a short training have run; copy it before changing anything."""
    folder = tmp_path_factory.mktemp('trained')
    (folder / 'input.txt').write_bytes(TEXT.encode())
    for script, args, name in (('prepare.py', (), 'prepared'), ('bigramv2.py', SMALL, 'printed')):
        (folder / name).write_bytes(succeeds(script, *args, cwd=folder).encode())
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of that folder, and the working directory of this process."""
    shutil.copytree(trained, tmp_path / 'copy')
    monkeypatch.chdir(tmp_path / 'copy')
    return tmp_path / 'copy'


def saved(path):
    return torch.load(path, map_location='cpu', weights_only=True)


def same_weights(a, b, **tolerance):
    """Whether two saved files hold the same weights: to the bit, or within a tolerance."""
    a, b = saved(a)['weights'], saved(b)['weights']
    close = (lambda x, y: torch.allclose(x, y, rtol=0, **tolerance)) if tolerance else torch.equal
    return a.keys() == b.keys() and all(close(a[name], b[name]) for name in a)


def losses(path):
    """loss.csv without its seconds."""
    return [(row[0], *row[2:]) for row in (line.split(',') for line in Path(path).read_text().splitlines())]
