// The ledger: what every site loses, by cause.
const CAUSES = ['clipping', 'rounding', 'time', 'softmax', 'weights'];

function errors() {
  const ledger = findings.ledger;
  const node = section('errors', 'Where the error comes from', ledger
    ? `Kullback-Leibler divergence of the logits from the dense network’s, in millionths of a nat per token, on ${whole(ledger.tokens)} tokens: ${digits(1e6 * ledger.kl, 1)} in all, of which the isolated sites make up ${percent(ledger.explained, 0)}.`
    : 'What every layer loses by clipping, rounding, timing, softmax and weights, each isolated.');
  if (!ledger) return node.append(absent(el('span', {}, 'Ask for it with ', code('--ledger'), evaluation ? ' and ' : ', which needs ', evaluation ? null : [code('--text FILE'), ' and '], code('--reference MODEL.onnx'), '.')));
  const micro = x => x === null || x === undefined ? '' : digits(1e6 * x, 2);
  // A cause that takes nothing anywhere needs no column.
  const causes = CAUSES.filter(cause => ledger.sites.some(s => s[cause]));
  const none = CAUSES.filter(cause => !causes.includes(cause));
  const row = s => el('tr', {}, el('th', { scope: 'row' }, s.site), el('td', {}, micro(s.kl_isolated)), el('td', {}, micro(s.kl_cumulative)), causes.map(cause => el('td', {}, micro(s[cause]))));
  const ranked = ledger.ranking.slice(0, 6).map(name => ledger.sites.find(s => s.site === name));
  const sum = ledger.sites.reduce((a, s) => a + s.kl_isolated, 0) || 1;
  node.append(el('h3', {}, 'What would mend it'), el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'What would mend it' }, el('table', {},
    el('thead', {}, el('tr', {}, ['site', 'share', 'mostly by', 'option'].map((name, i) => el('th', { scope: 'col', class: i === 1 ? null : 'left' }, name)))),
    el('tbody', {}, ranked.map(s => el('tr', {}, el('th', { scope: 'row' }, s.site), el('td', {}, percent(s.kl_isolated / sum)), el('td', { class: 'left' }, s.worst), el('td', { class: 'left ops' }, code(s.remedy))))))),
  ...figuresOf('errors').map(figure => plot(figure)),
  el('h3', {}, 'By site and cause'), el('p', { class: 'about' }, 'Isolated: all is dense but this site. Cumulative: this site and all before it have their levels.' + (none.length ? ` Nothing is lost by ${none.join(' or ')}${none.includes('time') ? ': these neurons integrate before they fire' : ''}.` : '')),
  el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Error ledger' }, el('table', { class: 'wide' },
    el('thead', {}, el('tr', {}, ['site', 'isolated, µnat', 'cumulative, µnat', ...causes.map(cause => cause + ', µnat')].map((name, i) => el('th', { scope: 'col', class: i ? null : 'left' }, name)))),
    el('tbody', {}, ledger.sites.map(row)))));
}
