"""What the exercises promise: each can be done, its check fails before and passes after, and the named tests notice."""
import importlib
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / 'experiments' / 'solutions'))
NAMES = sorted(path.stem for path in (ROOT / 'experiments' / 'solutions').glob('[0-9]*.py'))
SOLUTIONS = {name: importlib.import_module(name) for name in NAMES}
LONG = [name for name in NAMES if hasattr(SOLUTIONS[name], 'long_check')]

# What an exercise says of the tests: the file, and tests in it that fail with the change. Without any, all pass.
NO_WARMUP = [('min((step + 1) / (warmup_iters + 1), 1 - step / max_iters)', '1 - step / max_iters')]
NAMED_TESTS = [
    ('02_swap_the_attention', 'test_attention.py', set()),
    ('05_break_the_mask', 'test_attention.py', {'test_no_position_sees_a_later_one'}),
    ('06_wrong_root', 'test_attention.py', {
        'test_all_heads_at_once_are_torch_multihead_attention',
        'test_one_module_a_head_and_all_heads_at_once_are_the_same_function'}),
    ('08_half_cosine', 'test_optimizer.py', set()),
    (NO_WARMUP, 'test_optimizer.py', {'test_the_learning_rate_rises_then_sinks_to_zero'}),
    ('10_tied_embeddings', 'test_sampling.py', set()),
    ('12_top_p', 'test_sampling.py', set()),
    ('13_rotary', 'test_sampling.py', set()),
    ('13_rotary', 'test_model.py', {
        'test_positions_start_as_the_waves_of_the_paper', 'test_the_blocks_are_torch_transformer_encoder_layers',
        'test_the_same_character_elsewhere_is_something_else'}),
]


def test_there_is_a_solution_for_every_exercise():
    assert [int(name[:2]) for name in NAMES] == list(range(1, 14))
    for name in NAMES:
        number = int(name[:2])
        assert SOLUTIONS[name].__doc__.startswith(f'Exercise {number}: ')


@pytest.mark.parametrize('name', NAMES)
def test_the_check_fails_before_and_passes_after(name):
    solution = SOLUTIONS[name]
    with pytest.raises(AssertionError):
        solution.check(solution.before())
    assert solution.check(solution.after())


@pytest.mark.slow
@pytest.mark.parametrize('name', LONG)
def test_the_long_check_fails_before_and_passes_after(name):
    solution = SOLUTIONS[name]
    with pytest.raises(AssertionError):
        solution.long_check(solution.before())
    assert solution.long_check(solution.after())


@pytest.mark.slow
@pytest.mark.parametrize('change, file, tests', NAMED_TESTS)
def test_the_named_tests_notice_the_change(change, file, tests, tmp_path):
    folder = tmp_path / 'copy'
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns('.*', 'out', 'tokens', '__pycache__', 'results'))
    source = (folder / 'bigramv2.py').read_text(encoding='utf-8')
    for old, new in SOLUTIONS[change].EDITS if isinstance(change, str) else change:
        assert source.count(old) == 1
        source = source.replace(old, new)
    (folder / 'bigramv2.py').write_text(source, encoding='utf-8')
    result = subprocess.run([sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', f'tests/{file}'], cwd=folder,
                            capture_output=True, encoding='utf-8', timeout=1200)
    assert ' passed' in result.stdout, result.stdout + result.stderr
    failed = set(re.findall(r'^FAILED tests/\w+\.py::(\w+)', result.stdout, re.M))
    assert failed >= tests if tests else not failed, result.stdout
