'use strict';
// Sorting, filtering and the detail dialog. Text from the data only ever enters as textContent.
const DATA = JSON.parse(document.getElementById('data').textContent);

function make(tag, attributes, ...children) {
  const svg = ['svg', 'path', 'line', 'text', 'circle', 'g'].includes(tag);
  const node = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function sortRows(body, heads, index, key) {
  const head = heads[index];
  const up = head.getAttribute('aria-sort') === 'descending' ||
    (head.getAttribute('aria-sort') === 'none' && head.dataset.first === 'up');
  for (const other of heads) other.setAttribute('aria-sort', 'none');
  head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const rows = [...body.rows].map((row) => [row, key(row)]);
  const empty = (v) => v === '' || Number.isNaN(v);
  rows.sort(([, a], [, b]) => {
    if (empty(a) || empty(b)) return empty(a) - empty(b); // missing last, whichever way
    const order = typeof a === 'string' ? a.localeCompare(b) : a - b;
    return up ? order : -order;
  });
  body.append(...rows.map(([row]) => row));
}

function number(text) { return text === '' || text === undefined || text === '–' ? NaN : Number(text); }

function setUpTable(section) {
  const table = section.querySelector('table.results');
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads[0].dataset.first = 'up';
  heads.forEach((head, i) => head.querySelector('button').addEventListener('click', () => {
    sortRows(body, heads, i, (row) => i === 0 ? row.dataset.name.toLowerCase() : number(row.cells[i].dataset.v));
    rove(null);
  }));

  const rowFilter = section.querySelector('.filter-rows');
  const columnFilter = section.querySelector('.filter-columns');
  const onlyFailed = section.querySelector('.only-failed');
  const matches = (name, wanted) => !wanted.length || wanted.some((w) => name.toLowerCase().includes(w));
  const words = (input) => input.value.toLowerCase().split(',').map((w) => w.trim()).filter(Boolean);
  function filter() {
    const rows = words(rowFilter), columns = words(columnFilter);
    const shown = heads.map((h, i) => i === 0 || matches(h.textContent, columns));
    let rowCount = 0;
    for (const row of body.rows) {
      const failing = [...row.cells].some((c, i) => i > 0 && shown[i] && c.classList.contains('failed'));
      row.hidden = !matches(row.dataset.name, rows) || (onlyFailed.checked && !failing);
      rowCount += !row.hidden;
    }
    for (const row of table.rows) [...row.cells].forEach((cell, i) => { cell.hidden = !shown[i]; });
    section.querySelector('.count').textContent =
      `${rowCount} of ${body.rows.length} optimizers, ${shown.filter(Boolean).length - 1} of ${heads.length - 1} columns`;
    rove(null);
  }
  for (const input of [rowFilter, columnFilter, onlyFailed]) input.addEventListener('input', filter);
  section.querySelector('.reset').addEventListener('click', () => {
    rowFilter.value = columnFilter.value = '';
    onlyFailed.checked = false;
    const rows = [...body.rows].sort((a, b) => a.dataset.r - b.dataset.r);
    body.append(...rows);
    for (const head of heads) head.setAttribute('aria-sort', 'none');
    filter();
  });

  // One cell of the table is in the tab order; arrows move it.
  let current = null;
  const cells = () => [...body.querySelectorAll('td[tabindex]')].filter((c) => !c.hidden && !c.parentNode.hidden);
  function rove(cell) {
    if (current) current.tabIndex = -1;
    current = cell || cells()[0] || null;
    if (current) current.tabIndex = 0;
    if (cell) cell.focus();
  }
  body.addEventListener('keydown', (event) => {
    const cell = event.target.closest('td[tabindex]');
    if (!cell) return;
    if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); open(section, cell); return; }
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    let [row, column] = [[...body.rows].indexOf(cell.parentNode), cell.cellIndex];
    for (;;) {
      row += step[0]; column += step[1];
      const next = body.rows[row] && column > 0 && body.rows[row].cells[column];
      if (!next) return;
      if (next.hasAttribute('tabindex') && !next.hidden && !next.parentNode.hidden) { rove(next); return; }
    }
  });
  body.addEventListener('click', (event) => {
    const cell = event.target.closest('td[tabindex]');
    if (cell) { rove(cell); open(section, cell); }
  });
  filter();
}

