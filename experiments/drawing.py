"""The drawing of the whole model, also as a map for each part of chapter one: python experiments/drawing.py

Writes results/model.svg, and results/model_PART.svg, where one part is marked. The sizes are those of bigram.py. The
colours follow the reader's browser, light or dark.
"""
from common import RESULTS, ROOT

import bigram

WIDTH = 830  # pixels: the width of a README
LIGHT = dict(page='#ffffff', ink='#1f2328', grey='#59636e', line='#818b98', box='#f6f8fa', stream='#1f77b4',
             here='#ffa657')
DARK = dict(page='#0d1117', ink='#f0f6fc', grey='#9198a1', line='#7d8590', box='#1b222c', stream='#58a6ff',
            here='#f0883e')
STYLE = """
rect, circle {{ fill: {box}; stroke: {line} }}
path {{ fill: none; stroke: {line}; stroke-width: 1.5 }}
text {{ fill: {ink}; text-anchor: middle }}
text {{ font: 14px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif }}
.small, .sizes {{ font-size: 13px }}
.shape {{ fill: {grey}; font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }}
.sizes {{ fill: {grey} }}
.start {{ text-anchor: start }}
.arrow {{ marker-end: url(#tip) }}
.tip {{ fill: {line}; stroke: none }}
.stream {{ stroke: {stream}; stroke-width: 5 }}
.name {{ fill: {stream} }}
.frame {{ fill: none; stroke-dasharray: 5 4 }}
.field {{ fill: {line}; stroke: none; opacity: 0.12 }}
.page, .card {{ fill: {page} }}
.page {{ stroke: none }}
.here rect, .here circle {{ fill: {here} }}
.here text {{ fill: #1f2328 }}
.here path {{ stroke: #1f2328 }}
.here .stream {{ stroke: {here} }}
"""
PARTS = {  # of chapter one, and what their maps mark
    'embedding': 'the two embeddings and their sum', 'head': 'one head of attention',
    'heads': 'all heads of attention and the projection', 'feed_forward': 'the feed-forward',
    'block': 'the residual stream with its two additions, and the LayerNorms of a block',
    'logits': 'the last LayerNorm, the head that makes logits, and the softmax'}


# Shapes, as lines of SVG. Places and sizes are in pixels, from the left and from the top.

def text(x, y, words, kind=''):
    return f'<text x="{x}" y="{y}" class="{kind}">{words}</text>'


def box(x, y, width, height, *lines, kind=''):
    """A box with lines of text in its middle. The kind is that of all but the first, and brackets mean a shape."""
    first = y + height / 2 + 5 - 9 * (len(lines) - 1)
    kinds = ['shape' if words[0] == '(' else kind * (i > 0) for i, words in enumerate(lines)]
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4"/>' + ''.join(
        text(x + width / 2, first + 18 * i, words, kind) for i, (words, kind) in enumerate(zip(lines, kinds)))


def line(*points, kind=''):
    return f'<path d="M{" L".join(f"{x} {y}" for x, y in points)}" class="{kind}"/>'


def arrow(*points):
    return line(*points, kind='arrow')


def plus(x, y):
    return f'<circle cx="{x}" cy="{y}" r="11"/>' + line((x - 5, y), (x + 5, y)) + line((x, y - 5), (x, y + 5))


def strip(marked):
    """The model along its residual stream, from left to right: what a part reads goes down, what it adds comes up."""
    y = 66  # of the stream

    def part(name, *shapes):
        return f'<g class="{"here" if name == marked else ""}">' + ''.join(shapes) + '</g>'

    heads = [box(270 + 24 * i, y + 106, 20, 20, str(i + 1)) for i in range(bigram.num_heads)]
    return [
        text(27, y + 5, 'tokens'), text(27, y - 16, '(B, T)', 'shape'), arrow((54, y), (69, y)),
        line((158, y), (660, y), kind='stream'),
        part('embedding', box(70, y - 24, 88, 48, 'token', 'embedding'), plus(192, y),
             box(148, y + 78, 88, 48, 'position', 'embedding')),
        arrow((192, y + 78), (192, y + 12)), text(199, y + 46, '(T, C)', 'shape start'),

        '<rect x="252" y="26" width="396" height="182" rx="8" class="frame"/>',
        text(450, 17, f'{bigram.num_layers} blocks, one after the other'),
        part('block', line((253, y), (647, y), kind='stream'), box(264, y + 24, 90, 28, 'LayerNorm'),
             box(468, y + 24, 90, 28, 'LayerNorm'), plus(435, y), plus(617, y)),
        text(310, y - 19, '(B, T, C)', 'shape'), text(435, y - 19, 'residual stream', 'name'),
        text(600, y - 19, '(B, T, C)', 'shape'),
        arrow((309, y + 3), (309, y + 24)), arrow((309, y + 52), (309, y + 78)), arrow((435, y + 78), (435, y + 12)),
        arrow((513, y + 3), (513, y + 24)), arrow((513, y + 52), (513, y + 78)), arrow((617, y + 78), (617, y + 12)),
        box(264, y + 78, 190, 54), text(359, y + 97, f'attention: {bigram.num_heads} heads'),
        part('heads', part('head', heads[0]), *heads[1:], box(368, y + 106, 80, 20, 'projection')),
        part('feed_forward', box(468, y + 78, 168, 54, 'feed-forward', 'C → 4C, ReLU, 4C → C', kind='small')),

        part('logits', box(660, y - 16, 88, 32, 'LayerNorm'), box(766, y - 16, 54, 32, 'matrix'),
             box(759, y + 62, 68, 28, 'softmax')),
        arrow((748, y), (766, y)), arrow((793, y + 16), (793, y + 62)),
        text(720, y + 43, 'logits <tspan class="shape">(B, T, V)</tspan>'), arrow((793, y + 90), (793, y + 110)),
        text(793, y + 126, 'the next'), text(793, y + 143, 'character'),
    ]


