// What can be done: every change of a session goes through here, to the
// server and back into the store.

import * as api from './api.js';
import {structureColours} from './colours.js';
import {alongVector, asWish, handlesFor} from './handles.js';
import {bentGuess, curvePoints} from './curves.js';
import {withinGrid} from './geometry.js';
import {Live} from './live.js';
import {
  baseVectors, currentStep, doseKey, idA, idB, ofPlans, rangeOfGoal,
  structureOfGoal,
} from './shown.js';
import {Doses, differenceRange} from './volumes.js';

const RETRY_MS = 1000;

export class Desk {
  #store;
  #live = null;
  #doses = null;
  #turn = 0;
  #opening = 0;
  #running = 0;
  #waiting = false;
  #revision = 0;

  constructor(store) {
    this.#store = store;
  }

  /** Does a piece of work; says what went wrong. Returns whether it went. */
  async run(text, work) {
    const store = this.#store;
    this.#running++;
    store.set({busy: text, message: null});
    try {
      await work();
      return true;
    } catch (error) {
      if (error instanceof api.Unreachable) this.#lost();
      else if (error.status === 401) store.set({connection: 'locked out'});
      else if (error instanceof api.Refused) {
        store.set({message: {kind: 'error', text: error.message}});
      } else throw error;
      return false;
    } finally {
      if (!--this.#running) store.set({busy: null});
    }
  }

  /** Who and what there is, for the start. */
  lists() {
    return this.run('reading the patients', async () => {
      const about = await this.#loaded();
      const [patients, sessions] = await Promise.all(
        [api.patients(), api.sessions()]);
      this.#store.set({about, patients, sessions, connection: 'live'});
    });
  }

  /** What the server is, once its network is there. */
  async #loaded() {
    for (;;) {
      const about = await api.about();
      if (!about.loading) return about;
      this.#store.set({busy: 'loading the network'});
      await new Promise((done) => setTimeout(done, RETRY_MS / 2));
    }
  }

  open(patient) {
    return this.run('computing the first dose', async () => {
      await this.#begin(api.openSession(patient));
    });
  }

  replay(trail) {
    return this.run('replaying the trail', async () => {
      await this.#begin(api.replayTrail(trail));
    });
  }

  resume(id) {
    return this.run('opening the session', async () => {
      try {
        await this.#begin(api.session(id));
      } catch (error) {
        if (error.status === 404) {
          this.leave();
          throw new api.Refused(
            'this session is no longer there: choose a patient', 404);
        }
        throw error;
      }
    });
  }

