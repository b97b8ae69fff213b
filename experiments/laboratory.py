"""The whole laboratory, about an hour and a half on two cores: python experiments/laboratory.py

Runs every experiment whose result is not in results/ yet, one after another, then draws the pictures and fills the
tables of both READMEs. Stop it at any time; the same command continues. To measure something anew, delete its CSV
file first. The comparison with nanoGPT needs a clone of it: python experiments/laboratory.py PATH
"""
import subprocess
import sys
import time

from common import GO_ON, RESULTS, ROOT

start = time.time()
commands = [['prepare.py']]
commands += [[f'experiments/{name}.py'] for name in ('ladder', 'hyperparameters', 'ablations', 'heads')]
if not (RESULTS / 'benchmark.csv').exists():
    commands.append(['experiments/benchmark.py'])
if sys.argv[1:] and not (RESULTS / 'nanogpt.csv').exists():
    commands.append(['experiments/nanogpt.py', sys.argv[1]])
commands += [[f'experiments/{name}.py'] for name in ('pictures', 'one_head', 'tables')]
try:
    for words in commands:
        print(f'{words[0]}, after {(time.time() - start) / 60:.0f} min', flush=True)
        if subprocess.run([sys.executable, *words], cwd=ROOT).returncode:
            sys.exit(f'{words[0]} stopped')
except KeyboardInterrupt:
    sys.exit(f'Stopped. {GO_ON}')
print(f'All results are in {RESULTS}, after {(time.time() - start) / 60:.0f} min')
