// Figures: drawn by the compiler, shown here with their files and their numbers.
const drawings = JSON.parse(document.getElementById('figures').textContent);
const figuresOf = part => drawings.figures.filter(f => f.part === part);
/** The figure of this beginning of a name, of a site or a price list. */
const figureOf = (start, of) => drawings.figures.find(f => f.id.startsWith(start) && f.of === of);
const figureNamed = id => drawings.figures.find(f => f.id === id);

/** A figure of the page as a file of its own: with its style, on white. `svg::stand_alone` does the same. */
function standAlone(svg) {
  const at = svg.indexOf('>') + 1;
  return `${svg.slice(0, at)}<style>${drawings.style}</style><rect class='paper' x='-6' y='-6' width='100%' height='100%'/>${svg.slice(at)}`;
}
function save(name, parts, type) {
  const link = el('a', { download: name, href: URL.createObjectURL(new Blob(parts, { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
/** A picture of twice the size. */
async function picture(svg) {
  const image = new Image();
  image.src = 'data:image/svg+xml;charset=utf-8,' + encodeURIComponent(svg);
  await image.decode();
  const canvas = el('canvas', { width: 2 * image.width, height: 2 * image.height });
  canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise(done => canvas.toBlob(done, 'image/png'));
}
/** Buttons that save a figure; `svg` and `csv` give its text. */
function saving(name, title, svg, csv) {
  const button = (ending, act) => el('button', { type: 'button', 'aria-label': `Save “${title}” as ${ending}`, onclick: act }, ending);
  return el('span', { class: 'saving' }, 'Save as ', button('SVG', () => save(name + '.svg', [svg()], 'image/svg+xml')),
    button('PNG', async () => save(name + '.png', [await picture(svg())], 'image/png')), button('CSV', () => save(name + '.csv', [csv()], 'text/csv')));
}
/** Rows of a CSV text. */
function rowsOf(csv) {
  const rows = [[]];
  let cell = '', quoted = false;
  for (let i = 0; i < csv.length; i++) {
    const c = csv[i];
    if (quoted && c === '"' && csv[i + 1] === '"') { cell += c; i++; }
    else if (c === '"') quoted = !quoted;
    else if (!quoted && (c === ',' || c === '\n')) { rows[rows.length - 1].push(cell); cell = ''; if (c === '\n') rows.push([]); }
    else cell += c;
  }
  rows.pop();
  return rows;
}
const ROWS_MOST = 300, COLUMNS_MOST = 24;
/** The numbers of a figure as a table, made when it is opened. */
function numbersOf(figure) {
  const place = el('div', { class: 'inside scroll', tabindex: 0, role: 'region', 'aria-label': 'Numbers of ' + figure.title });
  const fill = () => {
    if (place.firstChild) return;
    const [head, ...rows] = rowsOf(figure.csv);
    const cut = rows.length > ROWS_MOST || head.length > COLUMNS_MOST;
    const short = text => text !== '' && Number.isFinite(+text) && text.length > 9 ? String(+(+text).toPrecision(6)) : text;
    const line = cells => el('tr', {}, cells.slice(0, COLUMNS_MOST).map((text, i) => i ? el('td', {}, short(text)) : el('th', { scope: 'row' }, text)));
    place.append(el('table', {}, cut && el('caption', {}, `The first of ${whole(rows.length)} rows and ${head.length} columns; the CSV file has all.`),
      el('thead', {}, el('tr', {}, head.slice(0, COLUMNS_MOST).map((name, i) => el('th', { scope: 'col', class: i ? null : 'left' }, name)))), el('tbody', {}, rows.slice(0, ROWS_MOST).map(line))));
  };
  return el('details', { class: 'numbers', ontoggle: event => event.target.open && fill() }, el('summary', {}, 'The numbers'), place);
}
const parsed = svg => document.importNode(new DOMParser().parseFromString(svg, 'image/svg+xml').documentElement, true);

/** A figure; `level` is that of its heading. */
function plot(figure, level = 'h3') {
  const views = [[figure.svg, figure.narrow ? 'wide-view' : 'any-view'], ...(figure.narrow ? [[figure.narrow, 'narrow-view']] : [])];
  return el('figure', { class: 'plot' + (figure.half ? ' half' : ''), id: 'figure-' + figure.id },
    el(level, {}, figure.title, ' ', el('a', { class: 'permalink', href: '#figure-' + figure.id, 'aria-label': 'Link to ' + figure.title }, '#')),
    views.map(([svg, view]) => el('div', { class: view }, parsed(svg))),
    el('figcaption', {}, figure.caption, ' ', saving(figure.id, figure.title, () => standAlone(figure.svg), () => figure.csv)), numbersOf(figure));
}

/** What a canvas is drawn on to become SVG: the methods that drawings here use. */
class SvgContext {
  constructor(width, height) {
    Object.assign(this, { width, height, body: '', path: '', fillStyle: '#000', strokeStyle: '#000', lineWidth: 1, font: '12px sans-serif', textAlign: 'left', textBaseline: 'alphabetic' });
    this.measure = el('canvas', {}).getContext('2d');
  }
  getTransform() { return { a: 1 }; }
  measureText(text) { this.measure.font = this.font; return this.measure.measureText(text); }
  beginPath() { this.path = ''; }
  moveTo(x, y) { this.path += `M${x} ${y}`; }
  lineTo(x, y) { this.path += `L${x} ${y}`; }
  stroke() { this.body += `<path d='${this.path}' fill='none' stroke='${this.strokeStyle}' stroke-width='${this.lineWidth}'/>`; }
  strokeRect(x, y, w, h) { this.body += `<rect x='${x}' y='${y}' width='${w}' height='${h}' fill='none' stroke='${this.strokeStyle}' stroke-width='${this.lineWidth}'/>`; }
  drawImage(image, x, y, w, h) { this.body += `<image x='${x}' y='${y}' width='${w}' height='${h}' preserveAspectRatio='none' style='image-rendering:pixelated' href='${image.toDataURL()}'/>`; }
  fillText(text, x, y) {
    const anchor = { left: 'start', right: 'end', center: 'middle' }[this.textAlign], size = parseFloat(this.font);
    const down = { top: .8, middle: .35, alphabetic: 0 }[this.textBaseline] * size;
    const safe = text.replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`).replace(/[\u0000-\u001f\ufffe\uffff]/g, '');
    this.body += `<text x='${x}' y='${y + down}' text-anchor='${anchor}' style='font:${size}px sans-serif' fill='${this.fillStyle}'>${safe}</text>`;
  }
  svg(title) {
    return `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 ${this.width} ${this.height}' width='${this.width}' height='${this.height}' role='img'><title>${title}</title><rect width='100%' height='100%' fill='#fff'/>${this.body}</svg>`;
  }
}
/** A canvas's drawing as SVG, in the colours of paper. */
function canvasAsSvg(draw, width, height, title) {
  const root = document.documentElement, theme = root.dataset.theme, context = new SvgContext(width, height);
  root.dataset.theme = 'light';
  colours.clear();
  draw(context, width, height);
  root.dataset.theme = theme;
  colours.clear();
  return context.svg(title);
}
