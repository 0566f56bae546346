// Puts the page together.

import {Desk} from './desk.js';
import {byId} from './dom.js';
import {ISODOSES} from './colours.js';
import {showDisplay} from './display.js';
import {showGoals} from './goals_table.js';
import {showFrame} from './frame.js';
import {showPlanes} from './planes.js';
import {showPlot} from './dvh_plot.js';
import {showReach} from './reach.js';
import {showStart} from './start.js';
import {showSteps} from './steps.js';
import {showStructures} from './structures_table.js';
import {Store} from './store.js';
import {fingerprint} from './volumes.js';

const store = new Store({
  about: null, patients: [], sessions: [], connection: 'live', busy: null,
  message: null, lastSession: null,
  session: null, masks: null, ct: null, colours: [], visible: [], selected: 0,
  doseA: null, doseB: null, measuredA: null, measuredB: null, differenceGy: 1, chosenA: null, chosenB: 'before',
  shownId: null, preview: null, guess: null, handles: [], from: 'desired',
  dragging: false, writing: false, cross: [0, 0, 0], pointer: null, large: 'axial', zoom: 1,
  view: 'dose',
  curves: {desired: true, achieved: true, before: true, band: 'selected'},
  display: {
    wash: 0.55, isodoses: true, contours: true,
    window: {centre: 40, width: 400}, levels: ISODOSES.map((l) => ({...l})),
  },
});
const desk = new Desk(store);

showFrame(store, desk);
showStart(store, desk);
showPlanes(store);
showDisplay(store, desk);
showPlot(store, desk);
showStructures(store, desk);
showGoals(store, desk);
showReach(store);
showSteps(store, desk);

// What the page shows, for tests and scripts that watch it.
store.on(['session', 'busy', 'connection', 'doseA', 'preview', 'guess'], () => {
  const {session, busy, connection, doseA, preview} = store;
  Object.assign(document.body.dataset, {
    ready: Boolean(session && doseA && !busy),
    busy: busy ?? '', connection,
    session: session?.session ?? '',
    step: session ? session.current : '',
    dose: store.shownId ?? '',
    preview: preview?.seq ?? '',
  });
});
store.on(['doseA'], () => {
  // Not while a handle moves, when doses come many times a second.
  if (!store.doseA || store.preview) return;
  document.body.dataset.fingerprint = fingerprint(store.doseA);
});

await desk.lists();
const wanted = /^#s=(.+)$/.exec(location.hash)?.[1];
if (wanted) await desk.resume(decodeURIComponent(wanted));
byId('start').dataset.listed = 'true';
