"""What a user does and sees: the real command lines, in a folder of their own."""
import shutil

import pytest
import torch
from conftest import ROOT, SMALL, TEXT, run, succeeds


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / 'copy')


def test_training_shows_the_loss_fall_and_the_text_change(trained):
    lines = (trained / 'printed').read_text(encoding='utf-8').splitlines()
    assert 'M parameters on ' in lines[0]
    steps = [line.split() for line in lines if line.startswith('step ')]
    assert [step[1] for step in steps] == ['0', '10', '20']
    assert float(steps[0][5]) > float(steps[1][5]) > float(steps[2][5])
    assert 'left' in steps[1] and 'characters/s' in steps[1]
    assert all(line.startswith(' ' * 12) and len(line) > 20 for line in lines[2:7:2])
    assert 'The best weights are in out/model.pt, with validation loss ' in '\n'.join(lines)


def test_training_leaves_the_curve_and_the_model(trained):
    rows = [line.split(',') for line in (trained / 'out/loss.csv').read_text().splitlines()]
    assert rows[0] == ['step', 'seconds', 'train', 'val'] and [row[0] for row in rows[1:]] == ['0', '10', '20']
    saved = torch.load(trained / 'out/model.pt', weights_only=True)
    assert saved['hyperparameters']['n_embd'] == 16 and saved['vocab'] == ''.join(sorted(set(TEXT)))
    assert saved['weights']['head.weight'].shape == (len(saved['vocab']), 16)
    assert f'{saved["best"]:.6f}' == min(row[3] for row in rows[1:])


def test_the_model_writes_again_at_the_sizes_it_was_trained_at(trained):
    command = ['bigramv2.py', '--sample_only', '--prompt', 'The ', '--max_new_tokens', 40]
    text = succeeds(*command, cwd=trained)
    assert text.startswith('The ') and len(text) == 4 + 40 + 1
    assert text == succeeds(*command, '--no-kv_cache', cwd=trained)
    assert text != succeeds(*command, '--temperature', 0, cwd=trained)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(folder):
    for seed in (1337, 1338):
        succeeds('bigramv2.py', *SMALL, '--seed', seed, '--dropout', 0.1, '--out_dir', f'a{seed}', cwd=folder)
    succeeds('bigramv2.py', *SMALL, '--dropout', 0.1, '--out_dir', 'again', cwd=folder)
    weights = [torch.load(folder / name / 'model.pt')['weights'] for name in ('a1337', 'again', 'a1338')]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]['head.weight'], weights[2]['head.weight'])


def test_swapping_the_two_lines_of_block_swaps_the_attention(folder):
    source = (ROOT / 'bigramv2.py').read_text(encoding='utf-8')
    for line in ('self.sa = MultiHeadAttention(num_heads, head_size) ', 'self.sa = MultiHeadAttn(num_heads, n_embd,'):
        commented = f'        # {line}' in source
        a, b = (f'        # {line}', f'        {line}')[::1 if commented else -1]
        assert source.count(a) == 1
        source = source.replace(a, b)
    (folder / 'swapped.py').write_text(source, encoding='utf-8')
    assert 'step    20' in succeeds(folder / 'swapped.py', *SMALL, '--out_dir', 'swapped', cwd=folder)
    assert 'blocks.0.sa.heads.0.key.weight' in torch.load(folder / 'swapped/model.pt')['weights']
    assert len(succeeds(folder / 'swapped.py', '--sample_only', '--out_dir', 'swapped', cwd=folder)) > 30


def test_the_formula_trains_like_the_fused_kernel(folder):
    succeeds('bigramv2.py', *SMALL, '--no-fused_attention', '--out_dir', 'formula', cwd=folder)
    fused, formula = (torch.load(folder / name / 'model.pt')['best'] for name in ('out', 'formula'))
    assert fused == pytest.approx(formula, abs=1e-4)


def test_help_lists_every_hyperparameter_with_its_default_and_its_comment():
    text = ' '.join(succeeds('bigramv2.py', '--help', cwd=ROOT, env={'COLUMNS': '500'}).split())
    top = (ROOT / 'bigramv2.py').read_text(encoding='utf-8').split('# ----')[0]
    lines = [line for line in top.splitlines() if line[:1].islower() and ' = ' in line and '  # ' in line]
    assert len(lines) > 25
    for line in lines:
        name, rest = line.split(' = ', 1)
        value, comment = rest.split('  # ', 1)
        assert f'--{name}' in text and comment in text
        if name != 'device':
            assert f'(default: {value.strip()})' in text
    assert '--no-compile' in text


def test_importing_trains_and_writes_nothing(tmp_path):
    (tmp_path / 'importer.py').write_text('import bigram, bigramv2, prepare')
    assert succeeds(tmp_path / 'importer.py', cwd=tmp_path, env={'PYTHONPATH': str(ROOT)}) == ''
    assert [path.name for path in tmp_path.iterdir()] == ['importer.py']