def zoom():
    """Attention enlarged, below the strip: one head with the others behind it, and the projection."""
    top, q, k, v = 250, 326, 374, 422  # of the field, and the middles of the three boxes
    y = (q + k) / 2                    # the middle of what follows
    sizes = (f'In bigram.py: B = {bigram.batch_size}, T = {bigram.block_size}, C = {bigram.n_embd}, '
             f'D = C / {bigram.num_heads} = {bigram.n_embd // bigram.num_heads}, '
             f'V = {len(bigram.read(ROOT / "input.txt")[0])}')
    return [
        f'<path d="M264 198 H454 L830 {top} V480 H0 V{top} Z" class="field"/>',
        text(16, top + 27, f'attention: {bigram.num_heads} heads, each with its own queries, keys and values', 'start'),
        *(f'<rect x="{98 + far}" y="{top + 46 + far}" width="458" height="156" rx="6" class="card"/>'
          for far in range(5 * bigram.num_heads - 5, -1, -5)),
        text(44, y - 13, 'from', 'small'), text(44, y + 5, 'LayerNorm', 'small'),
        text(44, y + 23, '(B, T, C)', 'shape'),
        line((84, y), (105, y)), *(arrow((105, y), (105, place), (116, place)) for place in (q, k, v)),
        box(116, q - 20, 80, 40, 'query q', '(B, T, D)'), box(116, k - 20, 80, 40, 'key k', '(B, T, D)'),
        box(116, v - 20, 80, 40, 'value v', '(B, T, D)'),
        arrow((196, q), (214, q)), arrow((196, k), (214, k)),
        box(214, y - 37, 94, 74, 'scores', 'q · kᵀ / √D', '(B, T, T)', kind='small'), arrow((308, y), (326, y)),
        box(326, y - 37, 106, 74, 'weights', 'mask, softmax', '(B, T, T)', kind='small'), arrow((432, y), (450, y)),
        arrow((196, v), (497, v), (497, y + 37)),
        box(450, y - 37, 94, 74, 'result', 'weights · v', '(B, T, D)', kind='small'), arrow((556, y), (588, y)),
        box(588, y - 37, 94, 74, 'results', 'side by side', '(B, T, C)', kind='small'), arrow((682, y), (700, y)),
        box(700, y - 28, 84, 56, 'projection', '(B, T, C)'), arrow((784, y), (800, y)), plus(812, y),
        text(415, top + 254, sizes, 'sizes'),
    ]


def drawing(items, height, title):
    """An SVG file. It has a background, so that it can be read on any page."""
    style = STYLE.format(**LIGHT) + '@media (prefers-color-scheme: dark) {' + STYLE.format(**DARK) + '}'
    return '\n'.join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        f'<title>{title}</title>', f'<style>{style}</style>',
        '<marker id="tip" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8" orient="auto" '
        'markerUnits="userSpaceOnUse"><path d="M0 0 L8 4 L0 8 Z" class="tip"/></marker>',
        f'<rect width="{WIDTH}" height="{height}" class="page"/>', *items, '</svg>\n'])


def drawings():
    """All drawings, by the names of their files."""
    maps = {f'model_{name}.svg': drawing(strip(name), 216, f'Map of the model; marked: {what}')
            for name, what in PARTS.items()}
    return {'model.svg': drawing(strip(None) + zoom(), 514, 'The whole model, with the shapes of its tensors')} | maps


def main():
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, svg in drawings().items():
        (RESULTS / name).write_text(svg, encoding='utf-8', newline='\n')
        print((RESULTS / name).relative_to(ROOT))


if __name__ == '__main__':
    main()
