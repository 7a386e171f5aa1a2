// The ledger: what every site loses, by cause.
const CAUSES = ['clipping', 'rounding', 'time', 'softmax', 'weights'];

function errors() {
  const ledger = findings.ledger;
  const node = section('errors', 'Where the error comes from', ledger
    ? `Kullback-Leibler divergence of the logits from the dense network’s, in millionths of a nat per token, on ${whole(ledger.tokens)} tokens: ${digits(1e6 * ledger.kl, 1)} in all, of which the isolated sites make up ${percent(ledger.explained, 0)}.`
    : 'What every layer loses by clipping, rounding, timing, softmax and weights, each isolated.');
  if (!ledger) return node.append(absent(el('span', {}, 'Ask for it with ', code('--ledger'), evaluation ? ' and ' : ', which needs ', evaluation ? null : [code('--text FILE'), ' and '], code('--reference MODEL.onnx'), '.')));
  const most = Math.max(...ledger.sites.map(s => s.kl_isolated), 1e-12);
  const micro = x => x === null || x === undefined ? '' : digits(1e6 * x, 2);
  const key = el('p', { class: 'key' }, CAUSES.map((cause, i) => el('span', {}, el('i', { style: `background:var(--cause-${i})` }), cause)));
  const row = s => el('tr', {}, el('th', { scope: 'row' }, s.site), el('td', { class: 'left' }, el('div', { class: 'stack', 'aria-hidden': true }, CAUSES.map((cause, i) => s[cause] > 0 && el('i', { style: `background:var(--cause-${i});width:${(100 * s[cause] / most).toFixed(2)}%` })))),
    el('td', {}, micro(s.kl_isolated)), el('td', {}, micro(s.kl_cumulative)), CAUSES.map(cause => el('td', {}, micro(s[cause]))));
  const ranked = ledger.ranking.slice(0, 6).map(name => ledger.sites.find(s => s.site === name));
  const sum = ledger.sites.reduce((a, s) => a + s.kl_isolated, 0) || 1;
  node.append(el('h3', {}, 'What would mend it'), el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'What would mend it' }, el('table', {},
    el('thead', {}, el('tr', {}, ['site', 'share', 'mostly by', 'option'].map((name, i) => el('th', { scope: 'col', class: i === 1 ? null : 'left' }, name)))),
    el('tbody', {}, ranked.map(s => el('tr', {}, el('th', { scope: 'row' }, s.site), el('td', {}, percent(s.kl_isolated / sum)), el('td', { class: 'left' }, s.worst), el('td', { class: 'left' }, code(s.remedy))))))),
  el('h3', {}, 'By site and cause'), key, el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Error ledger' }, el('table', { class: 'wide' },
    el('thead', {}, el('tr', {}, el('th', { scope: 'col', class: 'left' }, 'site'), el('th', {}, el('span', { class: 'hidden' }, 'share by cause')), el('th', { scope: 'col' }, 'isolated'), el('th', { scope: 'col' }, 'cumulative'), CAUSES.map(cause => el('th', { scope: 'col' }, cause)))),
    el('tbody', {}, ledger.sites.map(row)))));
}
