// Controls, mouse, keyboard and theme.
const dark = matchMedia('(prefers-color-scheme: dark)');
let themeChoice = 'auto';
try { themeChoice = localStorage.getItem('snnc-theme') || 'auto'; } catch { /* A page from a file may have no storage. */ }
function theme() {
  document.documentElement.dataset.theme = themeChoice === 'auto' ? (dark.matches ? 'dark' : 'light') : themeChoice;
  document.querySelectorAll('[data-theme-choice]').forEach(b => b.setAttribute('aria-pressed', b.dataset.themeChoice === themeChoice));
}
document.querySelectorAll('[data-theme-choice]').forEach(button => button.addEventListener('click', () => {
  themeChoice = button.dataset.themeChoice;
  try { localStorage.setItem('snnc-theme', themeChoice); } catch { /* Then it is for this visit. */ }
  theme();
}));
dark.addEventListener('change', theme);

const lineAt = target => {
  const node = target.closest('[role="option"]'), box = node && node.closest('.lines');
  if (!box) return null;
  const column = box.id.slice('lines-'.length);
  return shown[column].lines[+node.id.slice(column.length + 1)] || null;
};
let pointed = null, waits = false, mouse = '';
main.addEventListener('mousemove', event => {
  // A column that scrolls below a mouse that rests makes events as well.
  const now = event.clientX + ',' + event.clientY, line = lineAt(event.target);
  if (now === mouse || line === pointed) { mouse = now; return; }
  mouse = now;
  pointed = line;
  if (waits) return;
  waits = true;
  requestAnimationFrame(() => { waits = false; mark(pointed || chosen); });
});
main.addEventListener('mouseleave', () => { pointed = null; mark(chosen); });
main.addEventListener('click', event => {
  const line = lineAt(event.target);
  if (!line) return;
  pointed = null;
  choose(line === chosen ? null : line);
});

