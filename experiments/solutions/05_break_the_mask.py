"""Exercise 5: break the mask.

The mask works before the softmax, and the softmax takes e to the power of each score. e^-inf is 0, so a later position
gets no weight. But e^0 is 1, so a later position gets as much weight as an earlier one with score 0. The
model then reads the characters that it is asked for. In the small training the validation loss falls to 1.2 in place of
2.0, and it would fall on. This is a leak and no success: a model that writes has no later characters to read.
"""
import shared
import torch

EDITS = [("masked_fill(~mask, float('-inf'))", 'masked_fill(~mask, 0.0)')]


def before():
    return shared.program()


def after():
    return shared.program(*EDITS)


def leak(program, fused):
    """How much the outputs at positions 0 to 7 change when the input changes from position 8 on."""
    program.fused_attention = fused
    attn = shared.shaken(program.MultiHeadAttn(4, 32, 16, dropout=0.0))
    x = torch.randn(1, 16, 32)
    changed = torch.cat((x[:, :8], torch.randn(1, 8, 32)), dim=1)
    return (attn(x) - attn(changed))[:, :8].abs().max().item()


def check(program):
    formula, kernel = leak(program, fused=False), leak(program, fused=True)
    assert formula > 0.01, 'In the formula, no position sees a later one.'
    assert kernel < 1e-5, 'The fused kernel has a mask of its own, which should still work.'
    return f'A change of later positions moves the earlier outputs by {formula:.1f} in the formula, by 0 in the kernel.'


def long_check(program, steps=300):
    vars(program).update(shared.SMALL, fused_attention=False, max_iters=steps)
    val = shared.learn(program)[1][-1][2]
    assert val < 1.5, f'The validation loss is {val:.2f}, as of a model that cannot see what comes.'
    return f'After {steps} steps the validation loss is {val:.2f}: too good to be true.'


if __name__ == '__main__':
    shared.main(before, after, check, long_check)
