// The DVHs: desired dotted, achieved solid, the one compared with thin, a band
// of what can be had, and the handles.

import {nearestCurve, volumeAtDose} from './curves.js';
import {byId, html, setAttribute, setText, svg} from './dom.js';
import {cc, goalPlace, gy, percent, readable, signed} from './format.js';
import {pullable} from './handle_drag.js';
import {markPath} from './marks.js';
import {currentStep, idB, doseLabel, onCurrent, shownCurves} from './shown.js';
import {beforeNextFrame} from './store.js';

const LINES = ['band', 'before', 'achieved', 'desired'];

/** Shows the plot in `#dvh`. */
export function showPlot(store, desk) {
  const root = byId('dvh');
  const layers = Object.fromEntries(
    ['grid', ...LINES, 'goals', 'labels', 'hover', 'handles'].map((name) =>
      [name, svg('g', {class: `layer-${name}`})]));
  const picture = svg('svg', {
    id: 'dvh-picture', role: 'group',
    'aria-label': 'Dose-volume histograms with handles to pull',
  }, svg('clipPath', {id: 'dvh-clip'}, svg('rect', {})),
  ...Object.values(layers));
  for (const name of [...LINES, 'goals']) {
    layers[name].setAttribute('clip-path', 'url(#dvh-clip)');
  }
  const tip = html('div', {id: 'dvh-tip', role: 'status', hidden: true});
  root.append(picture, tip);

  const frame = {left: 0, top: 0, width: 1, height: 1, mostGy: 1};
  const toPixel = (dose, volume) => [
    frame.left + frame.width * dose / frame.mostGy,
    frame.top + frame.height * (1 - volume / 100)];
  const fromPixel = (x, y) => [
    frame.mostGy * (x - frame.left) / frame.width,
    100 * (1 - (y - frame.top) / frame.height)];
  const plot = {store, desk, picture, layers, frame, toPixel, fromPixel};
  const paintHandles = pullable(plot);
  let curves = null;

  const paint = beforeNextFrame(() => {
    if (!store.session || !store.doseA) return;
    if (!measure(plot, root)) return;
    curves = shownCurves(store);
    paintCurves(plot, curves);
    paintGoals(plot);
    paintLabels(plot, curves.achieved);
    paintHandles();
    Object.assign(root.dataset, {
      painted: 'true', left: frame.left, top: frame.top, width: frame.width,
      height: frame.height, mostGy: frame.mostGy});
  });
  new ResizeObserver(paint).observe(root);
  store.on(
    ['session', 'doseA', 'doseB', 'preview', 'guess', 'handles', 'visible',
      'selected', 'curves', 'theme'], paint);

  picture.addEventListener('pointermove', (event) => {
    if (!curves || store.dragging) return hide();
    hover(plot, curves, event, tip);
  });
  const hide = () => {
    tip.hidden = true;
    layers.hover.replaceChildren();
  };
  picture.addEventListener('pointerleave', hide);
  picture.addEventListener('pointerdown', (event) => {
    if (event.target.closest('.handle')) return;
    const found = curves && nearest(plot, curves, event);
    if (found) store.set({selected: found.index});
  });
}

function measure(plot, root) {
  const {store, frame, layers, picture} = plot;
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const width = root.clientWidth, height = root.clientHeight;
  if (width < 50 || height < 50) return false;
  const prescription = store.session.patient.prescription_gy;
  const mostGy = Math.ceil(1.2 * prescription / 5) * 5;
  const key = [width, height, rem, mostGy, prescription].join();
  if (frame.key === key) return true;
  Object.assign(frame, {
    key, rem, mostGy, left: 3 * rem, top: 1.7 * rem,
    width: width - 4 * rem, height: height - 4.4 * rem});
  setAttribute(picture, 'viewBox', `0 0 ${width} ${height}`);
  const clip = picture.querySelector('#dvh-clip rect');
  for (const [name, value] of Object.entries({
    x: frame.left, y: frame.top - 3, width: frame.width,
    height: frame.height + 6})) setAttribute(clip, name, value);
  paintGrid(plot, prescription);
  return true;
}

