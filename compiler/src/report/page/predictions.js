// The text, token by token: how well each was predicted, by both networks.
const perplexityOf = nll => { const p = Math.exp(nll); return p >= 1000 ? whole(p) : digits(p, p >= 100 ? 0 : p >= 10 ? 1 : 2); };
const sure = p => p >= .9995 ? '>99.9 %' : p < .0005 ? '<0.1 %' : percent(p);

function guessList(title, guesses, fill, id) {
  return el('div', { class: 'card' }, el('h3', {}, title), el('p', { style: 'margin:.1rem 0 .7rem' }, 'perplexity ', el('b', {}, perplexityOf(guesses.nll)), el('span', { style: 'color:var(--muted)' }, `, ${sure(Math.exp(-guesses.nll))} likely`)),
    guesses.best.map(g => el('div', { class: 'guess' }, el('span', { class: 'word', title: shown(g.text) }, (g.id === id ? '✓ ' : '\u00a0\u00a0') + shown(g.text)), el('span', { class: 'bar', style: `background:${fill};width:${(100 * g.probability).toFixed(1)}%` }), el('span', { class: 'share' }, sure(g.probability)))));
}

/** A line through every token's loss, of both networks. */
function losses(at) {
  const W = room(false), H = 190, L = 40, B = 158, list = data.predictions;
  const most = Math.max(...list.flatMap(p => [p.spiking.nll, p.dense ? p.dense.nll : 0]).filter(Number.isFinite), 1);
  const x = i => L + (W - L - 4) * (list.length > 1 ? i / (list.length - 1) : 0), y = nll => B - Math.min(nll ?? most, most) / most * (B - 12);
  const path = of => list.map((p, i) => (i ? 'L' : 'M') + x(i).toFixed(1) + ' ' + y(of(p)).toFixed(1)).join(' ');
  const ticks = [1, 10, 100, 1000, 10000, 100000].filter(p => Math.log(p) <= most);
  const dense = list[0].dense;
  return chart(W, H, `Perplexity of each token${dense ? ', dense and spiking' : ''}`, ticks.map(p => [line(L, y(Math.log(p)), W - 4, y(Math.log(p))), svgText(L - 6, y(Math.log(p)) + 4, 'end', p >= 1000 ? p / 1000 + 'k' : p)]),
    dense && el('svg:path', { d: path(p => p.dense.nll), fill: 'none', stroke: 'var(--dense)', 'stroke-width': 4, opacity: .6, 'stroke-linejoin': 'round' }),
    el('svg:path', { d: path(p => p.spiking.nll), fill: 'none', stroke: 'var(--spiking)', 'stroke-width': 1.6, 'stroke-linejoin': 'round' }),
    el('svg:line', { x1: x(at), x2: x(at), y1: 6, y2: B, stroke: 'var(--ink)', 'stroke-width': 1.5, 'stroke-dasharray': '3 3' }),
    svgText(L, H - 12, 'start', 'token 1'), svgText(W - 4, H - 12, 'end', 'token ' + list.length));
}

