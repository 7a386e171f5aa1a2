// Columns, marks, and the sentence about what is chosen.
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return node;
}
const whole = n => n.toLocaleString('en-GB');
const main = document.getElementById('columns'), detail = document.getElementById('detail'), tabs = document.getElementById('tabs');
const boxes = {}, counts = {}, badges = {}, titles = {};
for (const [column, name] of COLUMNS) {
  counts[column] = el('small');
  titles[column] = el('h2', { id: 'title-' + column }, name, counts[column]);
  boxes[column] = el('div', { class: 'lines', role: 'listbox', tabindex: 0, id: 'lines-' + column, 'aria-label': name });
  main.append(el('section', { class: 'column', 'data-column': column, 'aria-labelledby': 'title-' + column }, titles[column], boxes[column]));
  badges[column] = el('small');
  tabs.append(el('button', { type: 'button', role: 'tab', id: 'tab-' + column, 'aria-controls': 'lines-' + column, 'aria-selected': String(column === 'ir'), tabindex: column === 'ir' ? 0 : -1,
    onclick: () => openTab(column) }, column === 'code' ? 'Machine' : name, badges[column]));
}
function openTab(column) {
  document.body.dataset.tab = column;
  for (const [other] of COLUMNS) {
    const tab = document.getElementById('tab-' + other);
    tab.setAttribute('aria-selected', String(other === column));
    tab.tabIndex = other === column ? 0 : -1;
  }
  if (chosen) reveal(chosen, column);
}

const dim = text => el('span', { class: 'dim' }, text);
/** What a line says, its lesser parts dimmed. */
function parts(line) {
  if (line.row) return [dim(line.text.slice(0, 6)), el('span', { class: 'run' }, line.row.runs), line.text.slice(6 + line.row.runs.length)];
  if (line.column === 'code' && !line.head && line.offset !== null) {
    return line.text.endsWith(':') ? [line.text] : [dim(line.offset.toString(16).padStart(4, '0') + '  '), line.text];
  }
  const site = line.column === 'ir' ? line.text.lastIndexOf(' #') : -1;
  return site < 0 ? [line.text] : [line.text.slice(0, site), dim(line.text.slice(site))];
}

let chosen = null, marked = [], onDraw = () => {};
function draw() {
  gather();
  chosen = null;
  marked = [];
  for (const [column] of COLUMNS) {
    const { lines } = shown[column], all = document.createDocumentFragment();
    for (const line of lines) {
      line.node = el('div', { role: 'option', id: `${column}-${line.i}`, 'aria-selected': 'false', class: line.head ? 'head' : line.row ? line.row.runs : null }, parts(line));
      all.append(line.node);
    }
    if (!lines.length) all.append(el('div', { class: 'empty', role: 'option', 'aria-selected': 'false', 'aria-disabled': 'true' }, state.wanted ? 'No such line.' : 'Nothing is compiled for what is shown.'));
    boxes[column].replaceChildren(all);
    boxes[column].removeAttribute('aria-activedescendant');
    counts[column].textContent = `${whole(lines.filter(line => !line.head).length)} lines`;
    badges[column].textContent = counts[column].textContent;
  }
  onDraw();
  tell(null);
}

/** Marks what is linked to a line; with none, nothing is marked. */
function mark(line) {
  for (const node of marked) node.classList.remove('linked', 'exact', 'chosen');
  marked = [];
  const found = line && linked(line);
  for (const [column] of COLUMNS) {
    const lines = shown[column].lines.filter(other => !other.head).length;
    if (!found) { badges[column].textContent = `${whole(lines)} lines`; continue; }
    const { near, exact } = found[column];
    near.forEach(other => { other.node.classList.add('linked'); marked.push(other.node); });
    exact.forEach(other => { other.node.classList.add('exact'); marked.push(other.node); });
    badges[column].textContent = `${whole(near.size + exact.size)} linked`;
  }
  if (chosen) { chosen.node.classList.add('chosen'); marked.push(chosen.node); }
  tell(line, found);
}

/** Chooses a line: it stays marked, and other columns show what is linked. */
function choose(line) {
  if (chosen) chosen.node.setAttribute('aria-selected', 'false');
  chosen = line;
  mark(line);
  if (!line) return;
  line.node.setAttribute('aria-selected', 'true');
  boxes[line.column].setAttribute('aria-activedescendant', line.node.id);
  for (const [column] of COLUMNS) if (column !== line.column) reveal(line, column);
}

