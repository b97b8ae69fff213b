"""What prepare.py makes of a text, and what a batch is."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TEXT, fuzz, posix, refused, stop_at, succeeds
from hypothesis import strategies as st

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


def test_any_text_is_kept_whole_in_pieces_of_any_size_and_both_chapters_read_it_alike(tmp_path, monkeypatch, examples):
    monkeypatch.chdir(tmp_path)
    parts = st.sampled_from(['\r\n', '\r', '\n', '\ufeff', '\u2028', '\x85', '\0', '列']) | st.characters(codec='utf-8')

    @fuzz(examples, text=st.lists(parts, min_size=4, max_size=60).map(''.join), piece=st.integers(1, 9))
    def check(text, piece):
        with monkeypatch.context() as patch:
            patch.setattr(prepare, 'PIECE', piece)
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


def test_prepare_prints_what_it_made(trained):
    printed = (trained / 'prepared').read_text(encoding='utf-8')
    for part in ('input.txt: 30,000 characters, 58 different: ', 'train.bin: 27,000 tokens', 'val.bin: 3,000 tokens'):
        assert part in printed


@pytest.mark.parametrize('text, says', [
    (None, 'input.txt does not exist'), (b'', 'input.txt is empty'), (b'x', 'is too short'), ('tokens', 'tokens: '),
    (b'good \xc3\xa9 and bad \xff here', 'input.txt is not UTF-8'), (b'cut off \xc3', 'input.txt is not UTF-8'),
    (''.join(map(chr, range(0x10000, 0x20001))).encode(), '65,537 different characters'),
], ids=['missing', 'empty', 'short', 'a folder', 'not UTF-8', 'cut UTF-8', 'too many'])
def test_prepare_refuses_what_is_no_text_and_leaves_the_tokens(folder, text, says):
    (folder / 'input.txt').unlink()
    if isinstance(text, bytes):
        (folder / 'input.txt').write_bytes(text)
    refused(folder, 'prepare.py', [text] if isinstance(text, str) else [], says)


@pytest.mark.parametrize('text, says', [
    (None, 'input.txt'), ('a folder', 'input.txt'), (b'\xff', 'utf-8'), (b'', 'too short'), (b'a b' * 200, 'too short'),
    (''.join(map(chr, range(0x3400, 0x3400 + 12_000))).encode(), '12,000 different characters'),
], ids=['missing', 'a folder', 'not UTF-8', 'empty', 'short', 'too many'])
def test_chapter_one_refuses_what_is_no_text(tmp_path, text, says):
    if text == 'a folder':
        (tmp_path / 'input.txt').mkdir()
    elif text is not None:
        (tmp_path / 'input.txt').write_bytes(text)
    refused(tmp_path, 'bigram.py', [], says)


@pytest.mark.parametrize('moves', range(4))
def test_half_a_set_of_tokens_is_no_set(folder, monkeypatch, moves):
    (folder / 'other.txt').write_text(TEXT[::-1], encoding='utf-8')  # as many characters, and the same ones
    with monkeypatch.context() as patch:
        stop_at(patch, os, 'replace', moves)
        with pytest.raises(KeyboardInterrupt) if moves < 3 else monkeypatch.context():
            prepare.prepare('other.txt')
    if moves < 3:
        refused(folder, 'bigramv2.py', [], 'not all of them: run python prepare.py')
    else:
        assert bigramv2.load_data()[0]['train'][0] == sorted(set(TEXT)).index(TEXT[-1])


@posix
def test_a_training_on_the_old_tokens_goes_on_while_prepare_makes_others(folder):
    data, _ = bigramv2.load_data()
    before = data['train'].tobytes()
    (folder / 'other.txt').write_text(TEXT[:9000], encoding='utf-8')
    succeeds('prepare.py', 'other.txt', cwd=folder)
    assert isinstance(data['train'], np.memmap) and data['train'].tobytes() == before  # mapped, and not in memory


@pytest.mark.skipif(sys.platform != 'linux', reason='ru_maxrss has other units elsewhere')
def test_a_long_text_needs_no_more_memory(tmp_path):
    for name, times in (('short', 10), ('long', 900)):  # 0.3 and 27 MB
        (tmp_path / name).write_text(TEXT * times, encoding='utf-8')
    program = ('import prepare, resource\nfor name in ("short", "long"):\n    prepare.prepare(name)\n'
               '    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)')
    process = [sys.executable, '-c', program]
    out = subprocess.run(process, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True)
    short, long = map(int, out.stdout.split())  # kB
    assert long - short < 8_000


def test_targets_are_the_inputs_shifted_by_one():
    x, y = bigramv2.windows(np.arange(100, dtype='<u2'), np.array([0, 5, 83]))
    assert x.shape == y.shape == (3, 16) and x.dtype == torch.int64
    assert torch.equal(y, x + 1) and x[:, 0].tolist() == [0, 5, 83]


def test_batches_come_from_everywhere(monkeypatch):
    monkeypatch.setattr(bigramv2, 'batch_size', 2000)
    x, y = bigramv2.get_batch(np.arange(200, dtype='<u2'), step=1)
    assert torch.equal(y, x + 1)
    assert set(x[:, 0].tolist()) == set(range(200 - 16))


def test_a_batch_depends_on_the_seed_and_the_step_alone(monkeypatch):
    data = np.arange(1000, dtype='<u2')
    first = bigramv2.get_batch(data, step=1)[0]
    torch.manual_seed(99)
    assert torch.equal(bigramv2.get_batch(data, step=1)[0], first)
    assert not torch.equal(bigramv2.get_batch(data, step=2)[0], first)
    monkeypatch.setattr(bigramv2, 'seed', 2)
    assert not torch.equal(bigramv2.get_batch(data, step=1)[0], first)


@pytest.mark.parametrize('processes', [2, 4])
def test_processes_share_one_batch(monkeypatch, processes):
    data = np.arange(200, dtype='<u2')
    whole, _ = bigramv2.get_batch(data, step=1)
    monkeypatch.setattr(bigramv2, 'world_size', processes)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr(bigramv2, 'rank', rank)
        shares.append(bigramv2.get_batch(data, step=1)[0])
    assert {len(share) for share in shares} == {4 // processes}
    assert sorted(torch.cat(shares)[:, 0].tolist()) == sorted(whole[:, 0].tolist())