function paintGrid({layers, frame, toPixel}, prescription) {
  const {rem, mostGy} = frame;
  const parts = [];
  const right = frame.left + frame.width, bottom = frame.top + frame.height;
  const text = (x, y, label, anchor = 'middle', kind = 'tick') => parts.push(
    svg('text', {x, y, 'text-anchor': anchor, class: kind}, label));
  const line = (x1, y1, x2, y2, kind) => parts.push(
    svg('line', {x1, y1, x2, y2, class: kind}));
  for (let volume = 0; volume <= 100; volume += 20) {
    const [x, y] = toPixel(0, volume);
    line(x, y, right, y, volume ? 'rule' : 'axis');
    text(x - 0.5 * rem, y + 0.32 * rem, volume, 'end');
  }
  const step = mostGy > 50 ? 10 : mostGy > 20 ? 5 : 2;
  for (let dose = 0; dose <= mostGy; dose += step) {
    const [x] = toPixel(dose, 0);
    line(x, frame.top, x, bottom, dose ? 'rule' : 'axis');
    text(x, bottom + 1.15 * rem, dose);
  }
  for (const share of [25, 50, 75, 95, 107]) {
    const [x] = toPixel(share * prescription / 100, 0);
    line(x, frame.top - 0.3 * rem, x, frame.top, 'axis');
    text(x, frame.top - 0.5 * rem, share, 'middle', 'tick faint');
  }
  text(right, frame.top - 0.5 * rem, '% Rx', 'end', 'tick faint');
  text(frame.left + frame.width / 2, bottom + 2.25 * rem, 'Dose (Gy)',
    'middle', 'axis-title');
  parts.push(svg('text', {
    class: 'axis-title', 'text-anchor': 'middle',
    transform: `translate(${0.95 * rem} ${frame.top + frame.height / 2}) ` +
      'rotate(-90)'}, 'Volume (%)'));
  layers.grid.replaceChildren(...parts);
}

function keyed(layer, index, make) {
  while (layer.childNodes.length <= index) {
    layer.append(make(layer.childNodes.length));
  }
  return layer.childNodes[index];
}

function paintCurves({store, layers, frame, toPixel}, curves) {
  const {session, visible, selected} = store;
  const trace = (points) => points.map(([dose, volume], n) => {
    const [x, y] = toPixel(Math.min(dose, 1.02 * frame.mostGy), volume);
    return `${n ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`;
  }).join('');
  const bands = store.curves.band;
  session.structures.forEach((structure, s) => {
    for (const kind of LINES) {
      const path = keyed(layers[kind], s, (n) => svg('path', {
        'data-structure': n, 'data-kind': kind}));
      let d = '';
      if (visible[s] && kind === 'band') {
        const [low, high] = [curves.low?.[s], curves.high?.[s]];
        const wanted = bands === 'all' || (bands === 'selected' && s === selected);
        if (wanted && low && high) {
          d = `${trace(low)}L${trace([...high].reverse()).slice(1)}Z`;
        }
      } else if (visible[s] && store.curves[kind] && curves[kind]?.[s]) {
        d = trace(curves[kind][s]);
      }
      setAttribute(path, 'd', d);
      setAttribute(path, 'class', `curve ${kind} of-${s}` +
        (s === selected ? ' selected' : ''));
    }
  });
  for (const kind of LINES) {
    while (layers[kind].childNodes.length > session.structures.length) {
      layers[kind].lastChild.remove();
    }
  }
}

/** Triangles beyond which goals lie: curves have to stay clear of them. */
function paintGoals({store, layers, frame, toPixel}) {
  const {session, visible, selected} = store;
  const marks = [];
  for (const text of session.goals) {
    const place = goalPlace(
      text, session.structures, session.patient.prescription_gy);
    if (!place || !visible[place.structure]) continue;
    if (place.gy > frame.mostGy) continue;
    const [x, y] = toPixel(place.gy, place.percent);
    const size = 0.75 * frame.rem * (place.most ? 1 : -1);
    marks.push(svg('path', {
      class: `goal-mark of-${place.structure}` +
        (place.structure === selected ? ' selected' : ''),
      d: `M${x} ${y}h${size}L${x} ${y - size}Z`,
    }, svg('title', {}, text)));
  }
  layers.goals.replaceChildren(...marks);
}

