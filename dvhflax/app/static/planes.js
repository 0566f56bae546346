// The three linked planes: where they stand, the cross, what is under the
// pointer.

import {byId, html, setText} from './dom.js';
import {gy, percent, readable, signed} from './format.js';
import {
  PLANES, boxAround, placement, toMm, toScreen, toVoxel, wholeGrid, withinGrid,
} from './geometry.js';
import {PlanePainter} from './plane_painter.js';
import {beforeNextFrame} from './store.js';
import {doseAt, offset} from './volumes.js';

// Of the page at 1280x720, in CSS pixels.
const USUAL_REM = 13;
const KEYS = {
  ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0],
  ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0],
  PageUp: [0, 0, 1], PageDown: [0, 0, -1],
};

/** Shows planes in `#planes`; returns what tests and pictures ask for. */
export function showPlanes(store) {
  const panes = ['axial', 'sagittal', 'coronal'].map((name) =>
    makePane(store, name));
  const beside = makePane(store, 'axial', true);
  byId('planes').append(...panes.map((p) => p.element), beside.element);
  let box = null, boxOf = null;

  const paint = beforeNextFrame(() => {
    const {session, masks, doseA} = store;
    if (!session || !masks) return;
    if (boxOf !== masks) {
      boxOf = masks;
      const body = session.structures.reduce(
        (bits, s, n) => (s.role === 'body' ? bits | 1 << n : bits), 0);
      box = body ? boxAround(masks, session.grid.shape, body, 2) :
        wholeGrid(session.grid.shape);
    }
    const isBeside = store.view === 'beside' && store.doseB;
    byId('planes').dataset.beside = Boolean(isBeside);
    beside.name = store.large;
    for (const pane of panes) {
      pane.element.dataset.large = pane.name === store.large;
      pane.paint(box, doseA, isBeside ? 'A' : '');
    }
    if (isBeside) beside.paint(box, store.doseB, 'B');
    showReading(store, store.pointer ?? store.cross, Boolean(store.pointer));
  });
  const observer = new ResizeObserver(paint);
  for (const pane of [...panes, beside]) observer.observe(pane.canvas);
  store.on(
    ['session', 'masks', 'ct', 'doseA', 'doseB', 'cross', 'visible', 'display',
      'selected', 'view', 'large', 'pointer', 'zoom'], paint);
}

