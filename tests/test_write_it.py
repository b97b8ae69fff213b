"""Write it yourself: what a learner gets, that right parts pass in whatever way, and that mistakes are named."""
import ast
import itertools
import sys
import textwrap

import pytest
from conftest import ROOT, good, run

sys.path.insert(0, str(ROOT / 'experiments'))
import write_it  # noqa: E402

README = (ROOT / 'README.md').read_text(encoding='utf-8')
PARTS = {part.name: part for part in write_it.PARTS}
OUTLINES = {chapter: write_it.outline(chapter, 'python experiments/write_it.py') for chapter in write_it.CHAPTERS}


def mine(chapter=1, **bodies):
    """The learner's file with these bodies below their outlines."""
    source = OUTLINES[chapter]
    for name, body in bodies.items():
        node, lines = write_it.functions(source)[PARTS[name].path], source.splitlines()
        assert lines[node.end_lineno - 1].strip() == 'raise NotImplementedError'
        lines[node.end_lineno - 1] = textwrap.indent(body.strip('\n'), ' ' * node.body[0].col_offset)
        source = '\n'.join(lines)
    return source


def complete(chapter):
    """The learner's file with all answers."""
    parts = write_it.parts_of(chapter)
    return mine(chapter, **{part.name: textwrap.dedent(write_it.answer(part)) for part in parts})


def checked(name, body):
    return write_it.check(PARTS[name], mine(PARTS[name].chapter, **{name: body}))


# For each part two right ways other than the script's, and mistakes: the first way with some text replaced, and words
# that the sentence must have.