/** Moves the choice within a column, and shows it. */
function go(column, i) {
  const { lines } = shown[column];
  if (!lines.length) return;
  choose(lines[Math.max(0, Math.min(lines.length - 1, i))]);
  chosen.node.scrollIntoView({ block: 'nearest', inline: 'nearest' });
}
main.addEventListener('keydown', event => {
  const box = event.target.closest('.lines');
  if (!box || event.ctrlKey || event.metaKey || event.altKey) return;
  const column = box.id.slice('lines-'.length), at = chosen && chosen.column === column ? chosen.i : -1, order = COLUMNS.map(([name]) => name);
  const beside = by => {
    const next = order[order.indexOf(column) + by];
    if (!next) return;
    const line = chosen && firstLinked(chosen, next);
    openTab(next);
    boxes[next].focus();
    if (line) go(next, line.i);
  };
  const following = by => {
    const from = chosen || shown[column].lines[0], { near, exact } = linked(from)[column];
    const ordered = [...near, ...exact].map(line => line.i).sort((a, b) => a - b);
    const next = by > 0 ? ordered.find(i => i > at) : ordered.filter(i => i < at).pop();
    if (next !== undefined) go(column, next);
  };
  const keys = {
    ArrowDown: () => go(column, at + 1), ArrowUp: () => go(column, at < 0 ? 0 : at - 1), Home: () => go(column, 0), End: () => go(column, Infinity),
    PageDown: () => go(column, at + 20), PageUp: () => go(column, at - 20), ArrowRight: () => beside(1), ArrowLeft: () => beside(-1),
    Enter: () => at < 0 && go(column, 0), Escape: () => choose(null), n: () => following(1), p: () => following(-1), '/': () => document.getElementById('find').focus(),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
tabs.addEventListener('keydown', event => {
  const order = COLUMNS.map(([name]) => name), now = order.indexOf(document.body.dataset.tab);
  const next = { ArrowRight: order[now + 1], ArrowLeft: order[now - 1] }[event.key];
  if (!next) return;
  openTab(next);
  document.getElementById('tab-' + next).focus();
});

// --- controls ---
document.getElementById('title').textContent = data.title;
const field = (label, control) => el('label', {}, label, control);
const select = (id, options, pick) => el('select', { id, onchange: event => { pick(event.target.value); draw(); } }, options.map(([value, name]) => el('option', { value }, name)));
const tools = document.getElementById('tools');
tools.addEventListener('submit', event => event.preventDefault());
const formOf = data.programs.map(program => program.form === 'collapsed' ? 'collapsed: without timesteps' : 'stepped: every timestep');
const stages = data.stages.map((stage, i) => [i, `${stage.pass} (${stage.stage})`]);
const [first, last] = data.left_out ? data.left_out.shown : [0, data.layers - 1];
const layers = [['', data.left_out ? `${first} to ${last}` : 'all']].concat(Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => [first + i, String(first + i)]));
const stagePick = select('stage', stages, value => { state.stage = +value; });
const programPick = select('program', formOf.map((name, i) => [i, name]), value => {
  // Where the stage is the other program itself, it changes as well.
  const own = data.stages.findIndex(stage => stage.program === +value);
  if (data.stages[state.stage].program !== null) { state.stage = own; stagePick.value = own; }
  state.program = +value;
});
let typing = 0;
const functionPick = el('select', { id: 'function', onchange: event => {
  for (const column of ['clif', 'code']) {
    const head = shown[column].lines.find(line => line.head && line.fn === +event.target.value), box = boxes[column];
    if (head) box.scrollTop += head.node.getBoundingClientRect().top - box.getBoundingClientRect().top;
  }
} });
/** The functions of the program that is shown. */
function listFunctions() {
  functionPick.replaceChildren(...shown.clif.lines.filter(line => line.head).map(line => el('option', { value: line.fn }, data.programs[state.program].functions[line.fn].name)));
}
onDraw = listFunctions;
tools.append(field('IR after', stagePick), field('Runs', programPick), field('Function', functionPick), field('Layer', select('layer', layers, value => { state.layer = value; })),
  field('Find', el('input', { type: 'search', id: 'find', placeholder: 'fire, add_256, call …', oninput: event => { clearTimeout(typing); typing = setTimeout(() => { state.wanted = event.target.value; draw(); }, 120); } })),
  el('label', { class: 'check' }, el('input', { type: 'checkbox', id: 'weights', onchange: event => { state.weights = event.target.checked; draw(); } }), 'constants'));

const p = (...parts) => el('p', {}, parts), code = text => el('code', {}, text);
const wrong = data.gives_program === false && p('The passes were run again, and do not give the very program of the file: another version of snnc or another reference may have made it. What runs is the program of the file.');
document.getElementById('about-text').append(...[
  p('Four columns show one program: its IR after the pass that you choose, the plan of the form that runs, Cranelift’s IR (CLIF) before it is optimised, and machine code. Lines with a blue edge share a step of the plan with the line that you point at. Lines in yellow are the very same instruction.'),
  el('ul', {},
    el('li', {}, 'A node of the program that runs is linked to the steps that run it. A node of another stage is linked by its origin, the ONNX node, and by its site.'),
    el('li', {}, 'A function is compiled once for all steps of the same work, so its lines belong to all of them. ', code('forward'), ' runs the plan: its instructions belong to the step that they call, in every layer of the loop over layers.'),
    el('li', {}, 'A step by a ', el('b', {}, 'kernel'), ` is Rust code of snnc and is not generated: only its call in `, code('forward'), ` is here. Kernels of this page use ${data.isa} instructions; `, code('--isa portable'), ' leaves more to generated code.'),
    el('li', {}, 'Addresses of kernels are put in when the code is loaded, so they are 0 here.')),
  p('Keys in a column: ', [['↑ ↓', 'choose a line'], ['← →', 'go to what is linked in the next column'], ['n p', 'next and previous linked line'], ['/', 'find'], ['Esc', 'let go']].map(([keys, what]) => [el('kbd', {}, keys), ` ${what}; `])),
  data.gives_program === null && p('The passes before the program are not here: ', code('--reference MODEL.onnx'), ' adds them.'), wrong,
  data.left_out && p(`Layers ${first} to ${last} of ${data.layers} are shown, and what belongs to no layer. ${whole(data.left_out.lines)} lines of other layers are left out${data.left_out.for_size ? ', as the page would be too large' : ''}: `, code('--layers N-M'), ' chooses others.'),
  p('Made by ', code(data.command || 'snnc explore'), `, snnc ${data.snnc}, for ${data.machine}.`),
].filter(Boolean));

state.program = 0;
state.stage = data.stages.findIndex(stage => stage.program === 0);
stagePick.value = state.stage;
theme();
draw();
document.documentElement.dataset.ready = 'true';
