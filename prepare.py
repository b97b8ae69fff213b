"""Turn a text into tokens: python prepare.py [TEXT]

Each distinct character of the text is one token. Its number is its place among them, in sorted order. The first
90 % of the tokens go to tokens/train.bin and the rest to tokens/val.bin, as little-endian uint16. The vocabulary,
the two counts and checksums go to tokens/meta.json.
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
PIECE = 1 << 18  # bytes of text in memory at a time: so few that they stay in the processor's cache


def prepare(path):
    """Write train.bin, val.bin and meta.json for the UTF-8 text at path. Return what meta.json holds."""
    # First reading: how many characters are there, and which?
    count, seen, seen_ascii = 0, np.zeros(sys.maxunicode + 1, dtype=bool), b''
    for text in pieces(path, 'reading'):
        count += len(text)
        new = text.encode().translate(None, delete=seen_ascii)  # drop the ASCII seen before, which is nearly all
        seen[code_points(new.decode())] = True
        seen_ascii = bytes(np.flatnonzero(seen[:128]).tolist())
    vocab = ''.join(map(chr, np.flatnonzero(seen)))
    check(path, count, vocab)

    # Second reading: each character becomes its place in the vocabulary.
    token_of = np.zeros(len(seen), dtype='<u2')
    token_of[seen] = np.arange(len(vocab))
    tokens = (encode(text, token_of) for text in pieces(path, 'encoding'))
    return write(tokens, vocab, count)


def code_points(text):
    """The Unicode numbers of a string, (T,) uint32."""
    return np.frombuffer(text.encode('utf-32-le'), dtype='<u4')


def encode(text, token_of):
    """The tokens of a string, (T,) uint16: each character is looked up in the table token_of."""
    if text.isascii():  # one byte per character: bytes.translate looks up the same table, eight times as fast
        table = token_of[:256].astype(np.uint8).tobytes()
        return np.frombuffer(text.encode().translate(table), dtype=np.uint8).astype('<u2')
    return token_of[code_points(text)]


# The rest is plumbing: files, progress, errors.

def write(pieces_of_tokens, vocab, count):
    """Write the three files under other names (*.new), and move them into place when all are whole.

    A kill between two moves leaves a mixture of old and new files. meta.json moves last. It holds a checksum over the
    vocabulary and the tokens of each split, so bigramv2.py notices such a mixture.
    """
    n_train, done = count * 9 // 10, 0
    crc = dict.fromkeys(('train', 'val'), zlib.crc32(vocab.encode()))
    TOKENS.mkdir(exist_ok=True)
    new = [TOKENS / f'{name}.new' for name in ('train.bin', 'val.bin', 'meta.json')]
    try:
        with open(new[0], 'wb') as train, open(new[1], 'wb') as val:
            for tokens in pieces_of_tokens:  # (T,)
                cut = max(n_train - done, 0)
                for split, file, part in (('train', train, tokens[:cut]), ('val', val, tokens[cut:])):
                    file.write(part)
                    crc[split] = zlib.crc32(part, crc[split])
                done += len(tokens)
        if done != count:
            fail('the text changed while it was read; run python prepare.py again')
        meta = {'vocab': vocab, 'train': n_train, 'val': count - n_train, 'train_crc32': crc['train'],
                'val_crc32': crc['val']}
        new[2].write_text(json.dumps(meta))
        for path in new:
            os.replace(path, path.with_suffix(''))
        return meta
    finally:
        for path in new:
            path.unlink(missing_ok=True)


def pieces(path, doing):
    """Yield a UTF-8 file as strings of about PIECE bytes, with a progress line for a long one."""
    decoder = codecs.getincrementaldecoder('utf-8')()  # keeps the beginning of a character that a piece cuts in two
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        try:
            while data := file.read(PIECE):
                yield decoder.decode(data)
                if size > 10 ** 7 and sys.stdout.isatty():
                    print(f'{doing} {path}: {file.tell() / size:4.0%}', end='\r', flush=True)
            yield decoder.decode(b'', final=True)
        except UnicodeDecodeError as e:
            at = file.tell() - len(e.object) + e.start
            fail(f'{path} is not UTF-8 text: byte {e.object[e.start]:#04x} at byte {at:,}; save it as UTF-8')


def check(path, count, vocab):
    if count < 2:
        fail(f'{path} is {"empty" if count == 0 else "too short"}: it needs a character to learn and one to test')
    if len(vocab) > 1 << 16:
        fail(f'{path} has {len(vocab):,} distinct characters; a uint16 token can tell 65,536 apart')


def fail(message):
    sys.exit(one_line(message))


def one_line(message):
    return f'prepare.py: {" ".join(message.split())}'  # even where a path contains a line end


def main():
    parser = argparse.ArgumentParser(description='Turn a text into tokens for bigramv2.py.', allow_abbrev=False)
    parser.add_argument('text', nargs='?', default='input.txt', help='a UTF-8 text file (default: %(default)s)')
    parser.error = lambda message: parser.exit(2, one_line(f'{message}; usage: python prepare.py [TEXT]') + '\n')
    path, start = parser.parse_args().text, time.perf_counter()
    if hasattr(sys.stdout, 'reconfigure'):  # IDLE's lacks it
        sys.stdout.reconfigure(errors='backslashreplace')  # a terminal may lack some of the text's characters
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # it is read twice, and a pipe cannot be
            fail(f'{path} is not a file; name a text file: python prepare.py TEXT')
        meta = prepare(path)
    except FileNotFoundError:
        fail(f'{path} does not exist; name a text file: python prepare.py TEXT')
    except OSError as e:
        fail(f'{e.filename or TOKENS}: {e.strerror}; no file in {TOKENS}/ is half written')
    vocab = meta['vocab']
    shown = repr(vocab[:80])[1:-1] + ('' if len(vocab) <= 80 else '...')
    print(f'{path}: {meta["train"] + meta["val"]:,} characters, {len(vocab):,} distinct: {shown}\n'
          f'tokens/train.bin: {meta["train"]:,} tokens\ntokens/val.bin: {meta["val"]:,} tokens\n'
          f'{time.perf_counter() - start:.2f} s. Next: python bigramv2.py', flush=True)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        print(one_line('Stopped'), file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the program that read the output has ended
        os._exit(1)

# What `uv run prepare.py` installs:
# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=1.26,<3"]
# ///