WAYS = {
    'read': ["""
with open(path, encoding='utf-8-sig') as f:
    characters = list(f.read())
vocab = sorted(set(characters))
numbers = []
for c in characters:
    numbers.append(vocab.index(c))
return vocab, torch.tensor(numbers)
""", """
with open(path, 'rb') as f:
    text = f.read().decode('utf-8-sig').replace('\\r\\n', '\\n')
vocab = ''.join(sorted(dict.fromkeys(text)))
return [vocab, torch.LongTensor([vocab.find(c) for c in text])]
"""],
    'get_batch': ["""
starts = torch.randint(0, len(data) - block_size, (batch_size, 1))
places = starts + torch.arange(block_size)
return data[places].to(device), data[places + 1].to(device)
""", """
import random
x = torch.empty(batch_size, block_size, dtype=torch.long)
y = torch.empty_like(x)
for b in range(batch_size):
    start = random.randrange(len(data) - block_size)
    x[b] = data[start:start + block_size]
    y[b] = data[start + 1:start + 1 + block_size]
return x.to(device), y.to(device)
"""],
    'count_pairs': ["""
counts = torch.ones(vocab_size, vocab_size)
for i in range(len(data) - 1):
    counts[data[i], data[i + 1]] += 1
return torch.log(counts / counts.sum(1, keepdim=True))
""", """
pairs = data[:-1] * vocab_size + data[1:]
return (torch.bincount(pairs, minlength=vocab_size ** 2) + 1.0).log().view(vocab_size, vocab_size)  # the same softmax
"""],
    'Head': ["""
B, T, C = x.shape
q, k, v = self.query(x), self.key(x), self.value(x)
scores = torch.einsum('btd,bsd->bts', q, k) / k.shape[-1] ** 0.5
later = torch.tril(torch.ones(T, T, device=x.device)) == 0
scores = scores.masked_fill(later, float('-inf'))
weights = torch.softmax(scores, dim=2)
weights = self.dropout(weights)
return torch.einsum('bts,bsd->btd', weights, v)
""", """
q = self.query(x) / self.query.out_features ** 0.5
k, v, out = self.key(x), x @ self.value.weight.T, []
for t in range(x.shape[1]):
    weights = (k[:, :t + 1] @ q[:, t, :, None]).exp()
    weights = F.dropout(weights / weights.sum(1, keepdim=True), self.dropout.p, self.training)
    out.append((weights * v[:, :t + 1]).sum(1))
return torch.stack(out, dim=1)
"""],
    'MultiHeadAttention': ["""
results = []
for head in self.heads:
    results.append(head(x))
joined = torch.cat(results, 2)
joined = self.proj(joined)
return self.dropout(joined)
""", """
out, D = self.proj.bias, self.proj.in_features // len(self.heads)
for i, head in enumerate(self.heads):
    out = out + head(x) @ self.proj.weight[:, i * D:(i + 1) * D].T
return F.dropout(out, dropout, self.training)
"""],
    'FeedForward': ["""
hidden = self.fc(x)
hidden = hidden.clamp(min=0)
out = self.proj(hidden)
return self.dropout(out)
""", """
hidden = F.linear(x, self.fc.weight, self.fc.bias)
return self.dropout((hidden * (hidden > 0)) @ self.proj.weight.T + self.proj.bias)
"""],
    'Block': ["""
attended = x + self.sa(self.ln1(x))
done = attended + self.ffwd(self.ln2(attended))
return done
""", """
for part, norm in ((self.sa, self.ln1), (self.ffwd, self.ln2)):
    centred = x - x.mean(-1, keepdim=True)
    x = part(norm.weight * centred / (centred.square().mean(-1, keepdim=True) + norm.eps) ** 0.5 + norm.bias) + x
return x
"""],
    'GPT': ["""
B, T = idx.shape
x = self.token_embedding(idx)
x = x + self.position_embedding.weight[:T]
for block in self.blocks:
    x = block(x)
x = self.ln(x)
logits = self.head(x)
loss = None
if targets is not None:
    loss = F.cross_entropy(logits.view(B * T, -1), targets.view(B * T))
return logits, loss
""", """
places = torch.arange(idx.shape[1], device=idx.device).expand_as(idx)
logits = self.head(self.ln(self.blocks(self.position_embedding(places) + self.token_embedding.weight[idx])))
if targets is None:
    return logits, None
right = logits.log_softmax(dim=2).gather(2, targets[:, :, None])
return logits, -right.mean()
"""],
    'train_step': ["""
optimizer.zero_grad()
logits, loss = model(x, y)
loss.backward()
optimizer.step()
return loss
""", """
loss = model.forward(x, targets=y)[1]
loss.backward()
optimizer.step()
optimizer.zero_grad()  # for the next step
return loss.item()
"""],
    'generate': ["""
for _ in range(max_new_tokens):
    seen = idx[:, -block_size:]
    logits = self(seen)[0][:, -1, :]
    new = torch.distributions.Categorical(logits=logits).sample()
    idx = torch.hstack((idx, new[:, None]))
return idx
""", """
B, T = idx.shape
out = torch.zeros(B, T + max_new_tokens, dtype=torch.long)
out[:, :T] = idx
for t in range(T, T + max_new_tokens):
    logits, loss = self.forward(out[:, max(0, t - block_size):t])
    share = logits[:, -1].exp().cumsum(1)
    out[:, t] = (share < torch.rand(B, 1) * share[:, -1:]).sum(1)
return out
"""],
    'windows': ["""
x = np.stack([data[start:start + block_size] for start in starts]).astype(np.int64)
y = np.stack([data[start + 1:start + block_size + 1] for start in starts]).astype(np.int64)
x, y = torch.from_numpy(x), torch.from_numpy(y)
return x.to(device), y.to(device)
""", """
every = np.lib.stride_tricks.sliding_window_view(data, block_size + 1)
chosen = torch.tensor(every[starts].astype('int64'), device=device)
return [chosen[:, :block_size], chosen[:, 1:]]
"""],
    'MultiHeadAttn': ["""
B, T, C = x.shape
D = C // self.num_heads
q = self.query(x).view(B, T, self.num_heads, D).transpose(1, 2)
k = self.key(x).view(B, T, self.num_heads, D).transpose(1, 2)
v = self.value(x).view(B, T, self.num_heads, D).transpose(1, 2)
if cache is not None:
    cache[0, :, :, past:past + T] = k
    cache[1, :, :, past:past + T] = v
    k, v = cache[:, :, :, :past + T]
scores = torch.einsum('bhtd,bhsd->bhts', q, k) / D ** 0.5
scores = scores + torch.full((T, past + T), float('-inf')).triu(past + 1)
weights = self.attn_dropout(scores.softmax(dim=3))
out = weights @ v
out = out.permute(0, 2, 1, 3).flatten(2)
return self.dropout(self.proj(out))
""", """
q, k, v = (layer(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value))
if past:
    k = torch.cat((cache[0, :, :, :past], k), dim=2)
    v = torch.cat((cache[1, :, :, :past], v), dim=2)
if cache is not None:
    cache[:, :, :, :k.shape[2]] = torch.stack((k, v))
mask = self.tril[past:k.shape[2], :k.shape[2]]
out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.attn_dropout.p if self.training else 0)
return self.dropout(self.proj(out.transpose(1, 2).flatten(2)))
"""],
    'draw': ["""
if temperature < 1e-9:
    return logits.argmax(1, keepdim=True)
if 0 < top_k < logits.shape[1]:
    least = logits.topk(top_k).values[:, -1:]
    logits = logits.masked_fill(logits < least, float('-inf'))
probs = F.softmax(logits / temperature, dim=1)
return torch.multinomial(probs, 1)
""", """
if temperature == 0:
    top_k, temperature = 1, 1.0
order = logits.argsort(dim=1, descending=True)[:, :top_k or None]
new = torch.distributions.Categorical(logits=logits.gather(1, order) / temperature).sample()
return order.gather(1, new[:, None])
"""],
    'orthogonalize': ["""
x = g / (g.norm() + 1e-7)
for step in range(5):
    a = x @ x.T
    x = 3.4445 * x - 4.7750 * a @ x + 2.0315 * a @ a @ x
return x
""", """
x = g / (g.square().sum() + 1e-9) ** 0.5
tall = len(x) > len(x[0])
x = x.T if tall else x
for step in range(5):
    cube = x @ (x.T @ x)
    x = 3.4445 * x - 4.7750 * cube + 2.0315 * cube @ (x.T @ x)
return x.T if tall else x
"""],
    'lr_scale': ["""
up = (step + 1) / (warmup_iters + 1)
down = 1 - step / max_iters
return min(up, down)
""", """
down = (max_iters - step) / max_iters
if step < warmup_iters:
    return torch.tensor([down, (step + 1) / (warmup_iters + 1)]).min()
return down
"""],
}
MISTAKES = {
    'read': [
        ('sorted(set(characters))', 'list(dict.fromkeys(characters))', 'not sorted'),
        ('sorted(set(characters))', 'sorted(characters)', 'a character more than once'),
        ('utf-8-sig', 'utf-8', 'byte order mark'),
        ('vocab.index(c)', 'vocab.index(c) + 1', 'begin at 1'),
        ('vocab.index(c)', 'ord(c)', 'Unicode number'),
        ('f.read()', 'f.read().strip()', 'around the text are lost'),
        ('torch.tensor(numbers)', 'numbers', 'tokens is a list, and should be a tensor'),
        ('torch.tensor(numbers)', 'torch.tensor(numbers, dtype=torch.float)', 'dtype of tokens is torch.float32'),
        ("encoding='utf-8-sig'", "encoding='utf-8-sig', newline=''", 'a line end of two characters'),
    ],
    'get_batch': [
        ('data[places + 1]', 'data[places]', 'the target is the input itself, not the next character'),
        ('- block_size, ', '- 1, ', 'where 11 is the last place with room for T + 1'),
        ('- block_size, ', '- block_size - 1, ', 'the last place where a piece can start never comes'),
        ('randint(0', 'randint(1', 'the first place of the text never comes'),
        ('(batch_size, 1))', '(1, 1)).expand(batch_size, 1)', 'the same one'),
        ('(batch_size, 1)', '(1, 1)', 'the shape of x is (1, 8), and should be (5, 8)'),
        ('.to(device)', '', 'not on the device'),
        ('data[places].to(device), data[places + 1]', 'data[places + 1].to(device), data[places]', 'exchanged'),
        ('places + 1', 'places + 2', 'IndexError'),
    ],
    'count_pairs': [
        ('ones', 'zeros', 'counts start at 0'),
        ('data[i], data[i + 1]', 'data[i + 1], data[i]', 'rows and columns are exchanged'),
        ('sum(1', 'sum(0', 'the columns sum to 1, not the rows'),
        (', keepdim=True', '', 'keepdim=True is missing'),
        ('torch.log', '', 'probabilities, not logits'),
        ('in range(len(data) - 1)', 'in range(len(data))', 'IndexError'),
    ],
    'Head': [
        (' / k.shape[-1] ** 0.5', '', 'not divided by the root of D'),
        ('/ k.shape[-1] ** 0.5', '/ k.shape[-1]', 'divided by D, not by its root'),
        ('k.shape[-1] **', 'C **', 'divided by the root of C, not of D'),
        ("later, float('-inf')", "later & False, float('-inf')", 'position 0 sees position 1: the mask is missing'),
        ('== 0', '== 1', 'the mask hides the position itself'),
        ('T, T, device=x.device)', 'T, T), 1', 'position 0 sees position 1, which comes later'),
        ("float('-inf')", '0.0', 'later positions get the score 0'),
        ('dim=2', 'dim=1', 'the softmax goes along the wrong dimension: the columns sum to 1'),
        ('torch.softmax(scores, dim=2)', 'scores', 'the softmax is missing'),
        ('torch.softmax(scores, dim=2)', 'scores.exp() / T', 'the rows of the weights do not sum to 1: row 0 sums to'),
        ("d->bts', q", "d->bst', q", 'queries and keys are exchanged'),
        ('weights, v', 'weights, k', 'average the keys, not the values'),
        ('self.dropout(weights)', 'weights', 'dropout of the weights is missing'),
        ("masked_fill(later, float('-inf'))\nweights = torch.softmax(scores, dim=2)",
         'clone()\nweights = torch.softmax(scores, dim=2).masked_fill(later, 0)',
         'the mask comes after the softmax, so the rows do not sum to 1'),
        ('later = torch.tril(torch.ones(T, T, device=x.device)) == 0', 'later = ~self.tril', 'corner [:T, :T]'),
        ("'bts,bsd->btd', weights, v", "'bts->bts', weights", 'result is (2, 8, 8), and should be (2, 8, 4)'),
        (' / k.shape[-1] ** 0.5', ' / 3', 'should be'),
    ],
    'MultiHeadAttention': [
        ('torch.cat(results, 2)', 'sum(results)', 'the heads are summed'),
        ('torch.cat(results, 2)', 'results[0]', 'only the first head'),
        ('torch.cat(results, 2)', 'torch.stack(results, 3).flatten(2)', 'the channels of the heads are mixed'),
        ('self.proj(joined)', 'joined', 'the projection is missing'),
        ('self.dropout(joined)', 'joined', 'dropout is missing'),
        ('self.proj(joined)', 'self.proj(self.dropout(joined))', 'in training, where dropout acts'),
        ('return self', 'return x + self', 'the work of Block'),
        ('torch.cat(results, 2)', 'torch.cat(results, 1)', 'RuntimeError: mat1 and mat2 shapes cannot be multiplied'),
    ],
    'FeedForward': [
        ('hidden = hidden.clamp(min=0)\n', '', 'there is no ReLU'),
        ('hidden.clamp(min=0)', 'F.gelu(hidden)', 'a GELU'),
        ('self.proj(hidden)', 'hidden', 'the projection is missing (the shape of result is (2, 8, 48)'),
        ('self.dropout(out)', 'out', 'dropout is missing'),
        ('hidden = hidden.clamp(min=0)\nout = self.proj(hidden)', 'out = self.proj(hidden).clamp(min=0)',
         'the ReLU comes after the projection'),
        ('return ', 'return x + ', 'the work of Block'),
        ('min=0', 'min=0.1', 'should be'),
    ],
    'Block': [
        ('x + self.sa', 'self.sa', 'the stream is replaced by what attention gives, not added to'),
        ('attended + self.ffwd', 'self.ffwd', 'the stream is replaced by what feed-forward gives, not added to'),
        ('self.ln1(x)', 'x', 'ln1, is missing'),
        ('self.ln2(attended)', 'attended', 'ln2, is missing'),
        ('x + self.sa(self.ln1(x))', 'self.ln1(x) + self.sa(self.ln1(x))', 'ln1 normalises the stream itself'),
        ('attended + self.ffwd', 'x + self.ffwd', 'the result of attention is lost'),
        ('self.ln2', 'self.ln1', 'ln1 is used twice'),
        ('self.ln2(attended)', 'self.ln2(x)', 'feed-forward reads the stream from before attention'),
        ('attended = x + self.sa(self.ln1(x))', 'x += self.sa(self.ln1(x))\nattended = x', 'it changes the tensor'),
        ('done = attended + self.ffwd(self.ln2(attended))\nreturn done',
         'attended += self.ffwd(self.ln2(attended))\nreturn attended', 'write x = x + ...'),
        ('x + self.sa(self.ln1(x))', 'x', 'attention is missing'),
        (' + self.ffwd(self.ln2(attended))', '', 'feed-forward is missing'),
        ('x + self.sa(self.ln1(x))\ndone = attended + self.ffwd(self.ln2(attended))',
         'self.ln1(x + self.sa(x))\ndone = self.ln2(attended + self.ffwd(attended))',
         'before attention, on a copy; ln2 comes after the addition'),
    ],
    'GPT': [
        (' + self.position_embedding.weight[:T]', '', 'the position embedding is not added'),
        ('weight[:T]', 'weight', 'there are block_size positions'),
        ('self.position_embedding.weight[:T]', 'self.position_embedding(torch.arange(T))', 'positions are on the CPU'),
        ('    x = block(x)', '    block(x)', 'the blocks are missing'),
        ('x = self.ln(x)', '', 'the last norm, ln, is missing'),
        ('logits.view', 'logits.softmax(-1).view', 'a softmax comes before F.cross_entropy'),
        ('if targets is not None:', 'if True:', '(without targets, where the loss is None)'),
        ('return logits, loss', 'return loss, logits', 'logits and loss are exchanged'),
        ('return logits, loss', 'return logits', 'it returns a Tensor, and should return logits, loss'),
        ('targets.view(B * T)', "targets.view(B * T), reduction='sum'", 'the loss is a sum'),
        ('x = block(x)', 'x = x + block(x)', 'should be'),
    ],
    'train_step': [
        ('optimizer.zero_grad()\n', '', 'zero_grad() is missing'),
        ('loss.backward()\n', '', 'loss.backward() is missing'),
        ('optimizer.step()\n', '', 'optimizer.step() is missing'),
        ('loss.backward()\noptimizer.step()', 'optimizer.step()\nloss.backward()', 'comes before loss.backward()'),
        ('optimizer.zero_grad()\nlogits, loss = model(x, y)\nloss.backward()',
         'logits, loss = model(x, y)\nloss.backward()\noptimizer.zero_grad()', 'between backward() and step()'),
        ('return loss', '', 'loss is None'),
        ('return loss', 'return logits', 'should return the loss'),
        ('model(x, y)', 'model(x, x)', 'the targets are the inputs'),
        ('model(x, y)', 'model(x)', "AttributeError: 'NoneType' object has no attribute 'backward'"),
    ],
    'generate': [
        ('[:, -1, :]', '[:, 0, :]', 'the first position is taken'),
        ('idx[:, -block_size:]', 'idx', 'more than the last block_size tokens'),
        ('-block_size:', ':block_size', 'the first block_size tokens'),
        ('torch.distributions.Categorical(logits=logits).sample()', 'logits.argmax(1)', 'the likeliest token is taken'),
        ('torch.hstack((idx, new[:, None]))', 'new[:, None]', 'the new token replaces the text'),
        ('(idx, new[:, None])', '(new[:, None], idx)', 'before the text'),
        ('return idx', 'return idx[:, -max_new_tokens:]', 'only the new tokens are returned'),
        ('\nreturn', '\n    return', 'the shape of result is (2, 4), and should be (2, 15)'),
        ('seen = idx', 'seen = idx = idx', 'the beginning of the text is lost'),
        ('torch.distributions.Categorical(logits=logits).sample()', 'torch.multinomial(logits, 1)[:, 0]',
         'the softmax is missing'),
        ('Categorical(logits=logits)', 'Categorical(logits=2 * logits)', 'share[0] is '),
    ],
    'windows': [
        ('start + 1:start + block_size + 1', 'start:start + block_size', 'the target is the input itself'),
        ('return x.to(device), y.to(device)', 'return y.to(device), x.to(device)', 'exchanged'),
        ('.astype(np.int64)', '', 'uint16'),
        ('.to(device)', '', 'not on the device'),
        ('start + block_size]', 'start + block_size - 1]', 'the shape of x is (3, 7), and should be (3, 8)'),
        ('return x.to(device), y.to(device)', 'return x.to(device)', 'it returns a Tensor, and should return x, y'),
    ],
    'MultiHeadAttn': [
        ('.view(B, T, self.num_heads, D).transpose(1, 2)', '.view(B, self.num_heads, T, D)', 'the view cuts wrongly'),
        ('out.permute(0, 2, 1, 3).flatten(2)', 'out.reshape(B, T, C)', 'transpose(1, 2) is missing'),
        (' / D ** 0.5', '', 'not divided by the root of D'),
        ('D ** 0.5', 'C ** 0.5', 'divided by the root of C'),
        ("float('-inf')).triu", '0.0).triu', 'position 0 sees position 1: the mask is missing'),
        ('triu(past + 1)', 'triu(1)', 'with a cache, the mask begins at the wrong row'),
        ('triu(past + 1)', 'triu(past + 2)', 'position 0 sees position 1, which comes later'),
        ('self.proj(out)', 'out', 'the projection is missing'),
        ('self.attn_dropout(scores.softmax(dim=3))', 'scores.softmax(dim=3)', 'dropout of the weights is missing'),
        ('self.dropout(self.proj(out))', 'self.proj(out)', 'dropout after the projection is missing'),
        ('if cache is not None:', 'if cache is not None:\n    cache = cache.clone()', 'not stored in the cache'),
        ('if cache is not None:', 'past = 0\nif False:', 'it is right without a cache'),
    ],
    'draw': [
        ('logits / temperature', 'logits', 'the temperature changes nothing'),
        ('/ temperature', '* temperature', 'multiplied by the temperature'),
        ('temperature < 1e-9', 'False', 'at temperature 0 the likeliest'),
        ('0 < top_k <', '0 > top_k <', 'top_k is not used'),
        ('0 < top_k <', 'top_k <', 'top_k 0 (all tokens)'),
        (' < logits.shape[1]', '', 'top_k may be larger than V'),
        ('torch.multinomial(probs, 1)', 'probs.argmax(1, keepdim=True)', 'argmax'),
        ('torch.multinomial(probs, 1)', 'torch.multinomial(probs, 1)[:, 0]', 'the shape of result is (3000,)'),
    ],
    'orthogonalize': [
        (' / (g.norm() + 1e-7)', '', 'not divided by its norm'),
        (' + 1e-7', '', 'a g of zeros is divided by 0'),
        ('range(5)', 'range(4)', 'the number of steps is 4'),
        ('range(5)', 'range(6)', 'the number of steps is 6'),
        ('return x', 'return x.T', 'the shape of result is (6, 3), and should be (3, 6)'),
        ('- 4.7750', '+ 4.7750', 'no finite number'),
        ('3.4445 * x ', '', 'no finite number'),
        (' + 2.0315 * a @ a @ x', '', 'leaves out 2.0315 a @ a'),
        ('x = g /', 'g /= g.norm()\nx = g /', 'it changes the tensor'),
    ],
    'lr_scale': [
        ('(step + 1)', 'step', 'the rate of step 0 is 0'),
        ('(warmup_iters + 1)', 'max(1, warmup_iters)', 'should be'),
        ('min(', 'max(', 'the larger'),
        ('min(up, down)', 'down', 'the warm-up is missing'),
        ('min(up, down)', 'min(up, 1)', 'the rate does not fall'),
        ('min(up, down)', 'min(up, 1) * down', 'multiplied'),
        ('return ', '', 'it returns None'),
    ],
}


