"""What a user does and sees: the command lines, in a folder of their own."""
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import (
    ROOT,
    SMALL,
    TEXT,
    edited,
    ended,
    losses,
    refused,
    run,
    same_weights,
    saved,
    start,
    stop_at,
    succeeds,
)

import bigramv2
import prepare


def sample_lines(printed):
    """The lines under those with the losses."""
    lines = printed.split('\n')
    return [lines[i + 1] for i, line in enumerate(lines) if line.startswith('step ')]


def prepare_and_train(folder, text, *flags):
    (folder / 'input.txt').write_bytes(text.encode())
    succeeds('prepare.py', cwd=folder)
    return succeeds('bigramv2.py', *SMALL, *flags, cwd=folder)


# Training

def test_training_shows_the_loss_fall_and_the_text_change(trained):
    printed = (trained / 'printed').read_text(encoding='utf-8')
    lines = printed.splitlines()
    assert 'M parameters on cpu, 58 different characters: a blind guess has loss ln(58) = 4.06' in lines[0]
    assert lines[1] == '27,000 characters to learn from, 3,000 to test on'
    assert lines[2] == ('Saved in out/ every 10 steps. Ctrl-C stops. '
                        'To continue from the last save, add --resume to the same command')
    steps = [line.split() for line in lines if line.startswith('step ')]
    assert [step[1] for step in steps] == ['0', '10', '20']
    assert float(steps[0][5]) > float(steps[1][5]) > float(steps[2][5])
    assert 'elapsed' in steps[0] and 'left' in steps[1] and 'characters/s' in steps[1]
    assert all(line.startswith(' ' * 12) and len(line) > 20 for line in sample_lines(printed))
    assert re.search(r'^Done in 0:\d\d\. The best weights are in out/model.pt, with validation loss \d\.\d{4} over '
                     r'2,992 of 3,000 characters\.$', printed, re.M)
    assert 'by heart' not in printed


def test_training_leaves_the_curve_and_the_model(trained):
    rows = [line.split(',') for line in (trained / 'out/loss.csv').read_text().splitlines()]
    assert rows[0] == ['step', 'seconds', 'train', 'val'] and [row[0] for row in rows[1:]] == ['0', '10', '20']
    model = saved(trained / 'out/model.pt')
    assert sorted(model) == ['best', 'hyperparameters', 'step', 'vocab', 'weights']
    assert model['hyperparameters']['n_embd'] == 16 and model['vocab'] == ''.join(sorted(set(TEXT)))
    assert model['weights']['head.weight'].shape == (len(model['vocab']), 16)
    assert f'{model["best"]:.6f}' == min(row[3] for row in rows[1:])


def test_a_long_text_is_tested_on_a_million_characters_and_the_line_says_so(folder):
    sizes = ['--block_size', 256, '--n_embd', 2, '--num_heads', 1, '--max_iters', 1]
    printed = prepare_and_train(folder, TEXT * 400, *sizes)
    assert 'over 999,936 of 1,200,000 characters' in printed


