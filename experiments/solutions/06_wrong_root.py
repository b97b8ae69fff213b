"""Exercise 6: the wrong root.

The scores are sums of D products, so their size grows with the root of D, the size of a head. C is H times as large.
The root of C therefore makes the scores sqrt(H) times too small, which is 2 with 4 heads. The softmax of smaller
scores is flatter: a position can hardly pick one other. Nothing crashes, and training can make up for it with larger
matrices. Only a comparison with an independent implementation finds such a mistake. The fused kernel divides by
itself, so there nothing changes.
"""
import shared
import torch

EDITS = [('k.transpose(-2, -1) * k.shape[-1] ** -0.5      # (B, H, T, D)',
          'k.transpose(-2, -1) * x.shape[-1] ** -0.5      # (B, H, T, D)')]


def before():
    return shared.program()


def after():
    return shared.program(*EDITS)


def check(program):
    def weights(x):  # those of the formula
        seen = []
        hook = attn.attn_dropout.register_forward_hook(lambda module, inputs, out: seen.append(out))
        attn(x)
        hook.remove()
        return seen[0].clamp(min=1e-30).log()  # the score, less a number that is the same for the whole row

    program.fused_attention, heads = False, 4
    attn = shared.shaken(program.MultiHeadAttn(heads, 32, 16, dropout=0.0))
    x = torch.randn(1, 16, 32)
    got = weights(x)
    q, k = (linear(x).view(16, heads, 8).transpose(0, 1) for linear in (attn.query, attn.key))
    right = q @ k.mT / 8 ** 0.5  # D = 8
    ratio = ((got[0, :, -1] - got[0, :, -1, :1]) / (right[:, -1] - right[:, -1, :1]))[:, 1:].median().item()
    assert abs(ratio - heads ** -0.5) < 1e-3, f'The scores are {ratio:.2f} times those of the paper.'
    return f'The scores are {ratio:.2f} times those of the paper: one over the root of {heads} heads.'


if __name__ == '__main__':
    shared.main(before, after, check)
