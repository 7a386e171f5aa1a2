// The IR after every pass, with what the pass changed; and where everything came from.
function ir() {
  const passes = data.passes;
  const node = section('ir', 'IR, pass by pass', 'The program as the compiler sees it. Lines are compared without the numbers of values, which every pass gives anew.');
  const { lines, stages } = passes;
  if (passes.gives_program === null) node.append(absent(el('span', {}, 'This begins with the program in the file. The passes before it need the ONNX file: ', code('--reference MODEL.onnx'))));
  else node.append(el('p', { class: 'about' }, passes.gives_program ? 'These passes were run again for this report; what they give is the program of the file, line by line and weight by weight.' : 'These passes were run again for this report with the levels that the file keeps. What they give is not the very program of the file: another version of snnc, or another ONNX file, may have made it.'));
  let now = stages.length > 1 ? 1 : 0, changedOnly = true, withWeights = false, wanted = '';
  const LIMIT = 800, AROUND = 2;
  const view = el('div', { class: 'code', tabindex: 0, role: 'region', 'aria-label': 'IR' }), count = el('p', { class: 'key', 'aria-live': 'polite' });
  const buttons = stages.map((stage, i) => el('button', { type: 'button', onclick: () => { now = i; paint(); } }, stage.pass));
  const paint = (limit = LIMIT) => {
    buttons.forEach((b, i) => b.setAttribute('aria-pressed', i === now));
    const { changes, nodes, weights, stage } = stages[now], plus = changes.filter(c => c[0] > 0).length, minus = changes.filter(c => c[0] < 0).length;
    count.textContent = `${stages[now].pass}: stage ${stage}, ${whole(nodes)} operations, ${whole(weights)} constants` + (now ? `; ${whole(plus)} lines new, ${whole(minus)} gone` : '');
    const near = changes.map(() => !changedOnly || !now);
    if (changedOnly && now) changes.forEach(([sign], i) => { if (sign) for (let k = Math.max(0, i - AROUND); k <= i + AROUND && k < near.length; k++) near[k] = true; });
    const rows = [];
    let skipped = 0;
    const fold = () => { if (skipped && !wanted) rows.push(el('div', { class: 'fold' }, `⋯ ${skipped} lines`)); skipped = 0; };
    for (let i = 0; i < changes.length && rows.length < limit; i++) {
      const [sign, index] = changes[i], line = lines[index];
      if (!near[i] || !withWeights && !wanted && line.startsWith('weight ') || wanted && !line.toLowerCase().includes(wanted)) { skipped++; continue; }
      fold();
      rows.push(el('div', { class: !now || !sign ? null : sign > 0 ? 'new' : 'gone' }, (!now || !sign ? '  ' : sign > 0 ? '+ ' : '− ') + line));
    }
    fold();
    if (rows.length >= limit) rows.push(el('div', {}, el('button', { type: 'button', onclick: () => paint(Infinity) }, 'Show all lines')));
    if (!rows.length) rows.push(el('div', {}, 'no such line'));
    view.replaceChildren(...rows);
  };
  node.append(el('div', { class: 'passes', role: 'group', 'aria-label': 'After the pass' }, buttons),
    el('div', { class: 'tools' }, field('find', el('input', { type: 'search', placeholder: 'h.0.mlp, fire, …', oninput: event => { wanted = event.target.value.toLowerCase(); paint(); } })),
      el('label', { class: 'check' }, el('input', { type: 'checkbox', checked: true, onchange: event => { changedOnly = event.target.checked; paint(); } }), 'only what changed'),
      el('label', { class: 'check' }, el('input', { type: 'checkbox', onchange: event => { withWeights = event.target.checked; paint(); } }), 'lines of weights')), count, view);
  paint();
}

function provenance() {
  const p = data.provenance, facts = [];
  const add = (name, ...value) => facts.push(el('dt', {}, name), el('dd', {}, ...value));
  const file = o => [o.name, el('span', { style: 'color:var(--muted)' }, `, ${bytesOf(o.bytes)}, XXH3 `), el('span', { class: 'mono' }, o.xxh3)];
  add('this report', 'snnc ' + p.snnc);
  if (p.command) add('command', code(p.command));
  if (p.program) add('program', file(p.program));
  if (p.compiled) {
    add('compiled by', p.compiled.compiler || '–');
    add('options', code(p.compiled.options || '–'));
    const s = p.compiled.source;
    const kind = s && (s.architecture ? `Hugging Face folder of ${s.architecture}` : `opset ${s.opset}`);
    if (s) add(s.architecture ? 'from a folder' : 'from an ONNX file', `${bytesOf(s.bytes)}, ${kind}, ${s.producer || 'unnamed producer'}, XXH3 `, el('span', { class: 'mono' }, s.xxh3));
  }
  for (const t of [].concat(p.compiled?.training ?? [])) add('trained', `${t.run.parameters} by ${t.run.loss}, ${whole(t.steps)} steps of ${t.run.batch} windows of ${t.run.window_tokens} tokens`);
  if (p.compiled?.hybrid) add('back to attention by time to first spike', p.compiled.hybrid.ttfs.length ? `layers ${p.compiled.hybrid.ttfs.join(', ')}` : 'no layer');
  if (p.calibration) add('calibrated on', `${p.calibration.source}, ${whole(p.calibration.tokens)} tokens in ${whole(p.calibration.windows)} windows`);
  if (p.dense) add('dense network', file(p.dense), p.dense_is_source === true ? ' (the file that the program was compiled from)' : p.dense_is_source === false ? ' (not the file that the program was compiled from)' : '');
  if (p.text) add('text', file(p.text));
  if (p.tokens) add('tokens run', `the first ${whole(p.tokens[0])} of ${whole(p.tokens[1])}, in one sequence`);
  if (data.network) {
    add('parameters', whole(data.network.parameters));
    add('vocabulary, context', `${whole(data.network.vocabulary)}, ${whole(data.network.context)} tokens`);
    if (data.network.half_lives.length) add('half-lives of heads', data.network.half_lives.map(heads => heads.map(h => h || 'none').join(' ')).join('; '), ' tokens, layer by layer');
    add('neurons and attention', data.network.kinds.map((kind, i) => [i ? ', ' : '', code(kind)]));
  }
  section('provenance', 'Provenance', 'Nothing here depends on the clock, the machine or the number of threads: the same files give the same page.', el('dl', { class: 'facts' }, facts));
}