function paintLabels({store, layers, frame, toPixel}, achieved) {
  const {session, visible, colours, selected} = store;
  const placed = [];
  const items = [];
  session.structures.forEach((structure, s) => {
    const points = achieved?.[s];
    if (!points || !visible[s] || !store.curves.achieved) return;
    const label = readable(structure.name);
    const width = 0.5 * frame.rem * label.length + 1.4 * frame.rem;
    const height = 1.1 * frame.rem;
    for (const volume of [38, 62, 28, 74, 14, 88]) {
      let dose = 0;
      for (let k = 1; k < points.length; k++) {
        if (points[k][1] <= volume) {
          const [a, b] = [points[k - 1], points[k]];
          dose = a[0] + (b[0] - a[0]) * (a[1] - volume) / (a[1] - b[1] || 1);
          break;
        }
      }
      const [x, y] = toPixel(dose, volume);
      const flip = x + width > frame.left + frame.width;
      const box = [flip ? x - width : x, y - height, width, height];
      const clear = placed.every(([l, t, w, h]) => l > box[0] + box[2] ||
        l + w < box[0] || t > box[1] + box[3] || t + h < box[1]);
      if (!clear) continue;
      placed.push(box);
      items.push(
        svg('path', {
          class: `mark of-${s}`,
          d: markPath(colours[s].mark, x, y, 0.3 * frame.rem)}),
        svg('text', {
          x: x + (flip ? -0.6 : 0.6) * frame.rem, y: y - 0.35 * frame.rem,
          'text-anchor': flip ? 'end' : 'start',
          class: `curve-label of-${s}${s === selected ? ' selected' : ''}`,
        }, label));
      return;
    }
  });
  layers.labels.replaceChildren(...items);
}

function nearest({store, frame, fromPixel, picture}, curves, event) {
  const box = picture.getBoundingClientRect();
  const [dose, volume] = fromPixel(
    event.clientX - box.left, event.clientY - box.top);
  if (dose < 0 || dose > frame.mostGy || volume < -4 || volume > 104) {
    return null;
  }
  const shown = (kind) => (store.curves[kind] ? curves[kind] ?? [] : [])
    .map((points, s) => (store.visible[s] ? points : null));
  const found = ['achieved', 'desired'].map((kind) => ({
    kind, ...nearestCurve(shown(kind), dose, volume,
      frame.width / frame.mostGy, frame.height / 100, 1.2 * frame.rem)}));
  return found.find((f) => f.index !== undefined) ?? null;
}

function hover(plot, curves, event, tip) {
  const {store, layers, frame, toPixel, picture} = plot;
  const found = nearest(plot, curves, event);
  tip.hidden = !found;
  if (!found) {
    layers.hover.replaceChildren();
    return;
  }
  const {index, gy: dose} = found;
  const structure = store.session.structures[index];
  const at = (kind) => curves[kind]?.[index] &&
    volumeAtDose(curves[kind][index], dose);
  const volume = at(found.kind);
  const [x, y] = toPixel(dose, volume);
  layers.hover.replaceChildren(
    svg('line', {class: 'hair', x1: x, x2: x, y1: y,
      y2: frame.top + frame.height}),
    svg('line', {class: 'hair', x1: frame.left, x2: x, y1: y, y2: y}),
    svg('circle', {class: `dot of-${index}`, cx: x, cy: y, r: 0.3 * frame.rem}));
  const share = 100 * dose / store.session.patient.prescription_gy;
  const rows = [['achieved', 'achieved'], ['desired', 'desired'],
    ['before', idB(store) ? doseLabel(store.session ? store : {}, idB(store)) :
      'before']];
  tip.replaceChildren(
    html('strong', {class: `of-${index}`}, readable(structure.name)),
    html('span', {class: 'tip-dose'}, `${gy(dose)} · ${percent(share)} Rx`),
    ...rows.filter(([kind]) => typeof at(kind) === 'number').map(
      ([kind, label]) => html('span', {class: `tip-row ${kind}`},
        html('i', {}), html('b', {}, percent(at(kind))),
        html('span', {}, cc(at(kind) * structure.volume_cc / 100)),
        html('em', {}, label))));
  const box = picture.getBoundingClientRect();
  const left = x + tip.offsetWidth + 20 > box.width ?
    x - tip.offsetWidth - 12 : x + 12;
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(y - tip.offsetHeight - 10, 2)}px`;
}
