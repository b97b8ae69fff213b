"""Exercise 13: rotary embeddings (Su et al. 2021).

The query at position m is turned by the angle m w, and the key at position n by n w. So their product depends on
(m - n) w only, and a head learns "three back" once for all places. In the small training the validation loss is 1.71
in place of 1.76. The cache stores keys that are turned already. That is right as long as they keep their place in the
window. When the window starts again from its last half, the cache starts again too. The new keys of a step begin at
the position `past`, so the function needs it. Values are not turned.

The tests that compare MultiHeadAttn and Block with torch's own layers fail now, and so do those of the waves and
test_the_same_character_elsewhere_is_something_else. In a text of one repeated character all values are equal, and then
no weights can tell one position from another.
"""
import shared
import torch

TURN = '''\
def turn(x, past):
    """Turn each pair of channels of x (B, H, T, D) by an angle that grows with the position."""
    T, D = x.shape[-2:]
    speed = 10000 ** (-torch.arange(0, D, 2, device=x.device) / D)              # (D / 2,)
    angle = torch.arange(past, past + T, device=x.device)[:, None] * speed      # (T, D / 2)
    a, b = x.chunk(2, dim=-1)                                                   # (B, H, T, D / 2) each
    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), dim=-1)


'''
EDITS = [('class MultiHeadAttn(nn.Module):', TURN + 'class MultiHeadAttn(nn.Module):'),
         ('        S = past + T  ', '        q, k = turn(q, past), turn(k, past)\n        S = past + T  '),
         ('        self.position_embedding = nn.Embedding.from_pretrained(waves, freeze=False)\n', ''),
         ('        positions = self.position_embedding.weight[past:past + idx.shape[1]]         # (T, C)\n', ''),
         ('x = self.token_embedding(idx) + positions ', 'x = self.token_embedding(idx) ')]


def before():
    return shared.program()


def after():
    return shared.program(*EDITS)


def check(program):
    program.fused_attention, seen = False, []
    model = shared.shaken(shared.new_model(program))
    model.blocks[0].sa.attn_dropout.register_forward_hook(lambda module, inputs, out: seen.append(out))
    model(torch.zeros(1, program.block_size, dtype=torch.long))  # one character, repeated
    weights = seen[0][0].log()                                   # (H, T, T): the scores, but for a number in each row
    scores = weights - weights.diagonal(dim1=-2, dim2=-1)[..., None]
    for back in range(1, 20):
        diagonal = scores.diagonal(offset=-back, dim1=-2, dim2=-1)
        spread = (diagonal.amax(dim=-1) - diagonal.amin(dim=-1)).max().item()
        assert spread < 1e-2, f'The score of a position {back} back differs from place to place, by up to {spread:.2f}.'
    assert scores.diagonal(offset=-1, dim1=-2, dim2=-1).abs().max() > 0.05, 'The score does not depend on the distance.'

    texts = []
    for program.kv_cache in (True, False):
        torch.manual_seed(1)
        texts.append(model.generate(torch.zeros(1, 1, dtype=torch.long), 2 * program.block_size))
    assert torch.equal(*texts), 'With the cache it writes another text than without.'
    return 'The score depends only on how far back a position is, and the cache changes nothing.'


def long_check(program, steps=1000, below=1.73):
    vars(program).update(shared.SMALL, max_iters=steps)
    val = shared.learn(program)[1][-1][2]
    assert val < below, f'The validation loss is {val:.3f} after {steps} steps.'
    return f'The validation loss is {val:.3f} after {steps} steps.'


if __name__ == '__main__':
    shared.main(before, after, check, long_check)
