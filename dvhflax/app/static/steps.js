// The steps: back and forth, names and notes, and the deliverable plan.

import * as api from './api.js';
import {byId, html, keepingFocus, setAttribute, setText} from './dom.js';
import {clock, remaining} from './format.js';
import {currentStep, idA, idB, isLive, stepLabel} from './shown.js';

const POLL_MS = 500;

export function showSteps(store, desk) {
  const button = (id, text, title, onclick) => html('button', {
    type: 'button', id, title, onclick}, text);
  const undo = button('undo', '↶ Undo', 'Ctrl+Z', () => desk.undo());
  const redo = button('redo', '↷ Redo', 'Ctrl+Shift+Z', () => desk.redo());
  const balanced = button(
    'balanced', 'Balanced', 'Back to the first dose', () => desk.balanced());
  const strip = html('ol', {class: 'strip', 'aria-label': 'Steps'});
  const name = html('input', {
    type: 'text', placeholder: 'name this step', maxlength: 80,
    'aria-label': 'Name of the step',
    onchange: () => describe({name: name.value})});
  const note = html('input', {
    type: 'text', placeholder: 'note', maxlength: 2000, id: 'note',
    'aria-label': 'Note on the step',
    onchange: () => describe({note: note.value})});
  let held = null;
  const looked = () => store.session.steps.find((s) => s.id === idA(store));
  const describe = (change) => {
    const step = looked();
    if (step) desk.describe(step.number, change);
  };
  byId('steps').append(
    html('div', {class: 'group'}, undo, redo, balanced), strip,
    html('div', {class: 'group words'}, name, note),
    deliverable(store, desk));

  store.on(['session', 'chosenA', 'chosenB', 'busy', 'dragging'], () => {
    const {session} = store;
    if (!session) return;
    const busy = Boolean(store.busy || store.dragging);
    const buttons = [undo, redo, balanced];
    // What is disabled loses the focus: until it can be pressed again.
    if (buttons.includes(document.activeElement)) held = document.activeElement;
    undo.disabled = busy || !session.can_undo;
    redo.disabled = busy || !session.can_redo;
    balanced.disabled = busy;
    if (held && !busy) {
      const next = [held, ...buttons].find((one) => !one.disabled);
      if (document.activeElement === document.body) next.focus();
      held = null;
    }
    const step = looked();
    name.disabled = note.disabled = !step;
    if (document.activeElement !== name) name.value = step?.name ?? '';
    if (document.activeElement !== note) note.value = step?.note ?? '';
  });
  store.on(['session', 'chosenA', 'chosenB', 'doseB'], () => {
    const {session} = store;
    if (!session) return;
    // While a handle moves, A is a dose that is no step yet.
    const a = isLive(store) ? null : idA(store), b = idB(store);
    const current = currentStep(store);
    const after = session.steps.indexOf(current);
    const chips = session.steps.map((step, n) => {
      const kept = step.goals?.filter((goal) => goal.met).length;
      const chip = html('button', {
        type: 'button', 'data-step': step.number,
        class: `chip${n > after ? ' undone' : ''}`,
        'aria-current': step === current ? 'step' : null,
        title: `${clock(step.time)}${step.note ? ` · ${step.note}` : ''}\n` +
          'Click: look at it. Shift and click: compare with it.',
        onclick: (event) => desk.choose(event.shiftKey ? {chosenB: step.id} :
          {chosenA: step === current ? null : step.id}),
      },
      html('span', {class: 'ab'}, step.id === a ? 'A' : step.id === b ? 'B' : ''),
      html('span', {class: 'chip-text'}, stepLabel(step)),
      step.goals?.length ? html('small', {}, `${kept}/${step.goals.length}`) :
        null);
      return html('li', {}, chip);
    });
    keepingFocus(strip, () => strip.replaceChildren(...chips));
    strip.querySelector('[aria-current]')?.scrollIntoView(
      {block: 'nearest', inline: 'nearest'});
  });
}

function deliverable(store, desk) {
  const begin = html('button', {
    type: 'button', id: 'deliverable',
    title: 'The planner’s plan that is nearest to dose A',
    onclick: () => desk.run('asking the planner', async () => {
      const {session} = store.session;
      const {job} = await api.change(
        session, 'deliverable', {dose: idA(store)});
      watch(job, session);
    })}, 'Make deliverable');
  const progress = html('progress', {max: 1, value: 0,
    'aria-label': 'Planning'});
  const left = html('span', {class: 'faint'});
  const stop = html('button', {
    type: 'button', class: 'quiet', onclick: () => desk.run('stopping', () =>
      api.stopJob(jobs.get(store.session.session).key))}, 'stop');
  const running = html('div', {class: 'running', hidden: true},
    progress, left, stop);
  const group = html('div', {class: 'group deliver', data: {job: ''}}, begin,
    running);

  // What is known of the job of each session, which goes on when it is left.
  const jobs = new Map();

  function paint() {
    const job = jobs.get(store.session?.session);
    const runs = job?.state === 'running';
    const [gone, next] = runs ? [begin, stop] : [stop, begin];
    const held = document.activeElement === gone;
    begin.hidden = runs;
    running.hidden = !runs;
    if (held) next.focus();
    setAttribute(group, 'data-job', job?.state ?? '');
    if (!runs) return;
    progress.value = job.progress ?? 0;
    setText(left, remaining(job.remaining_s) ||
      `${job.stage ?? ''} · ${Math.round(job.spent_s ?? 0)} s`);
  }

  async function watch(key, session) {
    if (jobs.get(session)?.key === key) return;
    let state = {state: 'running'};
    for (;;) {
      jobs.set(session, {...state, key});
      paint();
      if (state.state !== 'running') break;
      await new Promise((done) => setTimeout(done, POLL_MS));
      if (jobs.get(session).key !== key) return;
      try {
        state = await api.job(key);
      } catch (error) {
        // Jobs do not outlive their server.
        if (!(error instanceof api.Unreachable)) state = {state: 'stopped'};
      }
    }
    if (store.session?.session !== session) return;
    if (state.state === 'failed') {
      store.set({message: {kind: 'error', text: state.error ??
        'the planner found no plan'}});
    } else if (state.state === 'done') {
      await desk.reload();
      await desk.choose({chosenB: state.dose});
      store.set({message: {kind: 'done', text:
        'The deliverable plan is B now: its curves are thin. To export it, ' +
        'choose it as A.'}});
    }
  }
  store.on(['session'], () => {
    const {session} = store;
    if (session?.jobs.length) watch(session.jobs.at(-1), session.session);
    paint();
  });
  return group;
}
