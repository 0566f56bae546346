// What of a session is shown: A, which is looked at, and B, which A is
// compared with; their curves, goals and distances.

import {curvePoints, meanDose} from './curves.js';

/** The step that is worked on. */
export const currentStep = ({session}) => session.steps[session.current];

const stepOf = ({session}, id) => session.steps.find((s) => s.id === id);

/** Id of dose A: the one chosen, else the current step's. */
export const idA = (store) => store.chosenA ?? currentStep(store).id;

/** Id of dose B, or null: the one chosen, else that of the step before A; while
 * a handle moves that is the step which is worked on. */
export function idB(store) {
  if (store.chosenB === 'none') return null;
  if (store.chosenB !== 'before') return store.chosenB;
  if (isLive(store)) return currentStep(store).id;
  const {steps} = store.session;
  const n = steps.findIndex((s) => s.id === idA(store));
  return n > 0 ? steps[n - 1].id : null;
}

/** Whether the current step is looked at, so that its handles are there. */
export const onCurrent = (store) => idA(store) === currentStep(store).id;

/** Whether what is shown as A is a preview, the dose while a handle moves. */
export const isLive = (store) => Boolean(store.preview && onCurrent(store));

/** What tells one dose from another, whatever was undone in between. */
export function doseKey(store, id) {
  const step = stepOf(store, id);
  if (!step) return `${id} `;
  const sum = step.achieved.flat().reduce((all, v) => all + v, 0);
  return `${id} ${step.time} ${sum}`;
}

/** How a dose is called. */
export function doseLabel({session}, id) {
  const step = session.steps.find((s) => s.id === id);
  if (step) return stepLabel(step);
  return session.doses.find((d) => d.id === id)?.label ?? id;
}

export function stepLabel(step) {
  const made = {first_dose: 'first dose', balanced: 'balanced'}[step.action] ??
    'curve pulled';
  return `${step.number} · ${step.name || made}`;
}

const pointsOf = (vectors, spec, referenceGy) => vectors?.map((vector) =>
  (vector.some((v) => v > 0) ? curvePoints(vector, spec, referenceGy) : null));

/** What is known of A and B beside their doses: steps, or for another dose
 * what the server measured of it. Both have curves and goals. */
const knownA = (store) => stepOf(store, idA(store)) ?? store.measuredA;
const knownB = (store) => stepOf(store, idB(store)) ?? store.measuredB;

const achievedOf = ({session}, known) =>
  pointsOf(known?.achieved, session.dvh, known?.reference_gy) ?? null;

/**
 * Points (Gy, %) of all curves, each `[S]` or null:
 * `{desired, achieved, before, low, high}`.
 */
export function shownCurves(store) {
  const {session, preview, guess} = store;
  const spec = session.dvh;
  const step = stepOf(store, idA(store));
  const live = isLive(store);
  const source = live ? preview : step;
  const wishGy = preview?.desired_reference_gy ?? step?.desired_reference_gy ??
    step?.reference_gy;
  let desired = source ? pointsOf(source.desired, spec, wishGy) : null;
  if (guess && onCurrent(store)) {
    desired ??= session.structures.map(() => null);
    desired = [...desired];
    desired[guess.structure] = curvePoints(guess.vector, spec, guess.referenceGy);
  }
  const achieved = live ?
    pointsOf(preview.achieved, spec, preview.reference_gy) :
    achievedOf(store, knownA(store));
  const can = session.can_have;
  const before = idB(store) && achievedOf(store, knownB(store));
  return {
    desired, achieved, before,
    low: can ? pointsOf(can.low, spec, can.reference_gy) : null,
    high: can ? pointsOf(can.high, spec, can.reference_gy) : null,
  };
}

/** The vectors that are bent: `{vectors, referenceGy}`. */
export function baseVectors(store) {
  const step = currentStep(store);
  if (store.from === 'desired' && step.desired) {
    return {
      vectors: step.desired,
      referenceGy: step.desired_reference_gy ?? step.reference_gy,
    };
  }
  return {vectors: step.achieved, referenceGy: step.reference_gy};
}

/** Mean doses in Gy of A and B, each `[S]` or null: those of the voxels, or of
 * the curves while a handle moves. */
export function shownMeans(store) {
  const {structures} = store.session;
  const exact = (known) => known && structures.map(
    ({name}) => known.metrics.achieved[name]?.mean ?? null);
  if (!isLive(store)) {
    return [exact(knownA(store)), idB(store) && exact(knownB(store))];
  }
  const {achieved, before} = shownCurves(store);
  return [achieved, before].map((curves) => curves && curves.map(
    (points) => (points ? meanDose(points) : null)));
}

/** Goals of A, or of the preview: `[Goal]`. */
export function shownGoals(store) {
  if (isLive(store)) return store.preview.goals;
  return knownA(store)?.goals ?? [];
}

/** Index of a goal's structure, or -1. */
export function structureOfGoal(store, text) {
  const name = currentStep(store).goals.find(
    (goal) => goal.text === text)?.structure;
  return store.session.structures.findIndex((s) => s.name === name);
}

/** What plans have of a goal: `{low, high, unit, kept}`, or null. */
export function rangeOfGoal({session}, text) {
  const range = session.can_have.goals.find((one) => one.text === text);
  return typeof range?.low === 'number' ? range : null;
}

/** Whose plans tell what can be had. */
export function ofPlans({session}) {
  const {kind, plans} = session.can_have;
  return kind === 'own' ? `this patient’s ${plans} plans` :
    `${plans} plans of similar patients`;
}

/** Goals of B by their text. */
export function goalsBefore(store) {
  return new Map((knownB(store)?.goals ?? []).map((goal) => [goal.text, goal]));
}

/** Locked structures that a preview makes worse, and how far a step's wish was
 * taken because of locks: `{worse: [name], held: {share, by, why}|null}`. */
export function shownLocks(store) {
  if (isLive(store)) {
    return {worse: store.preview.worse ?? [], held: null};
  }
  return {worse: [], held: stepOf(store, idA(store))?.held ?? null};
}

/** L1 distances of wish and answer to what can be had, or null. */
export function shownDistance(store) {
  if (isLive(store)) return store.preview.distance;
  return stepOf(store, idA(store))?.distance ?? null;
}