@pytest.mark.parametrize('name', PARTS)
def test_any_right_way_passes(name):
    for way in [textwrap.dedent(write_it.answer(PARTS[name])), *WAYS[name]]:
        assert checked(name, way) == (None, None)


@pytest.mark.parametrize('name', PARTS)
def test_mistakes_are_named(name):
    assert len(MISTAKES[name]) >= 5
    for old, new, words in MISTAKES[name]:
        assert old in WAYS[name][0]
        sentence, _ = checked(name, WAYS[name][0].replace(old, new))
        assert sentence and words in sentence, (words, sentence)


@pytest.mark.parametrize('name', PARTS)
def test_no_two_known_mistakes_of_a_part_give_the_same(name):
    part, found = PARTS[name], [write_it.right_results(PARTS[name])]
    for mistake in part.mistakes:
        module = write_it.spoilt(part, (mistake,))
        assert module, f'{part.path} has not all of {mistake[1::2]}'
        found += [dict(write_it.results(part, module))] if mistake[0] else []
    for one, other in itertools.permutations(found, 2):
        assert any(write_it.difference(one[label], other[label]) for label in one)


@pytest.mark.parametrize('name, edits, words', [
    ('Head', [(' / k.shape[-1] ** 0.5', ''), ('self.dropout(weights)', 'weights')],
     'the scores are not divided by the root of D; dropout of the weights is missing'),
    ('FeedForward', [('self.proj(hidden)', 'hidden'), ('self.dropout(out)', 'out')],
     'dropout is missing; the projection is missing (the shape of result is (2, 8, 48), and should be (2, 8, 12))'),
    ('MultiHeadAttn', [('if cache is not None:', 'past = 0\nif False:'),
                       ('self.attn_dropout(', '(nn.Identity() if fused_attention else self.attn_dropout)(')],
     'dropout is wrong: it is on the weights (kernel: dropout_p or whole keys) and after the projection'),
])
def test_two_mistakes_at_once_are_both_named(name, edits, words):
    body = WAYS[name][0]
    for old, new in edits:
        body = body.replace(old, new)
    assert checked(name, body) == (words, None)


