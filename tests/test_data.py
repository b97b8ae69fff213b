"""What the token files are: the text, losslessly, in a form that other programs read too."""
import contextlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TEXT, fuzz
from hypothesis import strategies as st

import bigramv2
import prepare

texts = st.text(st.characters(exclude_categories=['Cs']), min_size=2, max_size=300)


def prepared(text, piece=1 << 22):
    """Prepare a text in a folder of its own; return meta, and the three files as bytes."""
    before = prepare.PIECE
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        prepare.PIECE = piece
        try:
            Path('text').write_bytes(text.encode())
            meta = prepare.prepare('text')
        finally:
            prepare.PIECE = before
        assert sorted(os.listdir('tokens')) == ['meta.json', 'train.bin', 'val.bin']
        return meta, *(Path('tokens', name).read_bytes() for name in ('train.bin', 'val.bin', 'meta.json'))


def test_decoding_gives_the_text_back(examples):
    @fuzz(examples, text=texts)
    def check(text):
        meta, train, val, saved = prepared(text)
        assert json.loads(saved) == meta and meta['vocab'] == ''.join(sorted(set(text)))
        tokens = np.frombuffer(train + val, dtype='<u2')
        assert bigramv2.decode(tokens, meta['vocab']) == text
        assert bigramv2.encode(text, meta['vocab'])[0].tolist() == tokens.tolist()


def test_pieces_of_any_size_give_the_same_files(examples):
    @fuzz(examples, text=texts, piece=st.integers(1, 9))
    def check(text, piece):
        assert prepared(text, piece) == prepared(text)


def test_the_split_the_type_and_the_byte_order():
    meta, train, val, _ = prepared('ab' * 50 + 'é')
    assert (meta['train'], meta['val'], meta['vocab']) == (90, 11, 'abé')
    assert train[:4] == bytes([0, 0, 1, 0]) and val[-2:] == bytes([2, 0])  # little-endian uint16
    assert len(train) == 180 and len(val) == 22


def test_65536_distinct_characters_fit_and_one_more_does_not():
    characters = [chr(i) for i in range(0x10000, 0x20001)]
    meta, train, val, _ = prepared(''.join(characters[:-1]))
    assert np.frombuffer(train + val, '<u2').tolist() == list(range(65536))
    with pytest.raises(SystemExit, match='65,537 distinct'):
        prepared(''.join(characters))


def test_targets_are_the_inputs_shifted_by_one():
    data = np.arange(100, dtype='<u2')
    x, y = bigramv2.windows(data, np.array([0, 5, 83]))
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


@pytest.mark.parametrize('processes', [1, 2, 4])
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


def test_prepare_prints_what_it_made(trained):
    printed = (trained / 'prepared').read_text(encoding='utf-8')
    n = len(TEXT)
    for part in (f'{n:,} characters', f'{len(set(TEXT))} distinct', f'train.bin: {n * 9 // 10:,} tokens',
                 f'val.bin: {n - n * 9 // 10:,} tokens', ' s. Next: python bigramv2.py'):
        assert part in printed
