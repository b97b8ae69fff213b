"""What the experiments share: a training with some hyperparameters changed, and tables that grow row by row.

Every experiment takes --quick: a trial with a few steps of everything, whose results go to experiments/out/quick.
"""
import csv
import json
import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

QUICK = '--quick' in sys.argv
ARGS = [word for word in sys.argv[1:] if word != '--quick']
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'experiments' / ('out/quick' if QUICK else 'results')
CORES = os.cpu_count()
GO_ON = f'The same command {"begins anew" if QUICK else "continues from here"}'
sys.path.insert(0, str(ROOT))
os.chdir(ROOT)  # tokens/ is there

import torch  # noqa: E402

import bigramv2  # noqa: E402

bigramv2.device, bigramv2.fused_attention = 'cpu', True  # all is measured on the CPU
PROMPT = 'ROMEO:\n'
SEEDS = '1337', '1338'  # the first trains at every rate, the second only at the best one


def train(spoil=None, **settings):
    """Train on the text in tokens/ with settings in place of the defaults.

    spoil(model) may change the model before it learns.
    Returns the final losses, the processor seconds of all steps (with one thread, these depend less on what else
    the machine does), the parameters and a line that the model writes.
    """
    unknown = settings.keys() - bigramv2.HYPERPARAMETERS
    if unknown:
        raise ValueError(f'not hyperparameters of bigramv2.py: {", ".join(unknown)}')
    vars(bigramv2).update(settings)
    if QUICK:
        bigramv2.max_iters = 3
    bigramv2.eval_interval = bigramv2.max_iters
    bigramv2.check()
    data, meta = bigramv2.load_data()
    torch.manual_seed(bigramv2.seed)
    model = bigramv2.GPT(len(meta['vocab']))
    if spoil:
        spoil(model)
    optimizers = bigramv2.make_optimizers(model)
    start = time.process_time()
    for _ in bigramv2.train(model, optimizers, data['train']):
        pass
    return measure(model, data, meta['vocab'], time.process_time() - start)


def adamw(parameters):
    """AdamW at learning_rate, set as bigramv2.py's own is."""
    return torch.optim.AdamW(parameters, lr=bigramv2.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)


def measure(model, data, vocab, seconds):
    """The row of a trained model: its validation loss is over the whole split."""
    train_loss = bigramv2.estimate_loss(model, data['train'], bigramv2.eval_windows)
    val_loss = bigramv2.estimate_loss(model, data['val'], 10 if QUICK else 10 ** 9)
    return {
        'val': f'{val_loss:.4f}',
        'train': f'{train_loss:.4f}',
        'seconds': f'{seconds:.1f}',
        'parameters': sum(p.numel() for p in model.parameters() if p.requires_grad),
        'sample': sample(model, vocab) if math.isfinite(val_loss) else '',
    }


@torch.no_grad()
def sample(model, vocab, count=60):
    """What any model writes after the prompt, or after the first character where the text has no such prompt."""
    torch.manual_seed(1)
    model.eval()
    start = PROMPT if set(PROMPT) <= set(vocab) else vocab[0]
    idx = bigramv2.encode(start, vocab)                                                        # (1, T)
    for _ in range(count):
        new = bigramv2.GPT.draw(model(idx[:, -bigramv2.block_size:])[0][:, -1], temperature=0.8)  # (1, 1)
        idx = torch.cat((idx, new), dim=1)
    return ''.join(vocab[token] for token in idx[0, len(start):]).replace('\n', ' / ')


def read(name):
    """The rows of a table in results/, or none."""
    path = RESULTS / name
    if not path.exists():
        return []
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def missing(table, jobs, *columns):
    """The jobs, each the values of these columns, of which a table has no row yet."""
    done = {tuple(row[column] for column in columns) for row in read(table)}
    return [job for job in (tuple(map(str, job)) for job in jobs) if job not in done]


def best_runs(table, column, name):
    """The rows that have this name in a column, at the learning rate that was best with the first seed."""
    rows = [row for row in read(table) if row[column] == name]
    first = [row for row in rows if row['seed'] == SEEDS[0]]
    rate = min(first, key=lambda row: float(row['val'].replace('nan', 'inf')))['rate']
    return [row for row in rows if row['rate'] == rate]


def append(name, row):
    """Add a row to a table in results/."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    new = not (RESULTS / name).exists()
    with open(RESULTS / name, 'a', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, row, lineterminator='\n')
        if new:
            writer.writeheader()
        writer.writerow(row)


def write(name, rows):
    """A whole table in results/, in place of the old one."""
    (RESULTS / name).unlink(missing_ok=True)
    for row in rows:
        append(name, row)


def peak():
    """The peak memory of this process so far in MB, or None where the system does not tell."""
    status = Path('/proc/self/status')
    if status.exists():  # Linux, where getrusage would count what the parent process had used
        return int(status.read_text().split('VmHWM:')[1].split()[0]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20  # macOS, in bytes


def run_all(script, table, jobs, at_once=CORES, threads=1):
    """Run a script once for each job, some at once, each in a process of its own with the job as its arguments.

    The last line that a process prints is its row, as JSON. Only this process writes the table.
    """
    name, start, lock, done = Path(script).name, time.time(), threading.Lock(), []
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'PYTHONIOENCODING': 'utf-8'}

    def work(job):
        words = [sys.executable, script, *job, *(['--quick'] if QUICK else [])]
        result = subprocess.run(words, env=environment, capture_output=True, check=True, encoding='utf-8')
        row = json.loads(result.stdout.splitlines()[-1])
        with lock:
            append(table, row)
            done.append(job)
            print(f'{name} {len(done)} of {len(jobs)}, {time.time() - start:.0f} s: {" ".join(job)}'
                  + (f', validation loss {row["val"]}' if 'val' in row else ''), flush=True)

    try:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(work, jobs))
    except KeyboardInterrupt:
        sys.exit(f'Stopped. {GO_ON}')
    except subprocess.CalledProcessError as e:
        sys.exit(f'{e.stderr}{name} failed at {e.cmd[2:]}. {GO_ON}')


def two_seeds(table, column, rates):
    """Rounds for `start`: each name at each of its rates with the first seed, and at the best with the second."""
    def first():
        jobs = [(name, SEEDS[0], rate) for name in rates for rate in rates[name]]
        return missing(table, jobs, column, 'seed', 'rate')

    def second():
        jobs = [(name, SEEDS[1], best_runs(table, column, name)[0]['rate']) for name in rates]
        return missing(table, jobs, column, 'seed', 'rate')

    return first, second


def start(script, main, table, *rounds, **how):
    """With arguments do that one job and print its row; without, do all jobs that the table lacks, round by round.

    Each training has one thread, so that all cores have work.
    """
    if ARGS:
        print(json.dumps(main(*ARGS)))
        return
    for jobs in rounds:
        run_all(script, table, jobs(), **how)
