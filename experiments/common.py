"""What the experiments share: one training with some hyperparameters changed, and tables that grow row by row."""
import csv
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORES = os.cpu_count()
RESULTS = ROOT / 'experiments' / 'results'
sys.path.insert(0, str(ROOT))
os.chdir(ROOT)  # tokens/ and out/ are there

import bigramv2  # noqa: E402

# Ctrl-C ends a script without a traceback
sys.excepthook = lambda kind, *rest: None if kind is KeyboardInterrupt else sys.__excepthook__(kind, *rest)

BUDGET = dict(max_iters=800, eval_interval=800)  # so that all 70 trainings fit into an hour
PROMPT = 'ROMEO:\n'


def train(spoil=None, **settings):
    """Train on this text with settings in place of the defaults; spoil(model) may damage the model first.

    Returns the final losses (the validation loss over its whole split), seconds, parameters and a line of sample.
    """
    for name, value in {**BUDGET, **settings}.items():
        if name not in bigramv2.COMMENTS:
            raise ValueError(f'{name} is not a hyperparameter of bigramv2.py')
        setattr(bigramv2, name, value)
    bigramv2.check_hyperparameters()
    data, vocab = bigramv2.load_data()
    run = bigramv2.Run(vocab)
    if spoil:
        spoil(run.model)
        run.optimizers = bigramv2.make_optimizers(run.model)
    losses = {}
    bigramv2.train(run, data, losses.update)
    seconds = run.seconds()
    run.model.eval()
    prompt = bigramv2.encode(PROMPT, vocab)
    bigramv2.torch.manual_seed(1)
    tokens = run.model.generate(prompt, 60, temperature=0.8)[0, prompt.shape[1]:]
    return {
        'val': f'{bigramv2.estimate_loss(run.model, data["val"]):.4f}',
        'train': f'{losses["train"]:.4f}',
        'seconds': f'{seconds:.0f}',
        'parameters': sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        'sample': bigramv2.decode(tokens, vocab).replace('\n', ' / '),
    }


def read(name):
    """The rows of a table in results/, or none."""
    path = RESULTS / name
    return list(csv.DictReader(path.open(encoding='utf-8', newline=''))) if path.exists() else []


def append(name, row):
    """Add a row to a table in results/, which one process at a time does."""
    RESULTS.mkdir(exist_ok=True)
    new = not (RESULTS / name).exists()
    with open(RESULTS / name, 'a', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, row, lineterminator='\n')
        if new:
            writer.writeheader()
        writer.writerow(row)


def peak():
    """The peak memory of this process so far, in MB (Linux; getrusage would count the parent's)."""
    status = Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) / 1024


def run_all(script, jobs, at_once=CORES, threads=1):
    """Run a script once for each job's arguments, each in a process of its own, some at once."""
    start, running, queue = time.time(), [], list(jobs)
    total, name = len(queue), Path(script).name
    while queue or running:
        while queue and len(running) < at_once:
            job = queue.pop(0)
            print(f'{name} {total - len(queue)} of {total}, {time.time() - start:.0f} s: {" ".join(job)}', flush=True)
            environment = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
            running.append(subprocess.Popen([sys.executable, script, *job], env=environment))
        time.sleep(0.2)
        for process in [process for process in running if process.poll() is not None]:
            running.remove(process)
            if process.returncode:
                for other in running:
                    other.terminate()
                sys.exit(f'{name} failed: see above; the same command goes on from here')