def test_a_part_is_checked_by_itself():
    wrong = {name: 'return None' for name in PARTS if PARTS[name].chapter == 1}
    for name in wrong:
        assert write_it.check(PARTS[name], mine(**wrong | {name: WAYS[name][0]})) == (None, None)


@pytest.mark.parametrize('body, words', [
    ('', 'NotImplementedError is still there'),
    ('pass', 'result is None, and should be a tensor'),
    ('return 1, 2', 'result is a tuple, and should be a tensor'),
    ('return quiery', "NameError: name 'quiery' is not defined"),
    ('return self.keys(x)', "AttributeError: 'Head' object has no attribute 'keys'"),
    ('raise SystemExit("enough")', 'SystemExit: enough'),
    ('return self.forward(x)', 'RecursionError'),
    ('return input()', 'reading from stdin'),
    ('return self.value(x).double()', 'the dtype of result is torch.float64'),
    ('return self.value(x).detach() * float("nan")', 'no finite number'),
])
def test_errors_of_the_learner_are_told_as_his(body, words):
    source = mine(Head=f'x = x\n{body}' + '\nraise NotImplementedError' * (not body))
    sentence, line = write_it.check(PARTS['Head'], source)
    assert words in sentence
    if 'Error:' in sentence or 'still there' in sentence:
        assert source.splitlines()[line - 1].strip() in (body, 'raise NotImplementedError')