function predictions() {
  const list = data.predictions, dense = list.length > 0 && Boolean(list[0].dense);
  const node = section('text', 'Text', 'Every token is shaded by how little the network expected it, given all before it. Choose one to see what it guessed instead.');
  if (!list.length) return node.append(absent(el('span', {}, 'Run the program on a text: ', code('--text FILE'))));
  const shades = {
    surprise: { name: 'Surprise', of: p => Math.min(1, p.spiking.nll / 12) },
    change: { name: 'Change from dense', of: p => Math.min(1, Math.sqrt(p.kl / .05)) },
  };
  let shade = 'surprise', at = 0;
  const agrees = p => !p.dense || p.spiking.best[0].id === p.dense.best[0].id;
  const buttons = list.map((p, i) => el('button', { type: 'button', tabindex: i ? -1 : 0, class: agrees(p) ? null : 'apart', onclick: () => choose(i, false),
    'aria-label': `${shown(p.text)}, token ${i + 1}, perplexity ${perplexityOf(p.spiking.nll)}${agrees(p) ? '' : ', top-1 tokens differ'}` }, p.text === '\n' ? '↵\n' : p.text || '∅'));
  const detail = el('div', { 'aria-live': 'polite' }), plot = el('figure', { class: 'plot' });
  const choose = (i, focus) => {
    buttons[at].tabIndex = -1;
    buttons[at].setAttribute('aria-pressed', 'false');
    at = Math.max(0, Math.min(list.length - 1, i));
    const p = list[at];
    buttons[at].tabIndex = 0;
    buttons[at].setAttribute('aria-pressed', 'true');
    if (focus) buttons[at].focus();
    detail.replaceChildren(el('h3', {}, `Token ${at + 1}: `, el('span', { class: 'mono' }, shown(p.text))), el('div', { class: 'pair' }, p.dense && guessList('Dense', p.dense, 'var(--dense)', p.id), guessList('Spiking', p.spiking, 'var(--spiking)', p.id)),
      p.kl !== null && p.kl !== undefined ? el('p', { class: 'key' }, `KL divergence from the dense prediction: ${digits(p.kl, 6)} nats`) : '');
    plot.replaceChildren(losses(at));
  };
  const paint = () => list.forEach((p, i) => {
    const fill = ramp(.85 * shades[shade].of(p));
    buttons[i].style.backgroundColor = css(fill);
    buttons[i].style.color = over(fill);
  });
  const text = el('ol', { class: 'text', 'aria-label': 'The text, token by token; arrow keys move' }, buttons.map(b => el('li', {}, b)));
  text.addEventListener('keydown', event => {
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: list.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to, true);
  });
  const apart = list.filter(p => !agrees(p)).length;
  onRedraw(paint);
  onRedraw(() => plot.replaceChildren(losses(at)));
  const rows = list.map((p, i) => el('tr', {}, el('th', { scope: 'row' }, `${i + 1} `, el('span', { class: 'mono' }, shown(p.text))), dense && el('td', {}, perplexityOf(p.dense.nll)), el('td', {}, perplexityOf(p.spiking.nll)),
    dense && el('td', { class: 'left mono' }, shown(p.dense.best[0].text)), el('td', { class: 'left mono' }, shown(p.spiking.best[0].text)), dense && el('td', {}, agrees(p) ? 'same' : 'differ'), dense && el('td', {}, digits(p.kl, 6))));
  const heads = ['token', dense && 'perplexity, dense', dense ? 'spiking' : 'perplexity', dense && 'top-1, dense', dense ? 'spiking' : 'top-1', dense && 'guesses', dense && 'KL, nats'].filter(Boolean);
  node.append(...[dense && el('div', { class: 'tools' }, segment('Shade by', Object.entries(shades).map(([key, s]) => [key, s.name]), shade, value => { shade = value; paint(); })),
    dense && el('p', { class: 'about' }, apart ? `Underlined: the ${apart} of ${list.length} tokens where the two networks’ top-1 tokens differ.` : `Both networks’ top-1 is the same for all ${list.length} tokens.`),
    !dense && el('p', { class: 'about' }, 'The dense network stands beside it with ', code('--reference MODEL.onnx'), '.'),
    text, detail, el('h3', {}, 'Perplexity, token by token'), el('p', { class: 'key' }, dense && el('span', {}, el('i', { style: 'background:var(--dense)' }), 'dense'), el('span', {}, el('i', { style: 'background:var(--spiking)' }), 'spiking')), plot,
    el('details', {}, el('summary', {}, 'All tokens as a table'), el('div', { class: 'inside scroll', tabindex: 0, role: 'region', 'aria-label': 'All tokens' }, el('table', { class: 'wide' }, el('thead', {}, el('tr', {}, heads.map(name => el('th', { scope: 'col', class: /guess|token/.test(name) && name !== 'guesses' ? 'left' : null }, name)))), el('tbody', {}, rows))))].filter(Boolean));
  choose(0, false);
}