/** The first line of a column that is linked to a line: the very same first. */
function firstLinked(line, column) {
  const { near, exact } = linked(line)[column];
  const best = set => [...set].reduce((least, other) => !least || other.i < least.i ? other : least, null);
  return best(exact) || best(near);
}
/** Scrolls a column to what is linked, unless some of it is in sight. */
function reveal(line, column) {
  const box = boxes[column], { near, exact } = linked(line)[column], view = box.getBoundingClientRect();
  const inSight = other => { const r = other.node.getBoundingClientRect(); return r.top >= view.top && r.bottom <= view.bottom; };
  const first = firstLinked(line, column);
  if (!first || !view.height || [...(exact.size ? exact : near)].some(inSight)) return;
  box.scrollTop += first.node.getBoundingClientRect().top - view.top - view.height / 3;
}

const plural = (n, one, many) => `${whole(n)} ${n === 1 ? one : many}`;
function place(at) {
  if (at === undefined || at < 0) return null;
  const { origin, site, layer } = data.places[at];
  return [el('b', {}, origin || 'no ONNX node'), site ? ` at site ${site}` : '', layer === null ? '' : `, layer ${layer}`];
}
/** The step as a person reads it: what runs it, and whether that is generated. */
function runs(row) {
  const fn = row.function === null ? null : data.programs[state.program].functions[row.function].name;
  if (row.runs === 'kernel') return `step ${row.step}: Rust kernel ${row.name}, which is not generated code; forward calls it through the trampoline`;
  if (row.runs === 'loop') return `step ${row.step}: Rust kernel ${row.name} around the generated loop ${fn}`;
  return `step ${row.step}: generated function ${fn}, which forward calls`;
}
function tell(line, found) {
  if (!line) {
    detail.replaceChildren(el('p', { class: 'dim' }, 'Point at a line to see what belongs to it in the other columns. Click, tap or press Enter to keep it.'));
    return;
  }
  const rows = data.programs[state.program].rows.filter(row => line.steps.includes(row.step)), fn = line.fn === undefined ? null : data.programs[state.program].functions[line.fn];
  const about = [];
  if (line.column === 'ir') about.push(place(line.place) || 'No node: the program as a whole.');
  else if (line.column === 'plan') about.push(place(line.place), `; memory ${line.row.memory}`);
  else if (line.head) about.push(el('b', {}, fn.name), fn.name === 'forward' ? ' runs the plan: a loop over layers that are alike, and a call per step.' : ` is compiled once, for ${plural(line.steps.length, 'step', 'steps')}.`);
  else if (line.inst === null) about.push(el('b', {}, fn.name), line.column === 'code' && !fn.exact ? ': there is no disassembler for this machine, so lines are linked by function.' : ': no instruction of its own in Cranelift’s IR: a label, a constant, or what a function begins with.');
  else about.push(el('b', {}, fn.name), `, instruction ${line.inst} of Cranelift’s IR`, line.bytes ? `, bytes ${line.bytes.replace(/../g, '$& ').trim()}` : '');
  const say = [];
  if (line.folded >= 0 && line.steps.length) say.push(`No step has its origin: a pass has folded it into what reads it, ${data.places[line.folded].origin}.`);
  if (rows.length === 1) say.push(runs(rows[0]) + '.');
  else if (rows.length) {
    const kinds = ['kernel', 'code', 'loop'].map(kind => [kind, rows.filter(row => row.runs === kind).length]).filter(([, n]) => n);
    say.push(`${plural(rows.length, 'step', 'steps')} of the plan (${rows.slice(0, 12).map(row => row.step).join(', ')}${rows.length > 12 ? ', …' : ''}): ${kinds.map(([kind, n]) => kind === 'kernel' ? `${n} by kernels, which are not generated code` : kind === 'code' ? `${n} in generated code` : `${n} by kernels around generated loops`).join('; ')}.`);
  } else if (line.column === 'ir' && line.place >= 0) say.push('No step of this program has its origin: a pass has folded it into others or removed it.');
  else if (fn && !line.head) say.push('It belongs to no step: it is part of the schedule itself.');
  const size = column => found[column].near.size + found[column].exact.size;
  const linkedTo = COLUMNS.filter(([column]) => column !== line.column).map(([column, name]) => `${name} ${whole(size(column))}`).join(', ');
  detail.replaceChildren(el('p', {}, about.filter(Boolean)), el('p', {}, say.join(' ')), el('p', { class: 'dim' }, `Linked lines: ${linkedTo}.`));
}