def test_a_text_learnt_by_heart_is_told_with_the_step_from_which_on(folder):
    noise = ''.join(chr(97 + (i * i * 7919 + i // 3) % 1009 % 26) for i in range(700))
    printed = prepare_and_train(folder, noise, '--max_iters', 150, '--eval_interval', 10, '--n_embd', 32)
    best = min(losses(folder / 'out/loss.csv')[1:], key=lambda row: float(row[2]))[0]
    assert int(best) < 100
    assert (f'The validation loss was best at step {best}. From there on the model learnt its text by heart. '
            'Try dropout, a smaller model or more text.') in printed.splitlines()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(folder):
    for seed in (1337, 1338):
        succeeds('bigramv2.py', *SMALL, '--seed', seed, '--dropout', 0.1, '--out_dir', f'a{seed}', cwd=folder)
    succeeds('bigramv2.py', *SMALL, '--dropout', 0.1, '--out_dir', 'again', cwd=folder)
    assert same_weights('a1337/model.pt', 'again/model.pt')
    assert not same_weights('a1338/model.pt', 'again/model.pt', atol=1e-3)


def test_gradients_that_are_not_clipped_are_those_with_an_infinite_limit(folder):
    for limit in (0, 'inf', 0.01):
        succeeds('bigramv2.py', *SMALL, '--grad_clip', limit, '--out_dir', limit, cwd=folder)
    assert same_weights('0/model.pt', 'inf/model.pt') and not same_weights('0/model.pt', '0.01/model.pt')


def test_swapping_the_two_lines_of_block_swaps_the_attention(folder):
    program = edited(folder)
    source = program.read_text(encoding='utf-8')
    for line in ('self.sa = MultiHeadAttention(num_heads, n_embd // num_heads) ',
                 'self.sa = MultiHeadAttn(num_heads, n_embd,'):
        commented = f'        # {line}' in source
        a, b = (f'        # {line}', f'        {line}')[::1 if commented else -1]
        assert source.count(a) == 1
        source = source.replace(a, b)
    program.write_text(source, encoding='utf-8')
    assert 'step    20' in succeeds(program, *SMALL, '--out_dir', 'swapped', cwd=folder)
    assert 'blocks.0.sa.heads.0.key.weight' in saved('swapped/model.pt')['weights']
    assert len(succeeds(program, '--sample_only', '--out_dir', 'swapped', cwd=folder)) > 30


def test_the_formula_trains_like_the_fused_kernel(folder):
    succeeds('bigramv2.py', *SMALL, '--no-fused_attention', '--out_dir', 'formula', cwd=folder)
    assert saved('out/model.pt')['best'] == pytest.approx(saved('formula/model.pt')['best'], abs=1e-4)


def test_the_first_version_learns(folder):
    source = (ROOT / 'bigram.py').read_text(encoding='utf-8')
    for name, value in dict(max_iters=60, eval_interval=30, eval_iters=4, n_embd=16, block_size=16).items():
        before = next(line for line in source.splitlines() if line.startswith(f'{name} = '))
        source = source.replace(before, f'{name} = {value}')
    (folder / 'short.py').write_text(source, encoding='utf-8')
    lines = succeeds(folder / 'short.py', cwd=folder).splitlines()
    seen = [float(line.split('val ')[1].split(',')[0]) for line in lines if line.startswith('step')]
    assert len(seen) == 3 and seen[0] > seen[1] > seen[2]
    assert len('\n'.join(lines[3:])) > 400


# Writing

def test_the_model_writes_again_at_the_sizes_it_was_trained_at(folder):
    command = ['bigramv2.py', '--sample_only', '--prompt', 'The ', '--max_new_tokens', 40]
    text = succeeds(*command, cwd=folder)
    assert text.startswith('The ') and len(text) == 4 + 40 + 1
    assert text == succeeds(*command, '--no-kv_cache', cwd=folder)
    assert text != succeeds(*command, '--temperature', 0, cwd=folder)
    assert text != succeeds(*command, '--seed', 1, cwd=folder)


def test_a_tiny_temperature_writes_as_temperature_0_does(folder):
    texts = {succeeds('bigramv2.py', '--sample_only', '--max_new_tokens', 60, '--temperature', temperature, cwd=folder)
             for temperature in (0, '1e-190', '5e-324', '1e-12')}
    assert len(texts) == 1


def test_an_empty_prompt_begins_at_token_0_and_does_not_print_it(folder):
    text = succeeds('bigramv2.py', '--sample_only', cwd=folder)
    first = saved('out/model.pt')['vocab'][0]
    assert succeeds('bigramv2.py', '--sample_only', '--prompt', first, cwd=folder) == first + text


@pytest.mark.parametrize('text', [TEXT[:3000].replace('\n', ' '), '列子御風而行' * 300], ids=['latin', 'chinese'])
def test_a_text_without_a_line_end_trains_with_the_defaults(folder, text):
    assert 'step    20' in prepare_and_train(folder, text)


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r', '\u2028', '\x0b', '\x85'], ids=ascii)
def test_the_progress_lines_of_a_text_with_any_line_ends_are_one_line_each(folder, end):
    printed = prepare_and_train(folder, ''.join(f'{i % 10}{end}' for i in range(900)), '--out_dir', 'new')
    progress = printed.split('\nThey write:')[0]
    assert len(progress.splitlines()) == len(progress.split('\n')) == 10
    assert all(' / ' in line for line in sample_lines(progress))


def test_a_terminal_that_lacks_characters_gets_question_marks(folder):
    (folder / 'input.txt').write_bytes(('é' * 600 + 'a').encode())
    assert 'a\\xe9' in succeeds('prepare.py', cwd=folder, encoding='ascii')
    assert '????' in succeeds('bigramv2.py', *SMALL, cwd=folder, encoding='ascii')


# The command line

def test_help_lists_every_hyperparameter_with_its_default_and_its_comment(monkeypatch):
    monkeypatch.setenv('COLUMNS', '500')
    text = ' '.join(succeeds('bigramv2.py', '--help', cwd=ROOT).split())
    source = (ROOT / 'bigramv2.py').read_text(encoding='utf-8')
    for name in bigramv2.HYPERPARAMETERS | bigramv2.OPTIONS:
        value, comment = re.search(rf'^{name} = (.+?)(?:  # (.+))?$', source, re.M).groups()
        assert f'--{name}' in text and (comment or '') in text
        if name not in ('device', 'fused_attention'):  # they depend on the machine
            assert comment and f'(default: {value.strip()})' in text
    assert '--no-compile' in text


def test_importing_trains_and_writes_nothing(tmp_path):
    (tmp_path / 'importer.py').write_text('import bigram, bigramv2, prepare')
    result = ended(start(tmp_path / 'importer.py', cwd=tmp_path, env={'PYTHONPATH': str(ROOT)}))
    assert (result.returncode, result.stdout, result.stderr) == (0, '', '')
    assert [path.name for path in tmp_path.iterdir()] == ['importer.py']


@pytest.mark.parametrize('command, status, says', [
    (['--n_embd', '30', '--num_heads', '4'], 1, 'n_embd = 30 must be divisible by num_heads = 4'),
    (['--dropout', '1.5'], 1, 'dropout = 1.5 must be a number from 0.0 to 0.99'),
    (['--block_size', '5000'], 1, 'too few for block_size = 5000'),
    (['--temperature', 'nan'], 1, 'temperature = nan'),
    (['--top_k', '-1'], 1, 'top_k = -1'),
    (['--max_iters', '2.5'], 1, 'max_iters = 2.5 must be a whole number'),
    (['--device', 'tpu'], 1, "device = 'tpu'"),
    (['--device', 'cuda:7'], 1, "device = 'cuda:7' is not on this machine, which has cpu"),
    (['--prompt', 'A~B'], 1, "'~'"),
    (['--n_embed', '64'], 2, '--n_embed'),
    (['--n_embd', 'many'], 2, '--n_embd'),
    (['--out_dir=--'], 2, '--out_dir'),
    (['--n_embd=--'], 2, '--n_embd'),
    (['extra'], 2, 'extra'),
    (['extra\nline'], 2, 'extra'),
], ids=str)
def test_a_value_that_cannot_work_is_refused_by_name(folder, command, status, says):
    refused(folder, 'bigramv2.py', command, status, says)


@pytest.mark.parametrize('number', ['cuda:2', 'cuda:x'])
def test_a_gpu_that_is_not_among_those_of_this_machine_is_refused(folder, monkeypatch, number):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    refused(folder, 'bigramv2.py', ['--device', number], 1, 'is not on this machine, which has cpu, cuda:0, cuda:1')


def test_a_model_that_does_not_fit_into_memory_is_refused(folder):
    refused(folder, 'bigramv2.py', [*SMALL, '--n_embd', 2 ** 40, '--out_dir', '.'], 1, 'does not fit into memory')


@pytest.mark.parametrize('error', ['CUDA error: an illegal memory access was encountered', 'shapes do not match'])
def test_an_error_that_nobody_foresaw_keeps_its_traceback(folder, monkeypatch, error):
    def broken(*_):
        raise RuntimeError(error)

    monkeypatch.setattr(torch.nn.functional, 'gelu', broken)
    with pytest.raises(RuntimeError, match=error):
        run('bigramv2.py', *SMALL, cwd=folder)


# Where the files go

@pytest.mark.parametrize('out_dir, says', [
    ('input.txt', 'input.txt'), ('input.txt/deeper', 'input.txt/deeper'), ('x' * 300, 'xxx'), ('nul\0', 'nul'),
], ids=['a file', 'under a file', 'a long name', 'a zero byte'])
def test_an_out_dir_that_cannot_be_is_refused_before_any_training(folder, out_dir, says):
    refused(folder, 'bigramv2.py', [*SMALL, '--out_dir', out_dir], 1, f'cannot write to {says}')
    for way in ('--resume', '--sample_only'):
        refused(folder, 'bigramv2.py', [way, '--out_dir', out_dir], 1, says)


def test_an_out_dir_that_is_not_writable_is_refused_before_any_training(folder):
    (folder / 'locked').mkdir(mode=0o500)
    if os.access(folder / 'locked', os.W_OK):
        if not os.path.isdir('/proc/self'):
            pytest.skip('this user may write everywhere')
        refused(folder, 'bigramv2.py', [*SMALL, '--out_dir', '/proc'], 1, 'cannot write to /proc')
    else:
        refused(folder, 'bigramv2.py', [*SMALL, '--out_dir', 'locked'], 1, 'cannot write to locked')


@pytest.mark.parametrize('out_dir', ['.', 'a/b c', ''])
def test_any_other_out_dir_works_and_the_same_command_resumes(folder, monkeypatch, out_dir):
    command = ['bigramv2.py', *SMALL, '--out_dir', out_dir]
    with monkeypatch.context() as patch:
        stop_at(patch, torch.nn.utils, 'clip_grad_norm_', 15)
        assert run(*command, cwd=folder).returncode == 130
    resumed = succeeds(*command, '--resume', cwd=folder)
    assert 'step    20' in resumed and f'Saved in {Path(out_dir)}/ every' in resumed
    assert (folder / out_dir / 'model.pt').exists()
    succeeds('bigramv2.py', '--sample_only', '--out_dir', out_dir, cwd=folder)


# prepare.py

def test_ctrl_c_in_prepare_says_so_and_leaves_the_files_before(folder, monkeypatch):
    stop_at(monkeypatch, prepare.zlib, 'crc32', 1)
    refused(folder, 'prepare.py', [], 130, 'prepare.py: Stopped')


@pytest.mark.parametrize('text, says', [
    (None, 'input.txt does not exist'),
    (b'', 'input.txt is empty'),
    (b'x', 'input.txt is too short'),
    (b'good \xc3\xa9 and bad \xff here', 'byte 0xff at byte 16'),
    (b'cut off \xc3', 'byte 0xc3 at byte 8'),
    (''.join(map(chr, range(0x10000, 0x20001))).encode(), '65,537 distinct characters'),
], ids=['missing', 'empty', 'short', 'not utf-8', 'cut utf-8', 'too many'])
def test_prepare_refuses_bad_text(folder, text, says):
    (folder / 'input.txt').unlink()
    if text is not None:
        (folder / 'input.txt').write_bytes(text)
    refused(folder, 'prepare.py', [], 1, says)


def test_prepare_refuses_a_wrong_flag_and_what_is_not_a_file(folder):
    refused(folder, 'prepare.py', ['--fast'], 2, '--fast')
    refused(folder, 'prepare.py', ['nowhere.txt'], 1, 'nowhere.txt does not exist')
    refused(folder, 'prepare.py', ['no\nwhere.txt'], 1, 'no where.txt does not exist')
    refused(folder, 'prepare.py', ['a', 'b\nc'], 2, 'b c')
    refused(folder, 'prepare.py', ['tokens'], 1, 'tokens is not a file')


def test_prepare_shows_the_characters_of_a_chinese_text(folder):
    (folder / 'input.txt').write_bytes('列子御風而行\n'.encode())
    assert '7 characters, 7 distinct: \\n列子御而行風\n' in succeeds('prepare.py', cwd=folder)


@pytest.mark.parametrize('script, args', [('prepare.py', []), ('bigramv2.py', ['--sample_only'])])
def test_a_reader_that_ends_early_gets_no_traceback(folder, script, args):
    process = start(script, *args, cwd=folder)
    process.stdout.close()  # as in python prepare.py | true
    assert process.stderr.read() == ''
    process.wait(timeout=60)
    process.stderr.close()


# Damaged files

def edit(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize('spoil, says', [
    (lambda f: shutil.rmtree(f / 'tokens'), 'tokens/meta.json is missing: run python prepare.py'),
    (lambda f: (f / 'tokens/val.bin').unlink(), 'tokens/val.bin is missing: run python prepare.py'),
    (lambda f: edit(f / 'tokens/train.bin', lambda b: b[:-2]), 'tokens/train.bin is damaged'),
    (lambda f: edit(f / 'tokens/train.bin', lambda b: b[:-1]), 'tokens/train.bin is damaged'),
    (lambda f: edit(f / 'tokens/train.bin', lambda b: b''), 'tokens/train.bin is damaged'),
    (lambda f: edit(f / 'tokens/val.bin', lambda b: b'\xff\xff' + b[2:]), 'tokens/val.bin is damaged'),
    (lambda f: edit(f / 'tokens/val.bin', lambda b: b[2:] + b[:2]), 'do not belong together: run python prepare.py'),
    (lambda f: (f / 'tokens/meta.json').unlink(), 'tokens/meta.json is missing: run python prepare.py'),
    (lambda f: edit(f / 'tokens/meta.json', lambda b: b[:40]), 'tokens/meta.json is damaged'),
    (lambda f: edit(f / 'tokens/meta.json', lambda b: b'[]'), 'tokens/meta.json is damaged'),
    (lambda f: edit(f / 'tokens/meta.json', lambda b: b.replace(b'ABC', b'ACB')), 'do not belong together'),
], ids=['no tokens', 'no val', 'short', 'odd', 'empty', 'outside', 'other', 'no meta', 'broken', 'list', 'vocab'])
def test_training_refuses_bad_token_files(folder, spoil, says):
    spoil(folder)
    refused(folder, 'bigramv2.py', SMALL, 1, says)


@pytest.mark.parametrize('spoil, says', [
    (lambda f: (f / 'out/model.pt').unlink(), 'out/model.pt does not exist'),
    (lambda f: edit(f / 'out/model.pt', lambda b: b[:-1000]), 'out/model.pt is damaged'),
    (lambda f: edit(f / 'out/model.pt', lambda b: b[:5000] + bytes([b[5000] ^ 1]) + b[5001:]), 'model.pt is damaged'),
    (lambda f: reshape(f / 'out/model.pt'), 'out/model.pt is damaged, or not of this version'),
], ids=['missing', 'cut short', 'one bit', 'another shape'])
def test_sampling_refuses_a_bad_model(folder, spoil, says):
    spoil(folder)
    refused(folder, 'bigramv2.py', ['--sample_only'], 1, says)


def reshape(path):
    model = saved(path)
    model['weights']['head.weight'] = torch.zeros(3, 3)
    torch.save(model, path)


@pytest.mark.parametrize('text, says', [
    (None, 'input.txt'), (b'', 'too short'), (b'too short', 'too short'), (b'\xff', 'utf-8'),
], ids=['missing', 'empty', 'short', 'not utf-8'])
def test_the_first_version_refuses_bad_text(tmp_path, text, says):
    if text is not None:
        (tmp_path / 'input.txt').write_bytes(text)
    refused(tmp_path, 'bigram.py', [], 1, says)
