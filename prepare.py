"""Turn a text into tokens: python prepare.py [TEXT]

Each different character of the text is one token. Its number is its place among them, in sorted order. The first
90 % of the tokens go to tokens/train.bin and the rest to tokens/val.bin, as little-endian uint16. tokens/meta.json
keeps the vocabulary, the two counts, and a checksum that tells this text from others.
"""
import argparse
import json
import os
import sys
import time
import zlib
from pathlib import Path

import numpy as np

TOKENS = Path('tokens')
PIECE = 1 << 18  # characters in memory at a time


def pieces(path):
    """Yield the text at path piece by piece: the Unicode number of each character, (T,) uint32.

    Any line end (\\n, \\r\\n or \\r) is read as \\n. A byte order mark at the beginning is no part of the text.
    """
    with open(path, encoding='utf-8-sig') as file:
        while text := file.read(PIECE):
            yield np.frombuffer(text.encode('utf-32-le'), dtype='<u4')


def prepare(path):
    """Write train.bin, val.bin and meta.json for the UTF-8 text at path. Return what meta.json holds."""
    # First reading: how many characters are there, and which?
    count, seen = 0, np.zeros(sys.maxunicode + 1, dtype=bool)  # seen: one place for each Unicode number
    for codes in pieces(path):
        count += len(codes)
        seen[codes] = True
    vocab = ''.join(map(chr, np.flatnonzero(seen)))
    if count < 2:
        fail(f'{path} is {"too short" if count else "empty"}: it needs at least two characters')
    if len(vocab) > 1 << 16:
        fail(f'{path} has {len(vocab):,} different characters; a uint16 can tell 65,536 apart')

    # Second reading: each character becomes its place in the vocabulary.
    token_of = np.zeros(len(seen), dtype='<u2')  # the token of each Unicode number
    token_of[seen] = np.arange(len(vocab))
    n_train, done, checksum = count * 9 // 10, 0, zlib.crc32(vocab.encode())
    TOKENS.mkdir(exist_ok=True)
    (TOKENS / 'meta.json').unlink(missing_ok=True)  # it comes back last: without it bigramv2.py takes no tokens
    with open(TOKENS / 'train.bin.new', 'wb') as train, open(TOKENS / 'val.bin.new', 'wb') as val:
        for codes in pieces(path):
            tokens = token_of[codes]  # (T,) uint16
            cut = max(n_train - done, 0)  # so many of these belong to train.bin
            train.write(tokens[:cut])
            val.write(tokens[cut:])
            checksum = zlib.crc32(tokens, checksum)
            done += len(tokens)
    if done != count:
        fail(f'{path} changed while it was read, or is a pipe: save it as a file first')
    meta = {'vocab': vocab, 'train': n_train, 'val': count - n_train, 'crc32': checksum}
    (TOKENS / 'meta.json.new').write_text(json.dumps(meta))
    for name in ('train.bin', 'val.bin', 'meta.json'):  # moved into place: a training on the old tokens goes on
        os.replace(TOKENS / f'{name}.new', TOKENS / name)
    return meta


def fail(message):
    sys.exit(f'prepare.py: {message}')


def main():
    parser = argparse.ArgumentParser(description='Turn a text into tokens for bigramv2.py.')
    parser.add_argument('text', nargs='?', default='input.txt', help='a UTF-8 text file (default: %(default)s)')
    path, start = parser.parse_args().text, time.perf_counter()
    if hasattr(sys.stdout, 'reconfigure'):  # a notebook's lacks it
        sys.stdout.reconfigure(encoding='utf-8')  # for texts in any script
    try:
        meta = prepare(path)
    except FileNotFoundError:
        fail(f'{path} does not exist; name a text file: python prepare.py TEXT')
    except UnicodeDecodeError as e:
        fail(f'{path} is not UTF-8 text (byte {e.object[e.start]:#04x}: {e.reason}); save it as UTF-8')
    except OSError as e:
        fail(f'{e.filename or TOKENS}: {e.strerror}')
    shown = repr(meta['vocab'][:80])[1:-1] + '...' * (len(meta['vocab']) > 80)
    print(f'{path}: {meta["train"] + meta["val"]:,} characters, {len(meta["vocab"]):,} different: {shown}\n'
          f'tokens/train.bin: {meta["train"]:,} tokens\ntokens/val.bin: {meta["val"]:,} tokens\n'
          f'{time.perf_counter() - start:.2f} s. Next: python bigramv2.py')


if __name__ == '__main__':
    main()
