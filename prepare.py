"""Turn a text into tokens: python prepare.py [TEXT]

A character-level model needs no tokenizer: each distinct character of the text is one token, and its
number is its place among them in sorted order. The first 90 % of the tokens go to tokens/train.bin,
the rest to tokens/val.bin (flat little-endian uint16), and what it takes to read them back, the
vocabulary and both counts, to tokens/meta.json.
"""
import argparse
import codecs
import json
import os
import sys
import time
import zlib
from pathlib import Path

import numpy as np

TOKENS = Path('tokens')
PIECE = 1 << 22  # bytes of text in memory at a time, so a text of any length fits


def prepare(text_path):
    """Write train.bin, val.bin and meta.json for the UTF-8 text at text_path; return meta."""
    # First reading: how many characters are there, and which?
    count, seen, known = 0, np.zeros(sys.maxunicode + 1, dtype=bool), b''
    for text in pieces(text_path, 'reading'):
        count += len(text)
        new = text.encode().translate(None, delete=known)  # what is left without known ASCII: mostly nothing
        seen[code_points(new.decode())] = True
        known = bytes(np.flatnonzero(seen[:128]).tolist())
    vocab = ''.join(map(chr, np.flatnonzero(seen)))
    check(text_path, count, vocab)

    # Second reading: every character becomes its place in the vocabulary.
    token_of = np.zeros(len(seen), dtype='<u2')
    token_of[seen] = np.arange(len(vocab))
    n_train = count * 9 // 10
    with NewFiles(vocab, train=n_train, val=count - n_train) as new_files:
        new_files.reserve()
        done = 0
        for text in pieces(text_path, 'encoding'):
            tokens = encode(text, token_of)  # (T,)
            cut = min(max(n_train - done, 0), len(tokens))
            new_files.append('train', tokens[:cut])
            new_files.append('val', tokens[cut:])
            done += len(tokens)
        return new_files.move_into_place()


def code_points(text):
    """The Unicode numbers of a string, (T,) uint32."""
    return np.frombuffer(text.encode('utf-32-le'), dtype='<u4')


def encode(text, token_of):
    """The tokens of a string, (T,): one look-up a character in the table token_of."""
    if text.isascii():  # one byte a character: the same look-up, eight times as fast
        table = token_of[:256].astype(np.uint8).tobytes()
        return np.frombuffer(text.encode().translate(table), dtype=np.uint8)
    return token_of[code_points(text)]


# The rest is plumbing: files, progress, errors.


def pieces(path, doing):
    """Yield a UTF-8 file as strings of about PIECE bytes, with a progress line for a long one."""
    decoder = codecs.getincrementaldecoder('utf-8')()  # keeps a character cut by a piece's end for the next
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        try:
            while data := file.read(PIECE):
                yield decoder.decode(data)
                if size > 10 * PIECE and sys.stdout.isatty():
                    print(f'\r{doing} {path}: {file.tell() / size:4.0%}', end='\r', flush=True)
            yield decoder.decode(b'', final=True)
        except UnicodeDecodeError as e:
            at = file.tell() - len(e.object) + e.start
            fail(f'{path} is not UTF-8 text: byte {e.object[e.start]:#04x} at byte {at:,}; save it as UTF-8')


class NewFiles:
    """The three files, written aside (*.new) and moved into place only when all are whole.

    meta.json moves last and holds a checksum of vocabulary and tokens, so whoever reads the files can
    tell an old set and a new one, both whole, from a mixture that a kill between two moves leaves.
    """

    def __init__(self, vocab, **counts):
        self.meta = {'vocab': vocab}
        self.written = dict.fromkeys(counts, 0)
        for split, count in counts.items():
            self.meta |= {split: count, f'{split}_crc32': zlib.crc32(vocab.encode())}

    def __enter__(self):
        return self

    def reserve(self):
        TOKENS.mkdir(exist_ok=True)
        for split in self.written:
            with open(self.new(split), 'wb') as file:
                size = 2 * self.meta[split]
                if hasattr(os, 'posix_fallocate'):  # a full disk says so here, not as a crash in a memory map
                    os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(size)

    def __exit__(self, *_):
        for path in map(self.new, [*self.written, 'meta']):
            path.unlink(missing_ok=True)

    def new(self, name):
        return TOKENS / ('meta.json.new' if name == 'meta' else f'{name}.bin.new')

    def append(self, split, tokens):
        """Write tokens (T,) behind those already there, through a memory map of just that part."""
        if self.written[split] + len(tokens) > self.meta[split]:
            fail('the text grew while it was read; run python prepare.py again')
        if len(tokens):
            part = np.memmap(self.new(split), '<u2', 'r+', offset=2 * self.written[split], shape=len(tokens))
            part[:] = tokens
            self.meta[f'{split}_crc32'] = zlib.crc32(part, self.meta[f'{split}_crc32'])
            self.written[split] += len(tokens)

    def move_into_place(self):
        if any(self.written[split] != self.meta[split] for split in self.written):
            fail('the text shrank while it was read; run python prepare.py again')
        self.new('meta').write_text(json.dumps(self.meta))
        for name in (*self.written, 'meta'):
            os.replace(self.new(name), self.new(name).with_suffix(''))
        return self.meta


def check(path, count, vocab):
    if count < 2:
        fail(f'{path} is {"empty" if count == 0 else "too short"}: there must be a character to learn and one to test')
    if len(vocab) > 1 << 16:
        fail(f'{path} has {len(vocab):,} distinct characters; a uint16 token can tell apart 65,536')


def fail(message):
    sys.exit(f'prepare.py: {message}')


def main():
    parser = argparse.ArgumentParser(description='Turn a text into tokens for bigramv2.py.', allow_abbrev=False)
    parser.add_argument('text', nargs='?', default='input.txt', help='a UTF-8 text file (default: %(default)s)')
    parser.error = lambda message: parser.exit(2, f'prepare.py: {message}; usage: python prepare.py [TEXT]\n')
    path = parser.parse_args().text
    start = time.perf_counter()
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # it is read twice, which a pipe cannot be
            fail(f'{path} is not a file; name a text file: python prepare.py TEXT')
        meta = prepare(path)
    except FileNotFoundError:
        fail(f'{path} does not exist; name a text file: python prepare.py TEXT')
    except OSError as e:
        fail(f'{e.filename or TOKENS}: {e.strerror}; nothing in {TOKENS}/ was changed')
    except KeyboardInterrupt:
        sys.exit(130)
    vocab = meta['vocab']
    shown = ascii(vocab[:80])[1:-1] + ('' if len(vocab) <= 80 else '...')
    print(f'{path}: {meta["train"] + meta["val"]:,} characters, {len(vocab):,} distinct: {shown}')
    print(f'tokens/train.bin: {meta["train"]:,} tokens\ntokens/val.bin: {meta["val"]:,} tokens')
    print(f'{time.perf_counter() - start:.2f} s. Next: python bigramv2.py')


if __name__ == '__main__':
    main()
