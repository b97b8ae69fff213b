"""The whole laboratory: python experiments/laboratory.py [NANOGPT [TEXT]]

Runs every experiment whose result is not in results/ yet, one after another, then draws the pictures and fills the
tables of both READMEs. Stop it at any time; the same command continues. To measure something anew, delete its CSV
file first. NANOGPT is the folder of a clone of nanoGPT, for nanogpt.py, and TEXT a text for half_hour.py.
"""
import os
import shutil
import subprocess
import sys
import time

from common import ARGS, GO_ON, QUICK, RESULTS, ROOT

SCRIPTS = ['counting', 'ladder', 'ablations', 'optimizers', 'hyperparameters', 'heads', 'benchmark', 'nanogpt',
           'pictures', 'one_head', 'drawing', 'half_hour', 'tables']  # the longest comes late
AT_ONCE = ['counting', 'benchmark', 'nanogpt']  # these do not continue a table: there is a whole one or none
GIVEN = {'nanogpt': ARGS[:1], 'half_hour': ARGS[1:2]}


def wanted(name):
    return not (name in AT_ONCE and (RESULTS / f'{name}.csv').exists() or name == 'nanogpt' and not ARGS)


def run(script, *args):
    print(f'{script}, after {(time.time() - start) / 60:.0f} min', flush=True)
    result = subprocess.run([sys.executable, script, *args], cwd=ROOT, stderr=subprocess.PIPE, encoding='utf-8',
                            env={**os.environ, 'PYTHONIOENCODING': 'utf-8'})
    if result.returncode:
        sys.exit(f'{result.stderr}{script} stopped')


start = time.time()
if QUICK:  # a new trial tries everything
    shutil.rmtree(RESULTS, ignore_errors=True)
try:
    run('prepare.py')
    for name in filter(wanted, SCRIPTS):
        run(f'experiments/{name}.py', *GIVEN.get(name, []), *['--quick'] * QUICK)
except KeyboardInterrupt:
    sys.exit(f'Stopped. {GO_ON}')
print(f'All results are in {RESULTS}, after {(time.time() - start) / 60:.0f} min')
