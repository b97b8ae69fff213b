"""Exercise 2: swap the attention.

One module per head computes the same function with the same number of weights. The losses are not equal, because the
random weights at the start are dealt out in another order. There is one more difference: Muon now makes the matrix
of each head orthogonal by itself, not the matrix of all heads together. It is slower, because every head makes its
own small products and goes without the fused kernel.
"""
import shared
import torch

EDITS = [('        # self.sa = MultiHeadAttention(', '        self.sa = MultiHeadAttention('),
         ('        self.sa = MultiHeadAttn(', '        # self.sa = MultiHeadAttn(')]


def before():
    return shared.program()


def after():
    return shared.program(*EDITS)


def check(program):
    model = shared.new_model(program)
    kinds = {type(block.sa).__name__ for block in model.blocks}
    assert kinds == {'MultiHeadAttention'}, f'The blocks have {kinds}.'
    count, expected = (sum(p.numel() for p in m.parameters()) for m in (model, shared.new_model(shared.program())))
    assert count == expected, f'{count:,} parameters, not {expected:,}'
    assert model.generate(torch.zeros(1, 1, dtype=torch.long), 5).shape == (1, 6)
    return f'It has {count:,} parameters, as many as with all heads at once.'


def long_check(program, steps=300):
    """The losses of the small training, with this program and with the one that computes all heads at once."""
    check(program)
    losses = []
    for one in program, shared.program(('        self.sa = Multi', '        self.sa = Multi')):
        vars(one).update(shared.SMALL, max_iters=steps)
        losses.append(shared.learn(one)[1][-1][2])
    assert abs(losses[0] - losses[1]) < 0.05, losses
    return 'Validation loss {:.3f} with one module per head, {:.3f} with all heads at once.'.format(*losses)


if __name__ == '__main__':
    shared.main(before, after, check, long_check)
