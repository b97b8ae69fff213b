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

# What an exercise says of the tests: the file, and all tests in it that fail with the change.
RATE = 'test_the_learning_rate_rises_then_sinks_to_zero'
NO_WARMUP = ('min((step + 1) / (warmup_iters + 1), 1 - step / max_iters)', '1 - step / max_iters')
NAMED_TESTS = [
    ('02_swap_the_attention', 'test_attention.py', []),
    ('05_break_the_mask', 'test_attention.py', [
        'test_all_heads_at_once_are_torch_multihead_attention[formula]',
        'test_dropout_is_on_the_weights_and_on_the_way_out[formula]', 'test_each_row_of_weights_sums_to_one',
        'test_no_position_sees_a_later_one[formula-all at once]',
        'test_one_module_a_head_and_all_heads_at_once_are_the_same_function[formula]']),
    ('06_wrong_root', 'test_attention.py', [
        'test_all_heads_at_once_are_torch_multihead_attention[formula]',
        'test_one_module_a_head_and_all_heads_at_once_are_the_same_function[formula]']),
    ('08_half_cosine', 'test_optimizer.py', []),
    ('10_tied_embeddings', 'test_sampling.py', []),
    ('12_top_p', 'test_sampling.py', []),
    ('13_rotary', 'test_sampling.py', []),
    ('13_rotary', 'test_attention.py', [
        'test_all_heads_at_once_are_torch_multihead_attention[formula]',
        'test_all_heads_at_once_are_torch_multihead_attention[fused]',
        'test_one_module_a_head_and_all_heads_at_once_are_the_same_function[formula]',
        'test_one_module_a_head_and_all_heads_at_once_are_the_same_function[fused]']),
    ('13_rotary', 'test_model.py', [
        'test_positions_start_as_the_waves_of_the_paper[31]', 'test_positions_start_as_the_waves_of_the_paper[32]',
        'test_the_blocks_are_torch_transformer_encoder_layers[formula]',
        'test_the_blocks_are_torch_transformer_encoder_layers[fused]',
        'test_the_same_character_elsewhere_is_something_else']),
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


def failing(folder, edits, file):
    """The tests in a file that fail with these edits of bigramv2.py."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns('.*', 'out', 'tokens', '__pycache__', 'results'))
    source = (ROOT / 'bigramv2.py').read_text(encoding='utf-8')
    for old, new in edits:
        assert source.count(old) == 1
        source = source.replace(old, new)
    (folder / 'bigramv2.py').write_text(source, encoding='utf-8')
    result = subprocess.run([sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', f'tests/{file}'], cwd=folder,
                            capture_output=True, encoding='utf-8', timeout=1200)
    assert ' passed' in result.stdout, result.stdout + result.stderr
    names = re.findall(r'^FAILED tests/\w+\.py::(.+?)(?: - .*)?$', result.stdout, re.M)
    return sorted({re.sub(r'\b(cpu|cuda|mps)-|\[(cpu|cuda|mps)\]', '', name) for name in names})  # on whatever device


@pytest.mark.slow
@pytest.mark.parametrize('name, file, tests', NAMED_TESTS, ids=lambda value: value if isinstance(value, str) else '')
def test_the_named_tests_notice_the_change(name, file, tests, tmp_path):
    assert failing(tmp_path / 'copy', SOLUTIONS[name].EDITS, file) == tests


@pytest.mark.slow
def test_a_schedule_without_warm_up_is_noticed(tmp_path):
    assert failing(tmp_path / 'copy', [NO_WARMUP], 'test_optimizer.py') == [RATE]
