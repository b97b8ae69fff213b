"""One head a module against all heads at once: time of a forward and backward pass, and peak memory.

    python experiments/heads.py      every size that results/heads.csv lacks, each in a process of its own
"""
import math
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

from common import CORES, QUICK, bigramv2, missing, peak, start, torch

TABLE = 'heads.csv'
SIZES = [(12, 128, 128, heads) for heads in (1, 2, 4, 8, 16)]              # B, T, C, H
SIZES += [(12, 128, n_embd, 4) for n_embd in (32, 64, 256)]
SIZES += [(6, 32, 64, heads) for heads in (4, 16)]
WAYS = ('modular', 'formula', 'fused')


def attention(way, n_embd, num_heads, block_size):
    """One of the three ways to compute the same function (tests/test_attention.py holds them to 1e-5)."""
    bigramv2.n_embd, bigramv2.block_size, bigramv2.fused_attention = n_embd, block_size, way == 'fused'
    if way == 'modular':
        return bigramv2.MultiHeadAttention(num_heads, n_embd // num_heads)
    return bigramv2.MultiHeadAttn(num_heads, n_embd, block_size, dropout=0.0)


def milliseconds(ways, B, T, C, H, rounds=2 if QUICK else 100):
    """The median time of a forward and backward pass, for each of the ways, measured in turn."""
    x = torch.randn(B, T, C, requires_grad=True)
    modules = {way: attention(way, C, H, T) for way in ways}
    times = {way: [] for way in ways}
    for _ in range(rounds + 3):
        for way, module in modules.items():
            bigramv2.fused_attention = way == 'fused'
            start = time.perf_counter()
            module(x).sum().backward()
            times[way].append(1000 * (time.perf_counter() - start))
    return {way: statistics.median(times[way][3:]) for way in ways}


def megabytes(way, B, T, C, H):
    """What a forward and backward pass adds to the peak memory of this process, nan where the system does not tell."""
    module, x = attention(way, C, H, T), torch.randn(B, T, C, requires_grad=True)
    module(x[:1, :2]).sum().backward()
    before = peak() or math.nan
    module(x).sum().backward()
    return (peak() or math.nan) - before


def jobs():
    return missing(TABLE, SIZES, *'BTCH')


def main(B, T, C, H):
    """The ways are timed in turn, so that a slow second slows all. Memory is the median of processes of their own."""
    size = tuple(map(int, (B, T, C, H)))
    times = milliseconds(WAYS, *size)
    row = dict(zip('BTCH', size)) | {f'{way}, ms': f'{times[way]:.2f}' for way in WAYS}
    with ProcessPoolExecutor(1, max_tasks_per_child=1) as pool:
        for way in WAYS:
            asked = [pool.submit(megabytes, way, *size) for _ in range(1 if QUICK else 5)]
            row[f'{way}, MB'] = f'{statistics.median(future.result() for future in asked):.1f}'
    return row


if __name__ == '__main__':
    start(__file__, main, TABLE, jobs, at_once=1, threads=CORES)