def test_the_first_version_learns(folder):
    source = (ROOT / 'bigram.py').read_text(encoding='utf-8')
    for name, value in dict(max_iters=60, eval_interval=30, eval_iters=4, n_embd=16, block_size=16).items():
        before = next(line for line in source.splitlines() if line.startswith(f'{name} = '))
        source = source.replace(before, f'{name} = {value}')
    (folder / 'short.py').write_text(source, encoding='utf-8')
    lines = succeeds(folder / 'short.py', cwd=folder).splitlines()
    losses = [float(line.split('val ')[1].split(',')[0]) for line in lines if line.startswith('step')]
    assert len(losses) == 3 and losses[0] > losses[1] > losses[2]
    assert len('\n'.join(lines[3:])) > 400


@pytest.mark.parametrize('command, status, says', [
    (['--n_embd', '30', '--num_heads', '4'], 1, 'n_embd = 30 must be divisible by num_heads = 4'),
    (['--dropout', '1.5'], 1, 'dropout = 1.5'),
    (['--block_size', '5000'], 1, 'block_size = 5000'),
    (['--temperature', 'nan'], 1, 'temperature = nan'),
    (['--top_k', '-1'], 1, 'top_k = -1'),
    (['--device', 'tpu'], 1, "device = 'tpu'"),
    (['--prompt', 'A~B'], 1, "'~'"),
    (['--prompt', ''], 1, 'prompt'),
    (['--n_embed', '64'], 2, '--n_embed'),
    (['--n_embd', 'many'], 2, '--n_embd'),
    (['extra'], 2, 'extra'),
])
def test_a_value_that_cannot_work_is_refused_by_name(folder, command, status, says):
    refused(folder, 'bigramv2.py', command, status, says)


def refused(folder, script, command, status, says):
    """One line on stderr that says it, nothing on stdout, and no file changed."""
    before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    result = run(script, *command, cwd=folder)
    assert (result.returncode, result.stdout) == (status, '')
    assert says in result.stderr and result.stderr.startswith(script) and len(result.stderr.splitlines()) == 1
    assert {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()} == before


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
    refused(folder, 'prepare.py', ['tokens'], 1, 'tokens is not a file')


def edit(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize('spoil, says', [
    (lambda f: shutil.rmtree(f / 'tokens'), 'tokens/meta.json is missing: run python prepare.py'),
    (lambda f: (f / 'tokens/val.bin').unlink(), 'tokens/val.bin is missing: run python prepare.py again'),
    (lambda f: edit(f / 'tokens/train.bin', lambda b: b[:-2]), 'tokens/train.bin has 53,998 bytes, not 54,000'),
    (lambda f: edit(f / 'tokens/train.bin', lambda b: b[:-1]), 'tokens/train.bin has 53,999 bytes, not 54,000'),
    (lambda f: edit(f / 'tokens/val.bin', lambda b: b'\xff\xff' + b[2:]), 'tokens/val.bin has a token 65535, outside'),
    (lambda f: edit(f / 'tokens/val.bin', lambda b: b[::-1][:-2] + b[:2]), 'tokens/val.bin'),
    (lambda f: edit(f / 'tokens/val.bin', lambda b: b[2:] + b[:2]), 'do not belong together: run python prepare.py'),
    (lambda f: (f / 'tokens/meta.json').unlink(), 'tokens/meta.json is missing: run python prepare.py'),
    (lambda f: edit(f / 'tokens/meta.json', lambda b: b[:40]), 'tokens/meta.json is broken: run python prepare.py'),
    (lambda f: edit(f / 'tokens/meta.json', lambda b: b'[]'), 'tokens/meta.json is broken: run python prepare.py'),
    (lambda f: edit(f / 'tokens/meta.json', lambda b: b.replace(b'ABC', b'ACB')), 'do not belong together'),
], ids=['no tokens', 'no val', 'short', 'odd', 'outside', 'reversed', 'other', 'no meta', 'broken', 'list', 'vocab'])
def test_training_refuses_bad_token_files(folder, spoil, says):
    spoil(folder)
    refused(folder, 'bigramv2.py', SMALL, 1, says)


@pytest.mark.parametrize('spoil, says', [
    (lambda f: (f / 'out/model.pt').unlink(), 'out/model.pt does not exist'),
    (lambda f: edit(f / 'out/model.pt', lambda b: b[:-1000]), 'out/model.pt is damaged'),
    (lambda f: edit(f / 'out/model.pt', lambda b: b[:5000] + bytes([b[5000] ^ 1]) + b[5001:]), 'model.pt is damaged'),
    (lambda f: reshape(f / 'out/model.pt'), 'other shapes'),
], ids=['missing', 'cut short', 'one bit', 'another shape'])
def test_sampling_refuses_a_bad_model(folder, spoil, says):
    spoil(folder)
    refused(folder, 'bigramv2.py', ['--sample_only'], 1, says)


def reshape(path):
    saved = torch.load(path)
    saved['weights']['head.weight'] = torch.zeros(3, 3)
    torch.save(saved, path)


@pytest.mark.parametrize('text, says', [
    (None, 'input.txt'), (b'', 'too short'), (b'too short', 'too short'), (b'\xff', 'utf-8'),
], ids=['missing', 'empty', 'short', 'not utf-8'])
def test_the_first_version_refuses_bad_text(tmp_path, text, says):
    if text is not None:
        (tmp_path / 'input.txt').write_bytes(text)
    refused(tmp_path, 'bigram.py', [], 1, says)
