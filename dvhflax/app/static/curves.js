// DVH curves: vectors of K elements, as `dvhflax.dvh.DVHSpec` has them.
// Doses of a vector are fractions of a reference in Gy, volumes of the whole.

/** How far a bend reaches, in fractions of the prescription or the volume. */
const REACH = 0.1;

/** The points (Gy, %) of a curve: `[[gy, percent], ...]`. */
export function curvePoints(vector, spec, referenceGy) {
  if (spec.kind === 'volume_at_dose') {
    return vector.map((v, k) => [spec.levels[k] * referenceGy, 100 * v]);
  }
  return vector.map((d, k) => [d * referenceGy, 100 * spec.levels[k]]);
}

/** Volume in % that receives a dose or more. */
export function volumeAtDose(points, gy) {
  if (gy <= points[0][0]) return points[0][1];
  for (let k = 1; k < points.length; k++) {
    const [high, volume] = points[k];
    if (gy > high) continue;
    const [low, before] = points[k - 1];
    if (high === low) return volume;
    return before + (volume - before) * (gy - low) / (high - low);
  }
  return 0;
}

/** Dose in Gy that the hottest `percent` of the volume receive at least. */
export function doseAtVolume(points, percent) {
  for (let k = 1; k < points.length; k++) {
    const [high, volume] = points[k];
    if (volume > percent) continue;
    const [low, before] = points[k - 1];
    if (before === volume) return low;
    return low + (high - low) * (before - percent) / (before - volume);
  }
  return points[points.length - 1][0];
}

/** Mean dose in Gy: the area under the curve. */
export function meanDose(points) {
  let area = points[0][0] * points[0][1] / 100;
  for (let k = 1; k < points.length; k++) {
    area += (points[k][0] - points[k - 1][0]) *
      (points[k][1] + points[k - 1][1]) / 200;
  }
  return area;
}

/** Of the curves at a place of the plot the nearest, within `most` of the
 * metric: `{index, gy, percent}` or null. */
export function nearestCurve(curves, gy, percent, perGy, perPercent, most) {
  let best = null, least = most;
  curves.forEach((points, index) => {
    if (!points) return;
    const up = volumeAtDose(points, gy), right = doseAtVolume(points, percent);
    const byVolume = Math.abs(up - percent) * perPercent;
    const byDose = Math.abs(right - gy) * perGy;
    const distance = Math.min(byVolume, byDose);
    if (distance >= least) return;
    least = distance;
    best = byVolume <= byDose ?
      {index, gy, percent: up} : {index, gy: right, percent};
  });
  return best;
}

/**
 * A rough and quick idea of the curve that the server bends through handles.
 *
 * @param vector `[K]` the curve that is bent
 * @param handles [{level, value}]: a place along the vector in its own units
 *   (dose as a fraction of the reference, or volume), and its value there
 * @return `[K]`, a DVH
 */
export function bentGuess(vector, handles, spec) {
  const volumes = spec.kind === 'volume_at_dose';
  const bent = Float64Array.from(vector);
  const last = bent.length - 1;
  const step = (spec.levels[last] - spec.levels[0]) / last;
  const gives = vector.map((v) => (volumes ? 4 * v * (1 - v) + 0.01 : 1));
  const read = (curve, level) => {
    const place = Math.min(Math.max((level - spec.levels[0]) / step, 0), last);
    const low = Math.min(Math.floor(place), last - 1);
    return curve[low] + (curve[low + 1] - curve[low]) * (place - low);
  };
  // Several handles pull at each other's curve: a few rounds settle that.
  for (let round = 0; round < 6; round++) {
    for (const {level, value} of handles) {
      const missing = value - read(bent, level);
      const most = Math.max(read(gives, level), 0.05);
      for (let k = 0; k <= last; k++) {
        const away = (spec.levels[k] - level) / REACH;
        const share = Math.exp(-away * away / 2) * Math.min(gives[k] / most, 1);
        bent[k] += missing * share;
      }
    }
  }
  return asDVH(bent, volumes);
}

function asDVH(curve, volumes) {
  if (volumes) {
    curve[0] = 1;
    for (let k = 1; k < curve.length; k++) {
      curve[k] = Math.min(Math.max(curve[k], 0), curve[k - 1]);
    }
  } else {
    curve[0] = Math.max(curve[0], 0);
    for (let k = 1; k < curve.length; k++) {
      curve[k] = Math.max(curve[k], curve[k - 1]);
    }
  }
  return Array.from(curve);
}
