// Arrays `[Z][Y][X]` and planes cut out of them.

import {PLANES} from './geometry.js';

/** `[width, height]` of a plane's slices in voxels. */
export function sliceSize(name, shape) {
  return [shape[PLANES[name].across], shape[PLANES[name].down]];
}

/**
 * Copies a slice.
 *
 * @param volume `[Z][Y][X]`
 * @param name of PLANES
 * @param index along the axis through the plane
 * @param out an array that is filled, row by row, from voxel 0
 * @param read what becomes of a value
 */
export function slice(volume, shape, name, index, out, read = (v) => v) {
  const [nx, ny, nz] = shape;
  let n = 0;
  if (name === 'axial') {
    const start = index * nx * ny;
    for (; n < nx * ny; n++) out[n] = read(volume[start + n]);
  } else if (name === 'coronal') {
    for (let z = 0; z < nz; z++) {
      const start = (z * ny + index) * nx;
      for (let x = 0; x < nx; x++) out[n++] = read(volume[start + x]);
    }
  } else {
    for (let z = 0; z < nz; z++) {
      const start = z * nx * ny + index;
      for (let y = 0; y < ny; y++) out[n++] = read(volume[start + y * nx]);
    }
  }
  return out;
}

/** Where a voxel lies in an array `[Z][Y][X]`. */
export const offset = (shape, [x, y, z]) => (z * shape[1] + y) * shape[0] + x;

/** Dose in Gy at a voxel. */
export function doseAt(dose, shape, voxel) {
  return dose.units[offset(shape, voxel)] * dose.gyPerUnit;
}

/** The next of 1, 2, 5, 10, ... Gy from half of the largest difference on:
 * colours of few voxels may saturate, so that those of most are told. */
export function differenceRange(a, b) {
  let most = 0;
  for (let n = 0; n < a.units.length; n++) {
    const gy = Math.abs(a.units[n] * a.gyPerUnit - b.units[n] * b.gyPerUnit);
    if (gy > most) most = gy;
  }
  for (let scale = 1; ; scale *= 10) {
    for (const step of [1, 2, 5]) if (most / 2 <= step * scale) return step * scale;
  }
}

/** A short number that two doses of other bytes hardly ever share (FNV-1a). */
export function fingerprint(dose) {
  let hash = 0x811c9dc5;
  for (let n = 0; n < dose.units.length; n++) {
    hash = Math.imul(hash ^ dose.units[n], 0x01000193);
  }
  return (hash >>> 0).toString(16).padStart(8, '0');
}

/** The last few doses that were asked for. */
export class Doses {
  #kept = new Map();
  #fetch;
  #most;

  constructor(fetch, most = 6) {
    this.#fetch = fetch;
    this.#most = most;
  }

  async get(id) {
    let found = this.#kept.get(id);
    if (!found) {
      found = this.#fetch(id);
      found.catch(() => this.#kept.delete(id));
    }
    this.#kept.delete(id);
    this.#kept.set(id, found);
    if (this.#kept.size > this.#most) {
      this.#kept.delete(this.#kept.keys().next().value);
    }
    return found;
  }

  /** Forgets what may have changed: steps after an undone one are replaced. */
  clear() {
    this.#kept.clear();
  }
}