# The learner's file

def lines_of(source, path):
    node = write_it.functions(source)[path]
    return source.splitlines()[node.lineno - 1:node.end_lineno]


@pytest.mark.parametrize('chapter', [1, 2])
def test_of_a_body_the_comments_stay_and_no_code(chapter):
    outline, script = mine(chapter), write_it.script(chapter)
    assert all(part.section in ast.get_docstring(ast.parse(outline)) for part in write_it.parts_of(chapter))
    for part in write_it.parts_of(chapter):
        here, there = lines_of(script, part.path), lines_of(outline, part.path)
        node = write_it.functions(script)[part.path]
        first = write_it.body(node)[0] - node.lineno + 1
        assert there[:first] == here[:first]  # signature and docstring
        assert there[-1].strip() == 'raise NotImplementedError'
        kept = [line.strip() for line in there[first:-1]]
        assert kept == ['#' + line.partition('#')[2] for line in here[first:] if '#' in line]
        assert len({len(line) - len(line.lstrip()) for line in there[first:]}) == 1


@pytest.mark.parametrize('chapter', [1, 2])
def test_with_all_answers_the_outline_is_the_script_again(chapter):
    name, file = write_it.CHAPTERS[chapter]
    script = write_it.script(chapter).replace(name, file)
    mine, right = (ast.parse(source).body[1:] for source in (complete(chapter), script))  # [0] is the docstring
    assert [ast.dump(node) for node in mine] == [ast.dump(node) for node in right]