function makePane(store, name, isBeside = false) {
  const canvas = html('canvas', {
    tabindex: 0, role: 'img', 'aria-describedby': 'planes-help',
    'aria-label': `Dose in the ${name} plane`,
  });
  const letters = Object.keys(PLANES.axial.letters).map((side) =>
    html('span', {class: `letter ${side}`, 'aria-hidden': 'true'}));
  const title = html('span', {class: 'pane-title'});
  const enlarge = html('button', {
    class: 'enlarge', type: 'button', 'aria-label': `Enlarge the ${name} plane`,
    onclick: () => {
      canvas.focus();  // the button goes
      store.set({large: pane.name});
    },
  });
  const slider = html('input', {
    type: 'range', class: 'slicer', min: 0, step: 1, tabindex: -1,
    'aria-label': `Slice of the ${name} plane`,
    oninput: () => moveTo(PLANES[pane.name].through, Number(slider.value)),
  });
  const element = html(
    'figure', {class: 'pane', data: isBeside ? {beside: true} : {plane: name}},
    canvas, ...letters, title, isBeside ? null : enlarge, slider);
  const pane = {name, element, canvas, painter: new PlanePainter()};

  const moveTo = (axis, value) => {
    const cross = [...store.cross];
    cross[axis] = value;
    store.set({cross: withinGrid(store.session.grid.shape, cross)});
  };
  const voxelAt = (event) => {
    const plane = PLANES[pane.name];
    const unit = canvas.width / canvas.clientWidth;
    const [i, j] = toVoxel(
      pane.place, event.offsetX * unit, event.offsetY * unit);
    const voxel = [...store.cross];
    voxel[plane.across] = i;
    voxel[plane.down] = j;
    const {shape} = store.session.grid;
    const nearest = withinGrid(shape, voxel);
    const inside = voxel.every((n, a) => Math.abs(n - nearest[a]) <= 0.5001);
    return {nearest, inside};
  };
  canvas.addEventListener('pointermove', (event) => {
    if (!pane.place) return;
    const {nearest, inside} = voxelAt(event);
    if (event.buttons & 1) store.set({cross: nearest, pointer: null});
    else store.set({pointer: inside ? nearest : null});
  });
  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 || !pane.place) return;
    canvas.setPointerCapture(event.pointerId);
    store.set({cross: voxelAt(event).nearest, pointer: null});
  });
  canvas.addEventListener('pointerleave', () => store.set({pointer: null}));
  canvas.addEventListener('dblclick', () => store.set({large: pane.name}));
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    if (!event.deltaY) return;
    const way = Math.sign(event.deltaY);
    if (event.ctrlKey) zoomBy(store, way < 0 ? 1.2 : 1 / 1.2);
    else {
      const {through} = PLANES[pane.name];
      moveTo(through, store.cross[through] - way);
    }
  }, {passive: false});
  canvas.addEventListener('keydown', (event) => {
    const plane = PLANES[pane.name];
    if (event.key === 'Home') {
      store.set({cross: withinGrid(
        store.session.grid.shape, store.session.grid.isocentre)});
    } else if (event.key === 'Enter') store.set({large: pane.name});
    else if (event.key === '+' || event.key === '=') zoomBy(store, 1.2);
    else if (event.key === '-') zoomBy(store, 1 / 1.2);
    else if (event.key === '0') store.set({zoom: 1});
    else if (KEYS[event.key]) {
      const steps = event.shiftKey ? 5 : 1;
      const [across, down, through] = KEYS[event.key].map((n) => n * steps);
      const cross = [...store.cross];
      cross[plane.across] += across;
      cross[plane.down] += plane.upwards ? -down : down;
      cross[plane.through] += through;
      store.set({
        cross: withinGrid(store.session.grid.shape, cross), pointer: null});
    } else return;
    event.preventDefault();
  });

  pane.paint = (box, dose, mark) => {
    const {session, display, cross} = store;
    const plane = PLANES[pane.name];
    const unit = devicePixelRatio;
    // Lines are as thick as letters are large: at 4K more than a pixel.
    const thick = unit * rem() / USUAL_REM;
    const width = Math.round(canvas.clientWidth * unit);
    const height = Math.round(canvas.clientHeight * unit);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const {shape, spacing_mm: spacing} = session.grid;
    // A rim for the letters.
    const rim = 14 * unit;
    const inner = placement(plane, spacing, box, width - 2 * rim,
      height - 2 * rim, store.zoom, cross);
    pane.place = {...inner, x: inner.x + rim, y: inner.y + rim};
    const prescription = session.patient.prescription_gy;
    const difference = store.view === 'difference' && store.doseB;
    pane.painter.paint(canvas, {
      name: pane.name, place: pane.place, shape, index: cross[plane.through],
      cross, masks: store.masks, ct: store.ct, window: display.window,
      unit: thick,
      structures: session.structures.map((s, n) => ({
        shown: store.visible[n], selected: n === store.selected,
        body: s.role === 'body', colours: store.colours[n],
      })),
      dose, against: difference ? store.doseB : null,
      rangeGy: difference ? store.differenceGy : 1.1 * prescription,
      wash: display.wash, contours: display.contours,
      isodoses: display.isodoses ? display.levels.filter((l) => l.shown).map(
        ({percent: p, colour}) => ({gy: p * prescription / 100, colour})) : [],
      version: session.session,
    });
    Object.entries(plane.letters).forEach(([, letter], n) =>
      setText(letters[n], letter));
    const mm = toMm(session.grid, cross)[plane.through];
    setText(title, `${mark ? `${mark} · ` : ''}${pane.name} ` +
      `${signed(mm)} mm`);
    enlarge.setAttribute('aria-label', `Enlarge the ${pane.name} plane`);
    canvas.setAttribute('aria-label', `Dose in the ${pane.name} plane`);
    slider.setAttribute('aria-label', `Slice of the ${pane.name} plane`);
    slider.max = shape[plane.through] - 1;
    slider.value = cross[plane.through];
    const [x, y] = toScreen(
      pane.place, cross[plane.across], cross[plane.down]);
    Object.assign(canvas.dataset, {
      plane: pane.name, painted: 'true', voxel: cross.join(),
      crossX: (x / unit).toFixed(2), crossY: (y / unit).toFixed(2),
    });
  };
  return pane;
}

const rem = () =>
  parseFloat(getComputedStyle(document.documentElement).fontSize);

function zoomBy(store, factor) {
  store.set({zoom: Math.min(Math.max(store.zoom * factor, 1), 8)});
}

function showReading(store, voxel, underPointer) {
  const {session, doseA, doseB, masks, ct} = store;
  if (!doseA) return;
  const {grid, structures, patient} = session;
  const mm = toMm(grid, voxel).map((n) => n.toFixed(1));
  const dose = doseAt(doseA, grid.shape, voxel);
  const at = offset(grid.shape, voxel);
  const inside = structures.filter((_, s) => (masks[at] >> s) & 1)
    .map((s) => readable(s.name));
  const line = byId('reading');
  Object.assign(line.dataset, {
    gy: dose.toFixed(3), voxel: voxel.join(), pointer: underPointer});
  setText(byId('reading-place'), underPointer ? 'pointer' : 'cross');
  setText(byId('reading-dose'), gy(dose));
  setText(byId('reading-percent'),
    percent(100 * dose / patient.prescription_gy));
  const other = doseB ? dose - doseAt(doseB, grid.shape, voxel) : null;
  setText(byId('reading-change'), other === null ? '' :
    `${signed(other)} Gy`);
  setText(byId('reading-inside'), inside.join(', ') || 'outside');
  setText(byId('reading-mm'), `${mm.join('  ')} mm` +
    (ct ? `  ·  ${ct[at]} HU` : ''));
}
