// The data, and which lines of one column belong to which lines of another: they share a step of the plan.
const data = JSON.parse(document.getElementById('data').textContent);
const state = { stage: 0, program: 0, layer: '', weights: false, wanted: '' };
const COLUMNS = [['ir', 'IR'], ['plan', 'Plan'], ['clif', 'CLIF'], ['code', 'Machine code']];
const EMPTY = [];

/** By program: the steps of every place and of every origin, from the stage that is this program. */
const ofPlaces = data.programs.map((_, program) => {
  const places = new Map(), origins = new Map();
  const add = (map, key, steps) => {
    if (!map.has(key)) map.set(key, new Set());
    steps.forEach(step => map.get(key).add(step));
  };
  for (const [, place, steps] of data.stages.find(stage => stage.program === program).lines) {
    if (place < 0 || !steps.length) continue;
    const { origin, site } = data.places[place];
    add(places, key(origin, site), steps);
    if (origin) add(origins, origin, steps);
  }
  return { places, origins };
});
function key(origin, site) { return origin + '\n' + (site || ''); }

/** Steps that run a line of IR: its node's, where this stage is the program that runs, else those of its origin and site. */
function stepsOf([, place, steps, folded], stage) {
  if (data.stages[stage].program === state.program) return steps;
  if (folded >= 0) return stepsOf([, folded, EMPTY, -1], stage);
  if (place < 0) return EMPTY;
  const { origin, site } = data.places[place], { places, origins } = ofPlaces[state.program];
  const found = places.get(key(origin, site)) || (origin && origins.get(origin));
  return found ? [...found].sort((a, b) => a - b) : EMPTY;
}

/** The lines of a column as objects: what they say, which steps they belong to, and which instruction they are. */
const inLayer = place => state.layer === '' || place < 0 || data.places[place].layer === null || data.places[place].layer === +state.layer;
function linesOf(column) {
  const program = data.programs[state.program];
  if (column === 'ir') {
    const { lines } = data.stages[state.stage];
    return lines.filter(line => inLayer(line[1]) && (state.weights || !line[0].startsWith('weight ')))
      .map(line => ({ column, text: line[0], place: line[1], folded: line[3], steps: stepsOf(line, state.stage) }));
  }
  const rows = program.rows.filter(row => inLayer(row.place));
  if (column === 'plan') return rows.map(row => ({ column, text: row.text, place: row.place, steps: [row.step], row }));
  const visible = new Set(rows.map(row => row.step)), lines = [];
  program.functions.forEach((fn, f) => {
    const sets = fn.sets.map(set => set.filter(step => visible.has(step)));
    if (!sets.some(set => set.length) && fn.sets.some(set => set.length)) return;
    const of = inst => inst === null ? sets[0] : sets[fn.of[inst]] || EMPTY;
    const bytes = column === 'code' ? ` ${fn.bytes.toLocaleString('en-GB')} bytes` : '';
    lines.push({ column, text: `${fn.name}:${bytes}`, steps: sets[0], fn: f, inst: null, head: true });
    for (const line of column === 'clif' ? fn.clif : fn.code) {
      const [text, inst] = column === 'clif' ? line : [line[2], line[3]];
      lines.push({ column, text, steps: column === 'clif' ? of(inst) : sets[line[4]] || EMPTY, fn: f, inst, offset: column === 'code' ? line[0] : null, bytes: column === 'code' ? line[1] : '' });
    }
  });
  return lines;
}

/** What is shown: by column its lines, its lines by step, and lines of Cranelift's IR and of the machine by instruction. */
let shown = {};
function gather() {
  const wanted = state.wanted.toLowerCase();
  shown = {};
  for (const [column] of COLUMNS) {
    const lines = linesOf(column).filter(line => !wanted || line.head || line.text.toLowerCase().includes(wanted)), bySteps = new Map(), byInst = new Map();
    lines.forEach((line, i) => {
      line.i = i;
      line.steps.forEach(step => bySteps.has(step) ? bySteps.get(step).push(line) : bySteps.set(step, [line]));
      if (line.inst !== null && line.inst !== undefined) {
        const at = line.fn + ':' + line.inst;
        byInst.has(at) ? byInst.get(at).push(line) : byInst.set(at, [line]);
      }
    });
    shown[column] = { lines, bySteps, byInst };
  }
}

/** By column: lines that share a step with a line, and those that are the very same instruction or node. */
function linked(line) {
  const found = {};
  for (const [column] of COLUMNS) {
    const { lines, bySteps, byInst } = shown[column], near = new Set(), exact = new Set();
    line.steps.forEach(step => (bySteps.get(step) || EMPTY).forEach(other => near.add(other)));
    if (column === 'ir' && line.column === 'ir' && line.place >= 0) lines.forEach(other => { if (other.place === line.place) near.add(other); });
    if (line.inst !== null && line.inst !== undefined) (byInst.get(line.fn + ':' + line.inst) || EMPTY).forEach(other => exact.add(other));
    if (column === line.column) exact.add(line);
    exact.forEach(other => near.delete(other));
    found[column] = { near, exact };
  }
  return found;
}