def test_every_section_is_in_the_readme():
    assert all(f'\n### {part.section}\n' in README for part in write_it.PARTS)


def write_it_in(folder, *args):
    return run('experiments/write_it.py', *args, cwd=folder)


def test_it_makes_a_file_and_never_over_one(tmp_path):
    made = write_it_in(tmp_path)
    assert made.returncode == 0 and 'mine.py is made' in made.stdout
    assert (tmp_path / 'mine.py').read_text(encoding='utf-8').startswith('"""Your own GPT: bigram.py, with 10 parts')
    (tmp_path / 'mine.py').write_text('# my work\n', encoding='utf-8')
    again = write_it_in(tmp_path)
    assert (tmp_path / 'mine.py').read_text(encoding='utf-8') == '# my work\n'
    assert again.returncode == 1 and again.stdout.count('in mine.py any more') == 10
    assert 'mine2.py is made' in write_it_in(tmp_path, '2').stdout
    assert 'def windows' in (tmp_path / 'mine2.py').read_text(encoding='utf-8')


def test_nothing_is_written_yet(tmp_path):
    write_it_in(tmp_path)
    result = write_it_in(tmp_path)
    assert result.returncode == 1 and result.stdout.count('not written yet') == 10 and '0 of 10' in result.stdout


def test_all_is_right_and_the_file_trains_to_the_loss_of_the_script(tmp_path):
    (tmp_path / 'mine.py').write_text(complete(1), encoding='utf-8')
    result = write_it_in(tmp_path)
    assert result.returncode == 0 and result.stdout.count(' right ') == 10
    assert result.stdout.endswith('python mine.py\n')
    (tmp_path / 'input.txt').write_text((ROOT / 'input.txt').read_text(encoding='utf-8')[:5000], encoding='utf-8')
    printed = []
    for script in (ROOT / 'bigram.py', tmp_path / 'mine.py'):
        text = script.read_text(encoding='utf-8')
        for name, value in dict(max_iters=3, eval_interval=3, eval_iters=2, n_embd=8, num_layers=1).items():
            text = text.replace(f'\n{name} = ', f'\n{name} = {value} or ')
        (tmp_path / 'short.py').write_text(text, encoding='utf-8')
        out = run(tmp_path / 'short.py', cwd=tmp_path)
        printed.append([line.split(', 0 s')[0] for line in good(out).splitlines()])
    assert printed[0] == printed[1] and 'step     3' in '\n'.join(printed[0])