  leave() {
    this.#live?.close();
    this.#live = null;
    this.#opening++;
    this.#turn++;
    history.replaceState(null, '', location.pathname);
    this.#store.set({
      session: null, masks: null, ct: null, doseA: null, doseB: null,
      preview: null, guess: null,
    });
  }

  /** Shows the session that is answered, unless another one is wanted since. */
  async #begin(answer) {
    const store = this.#store;
    const opening = ++this.#opening;
    const state = await answer;
    const id = state.session;
    const [masks, ct] = await Promise.all(
      [api.masks(id), state.has_ct ? api.ct(id) : null]);
    if (opening !== this.#opening) return;
    this.#live?.close();
    this.#live = null;
    this.#doses = new Doses((key) => api.dose(id, key.split(' ')[0]));
    history.replaceState(null, '', `#s=${encodeURIComponent(id)}`);
    this.#revision = 0;
    const first = state.structures.findIndex(
      (s) => s.role === 'oar' && s.present);
    const same = store.lastSession === id;
    store.set({
      lastSession: id, masks, ct, session: state,
      colours: structureColours(state.structures), handles: [],
      doseA: null, doseB: null, preview: null, guess: null,
      ...(same ? {} : {
        visible: state.structures.map((s) => s.present),
        cross: withinGrid(state.grid.shape, state.grid.isocentre),
        selected: Math.max(first, 0), chosenA: null, chosenB: 'before',
        zoom: 1,
      }),
    });
    await this.#take(state);
    if (opening !== this.#opening) return;
    this.#live = new Live(id, {
      opened: () => store.set({connection: 'live'}),
      lost: () => this.#lost(),
      changed: ({revision}) => {
        this.#revision = revision;
        this.catchUp();
      },
      refused: ({error}) => store.set({message: {kind: 'refused', text: error}}),
      preview: (preview, dose) => {
        if (!store.guess) return;
        store.set({
          preview, ...this.#besidePreview(dose), doseA: dose, message: null,
          guess: {...store.guess, answered: preview.newest},
        });
      },
    });
  }

  /** B of a preview: the step before what a pull will make is the one that is
   * worked on. */
  #besidePreview(dose) {
    const {chosenB, doseA, doseB, preview, view, differenceGy} = this.#store;
    const beside = chosenB === 'before' && !preview ? doseA : doseB;
    const told = preview ? {} : {doseB: beside};
    if (view !== 'difference' || !beside) return told;
    const range = differenceRange(dose, beside);
    // Wider only: it does not jump to and fro with the handle.
    return preview && range <= differenceGy ? told :
      {...told, differenceGy: range};
  }

  /** Shows a state, once its doses are there, so that nothing flickers. That
   * of a session which was left meanwhile is not shown. */
  async #take(state) {
    const store = this.#store;
    if (!state || state.session !== store.session?.session) return;
    const turn = ++this.#turn;
    const next = {...store, session: state};
    const ids = new Set(state.doses.map((d) => d.id));
    for (const key of ['chosenA', 'chosenB']) {
      const gone = next[key] && !ids.has(next[key]) &&
        !['before', 'none'].includes(next[key]);
      if (gone) next[key] = key === 'chosenA' ? null : 'before';
    }
    const [a, b] = [idA(next), idB(next)];
    let doseA, doseB, measuredA, measuredB;
    try {
      [doseA, doseB, measuredA, measuredB] = await Promise.all([
        ...[a, b].map((id) =>
          (id ? this.#doses.get(doseKey(next, id)) : null)),
        ...[a, b].map((id) => this.#measured(state, id)),
      ]);
    } catch (error) {
      // A later state may have taken the dose away.
      if (turn === this.#turn) throw error;
    }
    if (turn !== this.#turn) return;
    store.set({
      session: state, chosenA: next.chosenA, chosenB: next.chosenB,
      doseA, doseB, measuredA, measuredB, preview: null, guess: null,
      shownId: a,
      differenceGy: doseB ? differenceRange(doseA, doseB) : 1,
      handles: this.#handles(state, store.handles),
    });
  }

  /** Curves and goals of a dose that is no step: a plan, a deliverable one. */
  #measured(state, id) {
    if (!id || state.steps.some((step) => step.id === id)) return null;
    return api.measured(state.session, id);
  }

  #handles(state, before) {
    const next = {...this.#store, session: state};
    const step = currentStep(next);
    const {vectors, referenceGy} = baseVectors(next);
    const points = (all, gy) => all.map((vector, s) =>
      (state.structures[s].present && vector.some((v) => v > 0) ?
        curvePoints(vector, state.dvh, gy) : null));
    return handlesFor(
      state.structures, points(vectors, referenceGy),
      points(step.desired ?? step.achieved,
        step.desired_reference_gy ?? step.reference_gy),
      before, 0.02 * state.patient.prescription_gy);
  }

  // Comparing.

  choose(choice) {
    const store = this.#store;
    return this.run('reading the dose', async () => {
      if (!store.session) return;
      // Told with the dose and its curves: not one before the other.
      Object.assign(store, choice);
      await this.#take(store.session);
    });
  }

  pullFrom(from) {
    const store = this.#store;
    store.set({from});
    store.set({handles: this.#handles(store.session, store.handles)});
  }

  // Pulling.

  /** A handle moves: the curve is guessed at once, the server asked. */
  pull(handles, structure) {
    const store = this.#store;
    const {session, from} = store;
    const {vectors, referenceGy} = baseVectors(store);
    store.set({handles, guess: {
      structure, referenceGy, answered: false,
      vector: bentGuess(
        vectors[structure],
        alongVector(handles, structure, session.dvh, referenceGy),
        session.dvh),
    }});
    this.#live?.move({
      from, handles: asWish(handles, session), points: []});
  }

  /** Makes a step of the pull. */
  async letGo() {
    const {handles, session} = this.#store;
    await this.tune({handles: asWish(handles, session), points: []});
  }

  /** Takes the pull back. */
  cancel(handles) {
    this.#live?.forget();
    return this.run('taking it back', async () => {
      this.#store.set({handles});
      await this.#take(this.#store.session);
    });
  }

  async tune(wish) {
    const store = this.#store;
    this.#live?.forget();
    const went = await this.#change(
      'computing the dose', 'steps', {from: store.from, ...wish});
    if (!went) {
      const {message} = store;
      if (store.connection === 'live') await this.#take(store.session);
      store.set({message});
    }
  }

  #change(text, what, value, method) {
    return this.#work(text, (change) => change(what, value, method));
  }

  /** Shows the state that `work` gives, which changes the session. */
  async #work(text, work) {
    const store = this.#store;
    const {session} = store.session;
    const made = await this.run(text, async () => {
      store.chosenA = null;
      await this.#take(await work((what, value, method) => api.change(
        session, what, value, method)));
    });
    await this.catchUp();
    return made;
  }

  undo() {
    return this.#change('undoing', 'undo');
  }

  redo() {
    return this.#change('redoing', 'redo');
  }

  balanced() {
    return this.#change('back to the balanced dose', 'balanced');
  }

  lock(names) {
    return this.#change('locking', 'locked', names, 'PUT');
  }

  /** Sets the goals, and bends the curves to a new one that is missed. Returns
   * whether they were set: a curve may not be bent to all of them. */
  async goals(texts, pulled = null) {
    const store = this.#store;
    // As the server writes it.
    pulled &&= pulled.trim().replace(/\s+/g, ' ');
    let set = false;
    const went = await this.#work('reading the goals', async (change) => {
      let state = await change('goals', texts, 'PUT');
      set = true;
      const goal = currentStep({session: state}).goals?.find(
        ({text}) => text === pulled);
      if (pulled && !goal?.met) {
        await this.#take(state);
        store.set({busy: 'computing the dose'});
        state = await change(
          'steps', {from: store.from, handles: [], points: [pulled]});
      }
      return state;
    });
    if (went && pulled) this.#about(pulled);
    return set;
  }

  /** Bends the curves to a goal. */
  async pullTo(goal) {
    await this.tune({handles: [], points: [goal]});
    this.#about(goal);
  }

  /** Shows a goal's curve, and says where no plan keeps the goal. */
  #about(text) {
    const store = this.#store;
    if (!store.session) return;
    const structure = structureOfGoal(store, text);
    if (structure >= 0) store.set({selected: structure});
    const range = rangeOfGoal(store, text);
    const goal = currentStep(store).goals.find((one) => one.text === text);
    if (store.message || !range || range.kept || goal?.met !== false) return;
    const [low, high] = [range.low, range.high].map((v) => v.toFixed(1));
    store.set({message: {kind: 'refused', text:
      `${text}: none of ${ofPlans(store)} keeps that. They have ${low} to ` +
      `${high} ${range.unit}; the dose went as far as it would.`}});
  }

  describe(number, change) {
    return this.#change('noting', `steps/${number}`, change, 'PATCH');
  }

  /** The state once more, after a job or another tab's step. */
  reload() {
    const {session} = this.#store.session;
    return this.run('reading the session', async () => {
      await this.#take(await api.session(session));
    });
  }

  /** Reads what another tab changed, but not under one's own hand. */
  async catchUp() {
    const {busy, dragging, session} = this.#store;
    if (busy || dragging || !session) return;
    if (session.revision < this.#revision) await this.reload();
  }

  // A server that stopped.

  async #lost() {
    const store = this.#store;
    store.set({connection: 'lost', message: null});
    if (this.#waiting) return;
    this.#waiting = true;
    for (;;) {
      await new Promise((done) => setTimeout(done, RETRY_MS));
      try {
        await this.#loaded();
        break;
      } catch (error) {
        if (error.status === 401) {
          store.set({connection: 'locked out'});
          break;
        }
      }
    }
    this.#waiting = false;
    if (store.connection === 'locked out') return;
    if (store.session) await this.resume(store.session.session);
    else await this.lists();
  }
}
