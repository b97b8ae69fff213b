"""What prepare.py makes of a text, and what a batch is."""
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, SMALL, TEXT, posix, refused, stop_at, succeeds

import bigram
import bigramv2
import prepare


def prepared(text):
    """Prepare this text, in the working directory. Return its vocabulary and its tokens, as a list."""
    Path('text').write_bytes(text if isinstance(text, bytes) else text.encode())
    meta = prepare.prepare('text')
    assert sorted(os.listdir('tokens')) == ['meta.json', 'train.bin', 'val.bin']
    assert json.loads(Path('tokens/meta.json').read_text()) == meta
    train, val = (np.fromfile(f'tokens/{split}.bin', '<u2').tolist() for split in ('train', 'val'))
    assert (len(train), len(val)) == (meta['train'], meta['val'])
    return meta['vocab'], train + val


@pytest.mark.parametrize('text', [
    b'one\rtwo\r', b'one\r\ntwo\r\n', b'\xef\xbb\xbfone\ntwo\n', b'\xef\xbb\xbfone\r\ntwo\r',
], ids=['T1 CR', 'T2 CRLF', 'T3 byte order mark', 'all'])
def test_a_text_file_is_read_as_a_text_file_in_both_chapters(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    vocab, tokens = prepared(text)
    assert vocab == '\nenotw' and ''.join(vocab[token] for token in tokens) == 'one\ntwo\n'
    assert [list(part) for part in bigram.read('text')] == [list(vocab), tokens]


@pytest.mark.parametrize('seeds', [range(60), pytest.param(range(5000), marks=pytest.mark.slow)], ids=len)
def test_any_text_is_kept_whole_in_pieces_of_any_size_and_both_chapters_read_it_alike(tmp_path, monkeypatch, seeds):
    monkeypatch.chdir(tmp_path)
    for seed in seeds:
        dice = random.Random(seed)
        parts = ['\r\n', '\r', '\n', '\ufeff', '\u2028', '\x85', '\0', 'é', '列', chr(dice.randrange(0xe000, 0x110000))]
        text = ''.join(dice.choices(parts, k=dice.randint(4, 60)))
        monkeypatch.setattr(prepare, 'PIECE', dice.randint(1, 9))
        vocab, tokens = prepared(text)
        expected = text.removeprefix('\ufeff').replace('\r\n', '\n').replace('\r', '\n')
        assert vocab == ''.join(sorted(set(expected))) and ''.join(vocab[token] for token in tokens) == expected
        assert bigramv2.encode(expected, vocab)[0].tolist() == tokens == bigram.read('text')[1].tolist()


def test_nine_tenths_are_to_learn_from_and_the_numbers_are_little_endian(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert prepared('ab' * 50 + 'é')[0] == 'abé'
    train, val = (Path(f'tokens/{split}.bin').read_bytes() for split in ('train', 'val'))
    assert train[:4] == bytes([0, 0, 1, 0]) and val[-2:] == bytes([2, 0])
    assert len(train) == 180 and len(val) == 22
    assert prepared(''.join(map(chr, range(0x10000, 0x20000))))[1] == list(range(65536))  # as many as there can be


@pytest.mark.parametrize('script, text, says', [
    ('prepare.py', None, 'input.txt does not exist'), ('prepare.py', b'', 'input.txt is empty'),
    ('prepare.py', b'x', 'input.txt is too short'), ('prepare.py', 'a folder', 'input.txt: '),
    ('prepare.py', b'bad \xff here', 'input.txt is not UTF-8'), ('prepare.py', b'cut \xc3', 'input.txt is not UTF-8'),
    ('prepare.py', ''.join(map(chr, range(0x10000, 0x20001))).encode(), '65,537 different characters'),
    ('bigram.py', None, 'input.txt'), ('bigram.py', b'', 'too short'), ('bigram.py', b'x' * 600, 'too short'),
    ('bigram.py', 'a folder', 'input.txt'), ('bigram.py', b'\xff', 'utf-8'),
    ('bigram.py', ''.join(map(chr, range(0x3400, 0x3400 + 12_000))).encode(), '12,000 different characters'),
], ids=lambda value: ascii(value)[:20])
def test_what_is_no_text_is_refused_and_the_tokens_stay(folder, script, text, says):
    (folder / 'input.txt').unlink()
    if text == 'a folder':
        (folder / 'input.txt').mkdir()
    elif text is not None:
        (folder / 'input.txt').write_bytes(text)
    refused(folder, script, [], says)


@pytest.mark.parametrize('moves', range(4))
def test_half_a_set_of_tokens_is_no_set(folder, monkeypatch, moves):
    (folder / 'other.txt').write_text(TEXT[::-1], encoding='utf-8')  # as many characters, and the same ones
    with monkeypatch.context() as patch:
        stop_at(patch, os, 'replace', moves)
        with pytest.raises(KeyboardInterrupt) if moves < 3 else monkeypatch.context():
            prepare.prepare('other.txt')
    if moves < 3:
        refused(folder, 'bigramv2.py', SMALL, 'not all of them: run python prepare.py')
    else:
        assert bigramv2.load_data()[0]['train'][0] == sorted(set(TEXT)).index(TEXT[-1])


@posix
def test_a_training_on_the_old_tokens_goes_on_while_prepare_makes_others(folder):
    data, _ = bigramv2.load_data()
    before = data['train'].tobytes()
    (folder / 'other.txt').write_text(TEXT[::-1], encoding='utf-8')
    succeeds('prepare.py', 'other.txt', cwd=folder)
    assert isinstance(data['train'], np.memmap) and data['train'].tobytes() == before  # mapped, and not in memory


@pytest.mark.skipif(sys.platform != 'linux', reason='it reads /proc')
def test_a_long_text_needs_no_more_memory(tmp_path):
    for name, times in (('short', 10), ('long', 900)):  # 0.3 and 27 MB
        (tmp_path / name).write_text(TEXT * times, encoding='utf-8')
    program = ('import prepare, re\nfor name in ("short", "long"):\n    prepare.prepare(name)\n'
               '    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])')
    process = [sys.executable, '-c', program]
    out = subprocess.run(process, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True)
    short, long = map(int, out.stdout.split())  # kB
    assert long - short < 8_000


def test_a_batch_depends_on_the_seed_and_the_step_alone(monkeypatch):
    data = np.arange(1000, dtype='<u2')
    first = bigramv2.get_batch(data, step=1)[0]
    torch.manual_seed(99)
    assert torch.equal(bigramv2.get_batch(data, step=1)[0], first)
    assert not torch.equal(bigramv2.get_batch(data, step=2)[0], first)
    monkeypatch.setattr(bigramv2, 'seed', 2)
    assert not torch.equal(bigramv2.get_batch(data, step=1)[0], first)
