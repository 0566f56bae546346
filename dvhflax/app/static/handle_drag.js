// Handles on the plot: pulled by mouse, touch or keys.

import {doseAtVolume, nearestCurve} from './curves.js';
import {setAttribute, svg} from './dom.js';
import {gy, percent, readable} from './format.js';
import {handlesFor, kept, newHandle} from './handles.js';
import {markPath} from './marks.js';
import {baseVectors, onCurrent, shownCurves} from './shown.js';

const ARROWS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1],
};
// A key's step in Gy and %, and how much larger with Shift.
const STEP_GY = 0.5, STEP_PERCENT = 1, LARGER = 5;
// A pull by keys ends when none was pressed for so long.
const KEYS_REST_MS = 700;

/** Makes a plot's handles pullable; returns what paints them. */
export function pullable({store, desk, picture, layers, frame, toPixel,
                          fromPixel}) {
  const elements = new Map();
  let pull = null, rest = null;

  const isLocked = (structure) => store.session.locked.includes(
    store.session.structures[structure].name);
  const find = (key) => store.handles.find((h) => h.key === key);

  function moved(key, dose, volume) {
    const handle = find(key);
    if (!handle || isLocked(handle.structure) || store.busy) return;
    const spec = store.session.dvh;
    const {referenceGy} = baseVectors(store);
    const mostGy = spec.kind === 'volume_at_dose' ? Math.min(
      frame.mostGy, spec.max_dose * referenceGy) : frame.mostGy;
    // Between 0 Gy, which all of a volume gets, and the first level a curve
    // is straight: not every volume can be had there.
    const leastGy = spec.kind === 'volume_at_dose' ?
      spec.levels[1] * referenceGy : 0;
    const next = kept({...handle, gy: Math.max(dose, leastGy),
      percent: volume, pinned: true}, store.handles, mostGy);
    desk.pull(store.handles.map((h) => (h.key === key ? next : h)),
      handle.structure);
  }

  function begin(key) {
    if (pull?.key === key) return;
    pull = {key, before: store.handles, moved: false};
    store.set({dragging: true, selected: find(key).structure});
  }

  async function end(keep) {
    clearTimeout(rest);
    if (!pull) return;
    const {before, moved: has, key} = pull;
    pull = null;
    store.set({dragging: false});
    if (has && keep) await desk.letGo();
    else if (has) await desk.cancel(before);
    else await desk.catchUp();
    // Not away from where the user has gone since.
    if (has && document.activeElement === document.body) {
      elements.get(key)?.focus({preventScroll: true});
    }
  }

  function onPointerDown(event) {
    const key = event.currentTarget.dataset.key;
    if (event.button !== 0 || store.busy) return;
    event.preventDefault();
    // Whoever pulled another one by keys has let go of it now.
    event.currentTarget.focus({preventScroll: true});
    if (store.busy || isLocked(find(key).structure)) return;
    begin(key);
    const box = picture.getBoundingClientRect();
    const [x, y] = toPixel(find(key).gy, find(key).percent);
    pull.grip = [event.clientX - box.left - x, event.clientY - box.top - y];
    pull.start = [event.clientX, event.clientY];
    event.currentTarget.setPointerCapture(event.pointerId);
  }

  function onPointerMove(event) {
    if (!pull?.grip) return;
    const [x, y] = pull.start;
    // A click that trembles does not pull.
    if (!pull.moved &&
        Math.hypot(event.clientX - x, event.clientY - y) < 3) return;
    pull.moved = true;
    const box = picture.getBoundingClientRect();
    moved(pull.key, ...fromPixel(
      event.clientX - box.left - pull.grip[0],
      event.clientY - box.top - pull.grip[1]));
  }

  function onKeyDown(event) {
    const key = event.currentTarget.dataset.key;
    const handle = find(key);
    if (!handle) return;
    if (event.key === 'Escape') end(false);
    else if (event.key === 'Enter') end(true);
    else if (event.key === 'Delete' || event.key === 'Backspace') remove(key);
    else if (event.key === '+' || event.key === 'Insert') addBelow(handle);
    else if (ARROWS[event.key]) {
      event.preventDefault();
      if (pull?.grip || store.busy || isLocked(handle.structure)) return;
      begin(key);
      const times = event.shiftKey ? LARGER : 1;
      const [right, up] = ARROWS[event.key];
      pull.moved = true;
      moved(key, handle.gy + right * times * STEP_GY,
        handle.percent + up * times * STEP_PERCENT);
      clearTimeout(rest);
      rest = setTimeout(() => end(true), KEYS_REST_MS);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Lets a pinned handle go; the curve stays as it is. */
  function remove(key) {
    const handle = find(key);
    if (!handle.pinned || pull?.moved) return;
    const without = store.handles.filter((h) => h.key !== key);
    const curves = shownCurves(store);
    const base = store.from === 'desired' ? curves.desired ?? curves.achieved :
      curves.achieved;
    store.set({handles: handlesFor(
      store.session.structures, base, curves.desired ?? curves.achieved,
      without, 0.02 * store.session.patient.prescription_gy)});
  }

  /** The curves that are bent, and on which handles lie. */
  const bentCurves = () => {
    const curves = shownCurves(store);
    return (store.from === 'desired' && curves.desired) || curves.achieved;
  };

  function add(structure, dose, volume) {
    const handle = newHandle(structure, dose, volume);
    store.set({handles: [...store.handles, handle], selected: structure});
    requestAnimationFrame(() => elements.get(handle.key)?.focus());
  }

  /** Adds one halfway to the next one of the curve, or to its end. */
  function addBelow({structure, percent: from}) {
    const points = bentCurves()[structure];
    if (!points || pull?.moved || store.busy || isLocked(structure)) return;
    const below = store.handles.filter((one) =>
      one.structure === structure && one.percent < from - 1e-6);
    const volume = (from + Math.max(0, ...below.map((h) => h.percent))) / 2;
    add(structure, doseAtVolume(points, volume), volume);
  }

  picture.addEventListener('dblclick', (event) => {
    if (!store.session || !onCurrent(store)) return;
    if (event.target.closest('.handle')) return;
    const box = picture.getBoundingClientRect();
    const [dose, volume] = fromPixel(
      event.clientX - box.left, event.clientY - box.top);
    const found = nearestCurve(
      bentCurves().map((points, s) => (
        store.visible[s] && !isLocked(s) ? points : null)),
      dose, volume, frame.width / frame.mostGy, frame.height / 100,
      1.5 * frame.rem);
    if (found) add(found.index, found.gy, found.percent);
  });

  function make(key) {
    const element = svg('g', {
      class: 'handle', role: 'slider', 'data-key': key, tabindex: -1,
      'aria-valuemin': 0, 'aria-valuemax': 100,
      onpointerdown: onPointerDown, onpointermove: onPointerMove,
      onpointerup: () => end(true), onpointercancel: () => end(false),
      onkeydown: onKeyDown,
      onfocus: () => {
        const handle = find(key);
        if (handle && store.selected !== handle.structure) {
          store.set({selected: handle.structure});
        }
      },
      onblur: () => {
        if (pull?.key === key && !pull.grip) end(true);
      },
    }, svg('circle', {class: 'grip'}), svg('path', {class: 'shape'}));
    elements.set(key, element);
    layers.handles.append(element);
    return element;
  }

  return () => {
    const {handles, session, visible, selected, colours} = store;
    const there = onCurrent(store) && !(
      store.from === 'desired' && !store.curves.desired) && !(
      store.from === 'achieved' && !store.curves.achieved);
    const seen = new Set();
    for (const handle of there ? handles : []) {
      const {key, structure, pinned} = handle;
      if (!visible[structure]) continue;
      seen.add(key);
      const element = elements.get(key) ?? make(key);
      const [x, y] = toPixel(handle.gy, handle.percent);
      const isSelected = structure === selected;
      const size = frame.rem * (isSelected ? 0.44 : 0.27);
      const lock = isLocked(structure);
      setAttribute(element, 'class', `handle of-${structure}` +
        (isSelected ? ' selected' : '') + (pinned ? ' pinned' : '') +
        (pull?.key === key ? ' pulled' : '') + (lock ? ' locked' : ''));
      setAttribute(element, 'transform',
        `translate(${x.toFixed(2)} ${y.toFixed(2)})`);
      setAttribute(element, 'tabindex', isSelected ? 0 : -1);
      setAttribute(element, 'aria-valuenow', handle.percent.toFixed(1));
      const name = readable(session.structures[structure].name);
      const place = `${percent(handle.percent)} at ${gy(handle.gy)}`;
      setAttribute(element, 'aria-valuetext', place);
      setAttribute(element, 'aria-label', `${name}, ${
        pinned ? 'pinned' : 'free'} handle${lock ? ', locked' : ''}`);
      setAttribute(element, 'data-gy', handle.gy.toFixed(4));
      setAttribute(element, 'data-percent', handle.percent.toFixed(4));
      setAttribute(element, 'data-structure',
        session.structures[structure].name);
      const [grip, shape] = element.childNodes;
      setAttribute(grip, 'r', (0.95 * frame.rem).toFixed(2));
      setAttribute(shape, 'd', markPath(colours[structure].mark, 0, 0, size));
    }
    for (const [key, element] of elements) {
      if (seen.has(key)) continue;
      element.remove();
      elements.delete(key);
    }
  };
}
