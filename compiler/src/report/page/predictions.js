// The text, token by token: how well each was predicted, by both networks.
const bitsOf = nll => nll === null ? '∞' : digits(nll / Math.LN2, 2);
const sure = p => p >= .9995 ? '>99.9 %' : p < .0005 ? '<0.1 %' : percent(p);

function guessList(title, guesses, fill, id) {
  return el('div', { class: 'card' }, el('h3', {}, title), el('p', { style: 'margin:.1rem 0 .7rem' }, 'surprisal ', el('b', {}, bitsOf(guesses.nll) + ' bits'), el('span', { style: 'color:var(--muted)' }, `, ${sure(Math.exp(-guesses.nll))} likely`)),
    guesses.best.map(g => el('div', { class: 'guess' }, el('span', { class: 'word', title: shown(g.text) }, (g.id === id ? '✓ ' : '\u00a0\u00a0') + shown(g.text)), el('span', { class: 'bar', style: `background:${fill};width:${(100 * g.probability).toFixed(1)}%` }), el('span', { class: 'share' }, sure(g.probability)))));
}

function predictions() {
  const list = data.predictions, dense = list.length > 0 && Boolean(list[0].dense);
  const node = section('text', 'Text', 'Every token is shaded by its surprisal: how little the network expected it, given all before it. Choose one to see what it guessed instead.');
  if (!list.length) return node.append(absent(el('span', {}, 'Run the program on a text: ', code('--text FILE'))));
  const shades = {
    surprise: { name: 'Surprisal', of: p => Math.min(1, p.spiking.nll / 12) },
    change: { name: 'Change from dense', of: p => Math.min(1, Math.sqrt(p.kl / .05)) },
  };
  let shade = 'surprise', at = 0;
  const agrees = p => !p.dense || p.spiking.best[0].id === p.dense.best[0].id;
  const buttons = list.map((p, i) => el('button', { type: 'button', tabindex: i ? -1 : 0, class: agrees(p) ? null : 'apart', onclick: () => choose(i, false),
    'aria-label': `${shown(p.text)}, token ${i + 1}, surprisal ${bitsOf(p.spiking.nll)} bits${agrees(p) ? '' : ', top-1 tokens differ'}` }, p.text === '\n' ? '↵\n' : p.text || '∅'));
  const detail = el('div', { 'aria-live': 'polite' });
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
  const rows = list.map((p, i) => el('tr', {}, el('th', { scope: 'row' }, `${i + 1} `, el('span', { class: 'mono' }, shown(p.text))), dense && el('td', {}, bitsOf(p.dense.nll)), el('td', {}, bitsOf(p.spiking.nll)),
    dense && el('td', { class: 'left mono' }, shown(p.dense.best[0].text)), el('td', { class: 'left mono' }, shown(p.spiking.best[0].text)), dense && el('td', {}, agrees(p) ? 'same' : 'differ'), dense && el('td', {}, digits(p.kl, 6))));
  const heads = ['token', dense && 'surprisal, dense, bits', dense ? 'surprisal, spiking, bits' : 'surprisal, bits', dense && 'top-1, dense', dense ? 'top-1, spiking' : 'top-1', dense && 'guesses', dense && 'KL, nats'].filter(Boolean);
  node.append(...[dense && el('div', { class: 'tools' }, segment('Shade by', Object.entries(shades).map(([key, s]) => [key, s.name]), shade, value => { shade = value; paint(); })),
    dense && el('p', { class: 'about' }, apart ? `Underlined: the ${apart} of ${list.length} tokens where the two networks’ top-1 tokens differ.` : `Both networks’ top-1 is the same for all ${list.length} tokens.`),
    !dense && el('p', { class: 'about' }, 'The dense network stands beside it with ', code('--reference MODEL.onnx'), '.'),
    text, detail, ...figuresOf('text').map(figure => plot(figure)),
    el('details', {}, el('summary', {}, 'All tokens as a table'), el('div', { class: 'inside scroll', tabindex: 0, role: 'region', 'aria-label': 'All tokens' }, el('table', { class: 'wide' }, el('thead', {}, el('tr', {}, heads.map(name => el('th', { scope: 'col', class: /top-1|token/.test(name) ? 'left' : null }, name)))), el('tbody', {}, rows))))].filter(Boolean));
  choose(0, false);
}