function row(...texts) {
  return make('tr', {}, ...texts.map((t, i) => make(i ? 'td' : 'th', i ? {} : { scope: 'row', class: 'name' }, t)));
}

function list(pairs) {
  return make('dl', {}, ...pairs.filter((p) => p[1] !== null && p[1] !== '' && p[1] !== undefined)
    .flatMap(([k, v]) => [make('dt', {}, k), make('dd', {}, String(v))]));
}

function open(section, cell) {
  const table = DATA.tables[Number(section.dataset.table)];
  const detail = table.cells[`${cell.parentNode.dataset.r},${cell.dataset.c}`];
  const dialog = document.getElementById('detail');
  document.getElementById('detail-title').textContent = `${detail.optimizer} on ${detail.column}`;
  const parts = [list(detail.facts)];
  if (detail.settings && detail.settings.length) {
    parts.push(make('h3', {}, `Settings tried (${detail.tried})`), make('div', { class: 'scroll', tabindex: '0' },
      make('table', { class: 'plain' }, make('thead', {}, make('tr', {},
        ...['Learning rate', 'Weight decay', 'Result', 'Seeds', 'Diverged'].map((h) => make('th', { scope: 'col' }, h)))),
      make('tbody', {}, ...detail.settings.map((s) => row(...s))))));
  }
  const runs = detail.runs || [];
  if (runs.some((r) => r.curve.length > 1 || r.losses.length > 1)) {
    parts.push(make('h3', {}, 'Curves'), make('div', { class: 'curves' },
      chart(`${runs[0].metric || 'metric'} over ${runs[0].over || 'epochs'}`, runs.map((r) => r.curve)),
      chart('loss over iterations', runs.map((r) => r.losses))));
  }
  runs.forEach((run, i) => parts.push(make('h3', {}, runs.length > 1 ? `Run ${i + 1}` : 'Run'), list(run.facts)));
  document.getElementById('detail-body').replaceChildren(...parts);
  dialog.showModal();
  dialog.scrollTop = 0;
}

const COLORS = ['#0072b2', '#d55e00', '#009e73', '#e69f00', '#cc79a7', '#56b4e9'];
function chart(title, series) {
  const points = series.map((s) => s.filter((p) => Number.isFinite(p[0]) && Number.isFinite(p[1])));
  const all = points.flat();
  if (all.length < 2) return null;
  const [W, H, L, B] = [360, 190, 44, 22];
  const range = (i) => all.reduce(([a, b], p) => [Math.min(a, p[i]), Math.max(b, p[i])], [Infinity, -Infinity]);
  const [x0, x1] = range(0), [y0, y1] = range(1);
  const x = (v) => L + (W - L - 8) * (v - x0) / (x1 - x0 || 1);
  const y = (v) => H - B - (H - B - 10) * (v - y0) / (y1 - y0 || 1);
  const svg = make('svg', { viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': `${title}: from ${short(all[0][1])} to ${short(all[all.length - 1][1])}` });
  for (const v of [y0, (y0 + y1) / 2, y1]) {
    svg.append(make('line', { x1: L, x2: W - 8, y1: y(v), y2: y(v), stroke: '#e4e7eb' }),
      make('text', { x: L - 5, y: y(v) + 3, 'text-anchor': 'end' }, short(v)));
  }
  svg.append(make('text', { x: L, y: H - 6 }, short(x0)), make('text', { x: W - 8, y: H - 6, 'text-anchor': 'end' }, short(x1)));
  points.forEach((p, i) => {
    if (!p.length) return;
    const path = p.map((q, j) => `${j ? 'L' : 'M'}${x(q[0]).toFixed(1)} ${y(q[1]).toFixed(1)}`).join('');
    svg.append(make('path', { d: path, fill: 'none', stroke: COLORS[i % COLORS.length], 'stroke-width': 1.6 }));
  });
  return make('figure', {}, make('figcaption', {}, title), svg);
}
function short(v) { return Math.abs(v) >= 1e4 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(1) : String(Number(v.toPrecision(4))); }

document.querySelectorAll('.table-section').forEach(setUpTable);
document.querySelectorAll('table.sortable').forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => {
    head.dataset.first = 'up';
    head.querySelector('button').addEventListener('click', () => sortRows(table.tBodies[0], heads, i,
      (r) => i === 0 ? r.cells[0].textContent.toLowerCase() : number(r.cells[i].dataset.v)));
  });
});
const dialog = document.getElementById('detail');
dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
