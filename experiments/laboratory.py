"""The whole laboratory, about an hour on two cores: python experiments/laboratory.py

Runs every experiment whose result is not in results/ yet, one after another, then draws the pictures and
fills in the README's tables. Stop it at any time; the same command goes on. To measure something anew, delete
its CSV file first.
"""
import subprocess
import sys
import time

from common import ROOT

start = time.time()
try:
    for script in ('prepare', 'experiments/hyperparameters', 'experiments/ablations', 'experiments/heads',
                   'experiments/pictures', 'experiments/tables'):
        print(f'{script}.py, after {(time.time() - start) / 60:.0f} min', flush=True)
        if subprocess.run([sys.executable, f'{script}.py'], cwd=ROOT).returncode:
            sys.exit(f'{script}.py stopped; the same command goes on from here')
except KeyboardInterrupt:
    sys.exit('Stopped; the same command goes on from here')
print(f'All is in experiments/results, after {(time.time() - start) / 60:.0f} min')