def test_an_endless_loop_is_told_with_its_line_and_the_other_parts_are_checked(tmp_path, monkeypatch, capsys):
    source = mine(count_pairs='while True:\n    continue', Block=WAYS['Block'][0],
                  Head='for i in range(9):\n    print("head", i)\nreturn 1 / 0')
    (tmp_path / 'mine.py').write_text(source, encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(write_it, 'LIMIT', 2)
    assert not write_it.report(1, write_it.parts_of(1), 'python write_it.py')
    rows = capsys.readouterr().out.splitlines()
    loop, head = (next(i for i, row in enumerate(rows) if row.startswith(name)) for name in ('count_pairs', 'Head'))
    assert 'it still runs after 2 seconds' in rows[loop + 1] and 'division by zero' in rows[head + 1]
    assert rows[head + 2:head + 5] == [f'    it prints: head {i}' for i in range(3)]
    for row, texts in (loop, ('while True:', 'continue')), (head, ['return 1 / 0']):
        assert source.splitlines()[int(rows[row].split()[2]) - 1].strip() in texts
    assert sum(' right ' in row for row in rows) == 1 and sum('not written yet' in row for row in rows) == 7


@pytest.mark.parametrize('text, words', [
    ('def read(path:\n', "mine.py, line 1: SyntaxError: '(' was never closed"),
    ('import torch\ntorch.nix\n', "mine.py, line 2: AttributeError: module 'torch' has no attribute 'nix'"),
])
def test_a_file_that_cannot_be_read_is_told_with_its_line(text, words, tmp_path):
    (tmp_path / 'mine.py').write_text(text + '\ndef read(path):\n    return 1\n', encoding='utf-8')
    result = write_it_in(tmp_path)
    assert result.returncode == 1 and result.stderr.startswith(words) and len(result.stderr.splitlines()) == 1


def test_an_answer_is_that_of_one_part(tmp_path):
    result = write_it_in(tmp_path, 'HEAD', '--answer')
    assert result.returncode == 0 and result.stdout.rstrip('\n') == write_it.answer(PARTS['Head'])
    assert 'F.softmax(scores, dim=-1)' in result.stdout and 'self.heads' not in result.stdout
    assert not list(tmp_path.iterdir())
    for words in ('nobody', '--answer'), ('--answer',):
        refused = write_it_in(tmp_path, *words)
        assert refused.returncode == 1 and 'read, get_batch, count_pairs, Head' in refused.stderr


def test_one_part_can_be_checked_alone(tmp_path):
    (tmp_path / 'mine.py').write_text(mine(Block='import os\nos._exit(0)'), encoding='utf-8')
    result = write_it_in(tmp_path, 'block')
    assert result.returncode == 1 and 'it ends the whole process' in result.stdout and 'Head' not in result.stdout


def test_what_is_right_without_a_cache_is_half_done_and_the_next_part_comes_first(tmp_path):
    body = write_it.answer(PARTS['MultiHeadAttn']).replace('cache is not None', 'False').replace('past', '0')
    source = write_it.outline(2, '').splitlines()
    first = next(n for n, line in enumerate(source) if 'def forward(self, x, cache=None, past=0)' in line) + 1
    last = next(n for n, line in enumerate(source) if n > first and 'raise NotImplementedError' in line)
    (tmp_path / 'mine2.py').write_text('\n'.join([*source[:first], body, *source[last + 1:]]), encoding='utf-8')
    result = write_it_in(tmp_path, '2')
    assert result.returncode == 1 and 'half done' in result.stdout and 'it is right without a cache' in result.stdout
    assert 'Right: 0 of 5. Next: windows' in result.stdout
