"""Exercise 8: a schedule of your own.

With p = step / max_iters, the share of the full rate is (1 + cos(pi p)) / 2. It falls slowly at first, fastest in
the middle, and slowly again at the end. The smaller of this and the rising line of the warm-up is the share.
"""
import math

import shared

EDITS = [('return min((step + 1) / (warmup_iters + 1), 1 - step / max_iters)',
          'return min((step + 1) / (warmup_iters + 1), (1 + np.cos(np.pi * step / max_iters)) / 2)')]


def before():
    return shared.program()


def after():
    return shared.program(*EDITS)


def check(program):
    program.max_iters, program.warmup_iters = 1000, 10
    for step in range(10):
        assert abs(program.lr_scale(step) - (step + 1) / 11) < 1e-3, f'At step {step} the warm-up has changed.'
    for step in range(100, 1001, 100):
        got, expected = program.lr_scale(step), (1 + math.cos(math.pi * step / 1000)) / 2
        assert abs(got - expected) < 1e-6, f'At step {step} of 1000 the share is {got:.3f}, not {expected:.3f}.'
    quarter, half = program.lr_scale(250), program.lr_scale(500)
    return f'The share is {quarter:.3f} after a quarter of the steps, {half:.3f} after a half.'


if __name__ == '__main__':
    shared.main(before, after, check)
