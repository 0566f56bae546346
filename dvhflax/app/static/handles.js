// Handles on desired curves: points (dose in Gy, volume in %) that a curve is
// bent through. Some are offered where none has pulled yet; those that were
// moved or added are pinned, and hold the curve there until they are deleted.

import {doseAtVolume, volumeAtDose} from './curves.js';

const OFFERED = {target: [98, 50, 2], oar: [80, 50, 20, 5], body: []};
// Pinned handles further off their curve, in % of the volume, are let go.
const OFF_THE_CURVE = 1.5;

let added = 0;

/**
 * Handles for the curves that are to be pulled.
 *
 * @param structures of the session
 * @param curves per structure the points that handles are offered on, or null
 * @param desired per structure the points that pinned ones must lie on
 * @param before handles as they were: pinned ones stay where they still hold
 * @param leastGy offered handles below it would not be told apart
 * @return [{key, structure, gy, percent, pinned}]
 */
export function handlesFor(structures, curves, desired, before, leastGy) {
  const pinned = before.filter(({pinned: is, structure, gy, percent}) => (
    is && desired[structure] &&
    Math.abs(volumeAtDose(desired[structure], gy) - percent) < OFF_THE_CURVE));
  const handles = [...pinned];
  structures.forEach((s, structure) => {
    if (!curves[structure]) return;
    for (const percent of OFFERED[s.role] ?? OFFERED.oar) {
      const key = `${structure}:${percent}`;
      const gy = doseAtVolume(curves[structure], percent);
      const near = handles.some((h) => h.structure === structure &&
        (h.key === key || (Math.abs(h.percent - percent) < 6 &&
                           Math.abs(h.gy - gy) < 4 * leastGy)));
      if (gy < leastGy || near) continue;
      handles.push({key, structure, gy, percent, pinned: false});
    }
  });
  return handles;
}

/** A new pinned handle on a structure's curve. */
export function newHandle(structure, gy, percent) {
  return {key: `${structure}:added-${++added}`, structure, gy, percent,
    pinned: true};
}

/**
 * Where a handle can go: within the plot, and so that some DVH goes through
 * it and all other pinned ones of the structure.
 */
export function kept(handle, handles, mostGy) {
  const gy = Math.min(Math.max(handle.gy, 0.01), mostGy);
  let low = 0, high = 100;
  for (const other of handles) {
    if (other.key === handle.key || !other.pinned ||
        other.structure !== handle.structure) continue;
    if (other.gy <= gy) high = Math.min(high, other.percent);
    if (other.gy >= gy) low = Math.max(low, other.percent);
  }
  return {...handle, gy,
    percent: Math.min(Math.max(handle.percent, low), Math.max(low, high))};
}

/** Pinned handles as the server reads them, but not those of locked
 * structures, whose curves stay as they are. */
export function asWish(handles, {structures, locked}) {
  return handles.filter((h) => h.pinned).map((h) => ({
    structure: structures[h.structure].name,
    dose_gy: h.gy, volume_percent: h.percent,
  })).filter(({structure}) => !locked.includes(structure));
}

/** One structure's pinned handles as `curves.bentGuess` wants them. */
export function alongVector(handles, structure, spec, referenceGy) {
  return handles.filter((h) => h.pinned && h.structure === structure)
    .map((h) => (spec.kind === 'volume_at_dose' ?
      {level: h.gy / referenceGy, value: h.percent / 100} :
      {level: h.percent / 100, value: h.gy / referenceGy}));
}
