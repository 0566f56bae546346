// Where a voxel lies on the screen. Axes of the grid: x to the patient's
// left, y to posterior, z to superior; a voxel's index is its centre.

export const PLANES = {
  axial: {
    across: 0, down: 1, through: 2, upwards: false,
    letters: {left: 'R', right: 'L', top: 'A', bottom: 'P'},
  },
  sagittal: {
    across: 1, down: 2, through: 0, upwards: true,
    letters: {left: 'A', right: 'P', top: 'S', bottom: 'I'},
  },
  coronal: {
    across: 0, down: 2, through: 1, upwards: true,
    letters: {left: 'R', right: 'L', top: 'S', bottom: 'I'},
  },
};

/** A box around the whole grid, as indices of its outermost voxel centres. */
export function wholeGrid(shape) {
  return {low: [0, 0, 0], high: shape.map((n) => n - 1)};
}

/**
 * How a plane lies in a picture of width x height pixels.
 *
 * @param plane one of PLANES
 * @param spacing [3] mm
 * @param box {low, high}: outermost voxel centres to be seen, their voxels
 *   included to their faces
 * @param zoom 1: the box fills the picture; about `centre` (a voxel), if given
 * @return {x, y, dx, dy}: voxel 0's centre, and pixels a voxel, dy < 0 where
 *   the axis runs upwards. Pixels a mm are the same along both axes.
 */
export function placement(plane, spacing, box, width, height, zoom = 1,
                          centre = null) {
  const [h, v] = [plane.across, plane.down];
  const extent = (axis) => (box.high[axis] - box.low[axis] + 1) * spacing[axis];
  const perMm = Math.min(width / extent(h), height / extent(v)) * zoom;
  const dx = perMm * spacing[h];
  const dy = perMm * spacing[v] * (plane.upwards ? -1 : 1);
  const middle = (axis) => {
    const whole = (box.low[axis] + box.high[axis]) / 2;
    if (!centre || zoom <= 1) return whole;
    return centre[axis] + (whole - centre[axis]) / zoom;
  };
  return {
    x: width / 2 - middle(h) * dx, y: height / 2 - middle(v) * dy, dx, dy,
  };
}

/** The pixel where the point (i, j), in voxels of the plane, is drawn. */
export function toScreen(place, i, j) {
  return [place.x + i * place.dx, place.y + j * place.dy];
}

/** The point, in fractions of voxels, that is drawn at a pixel. */
export function toVoxel(place, x, y) {
  return [(x - place.x) / place.dx, (y - place.y) / place.dy];
}

/** Patient coordinates of a voxel in mm. */
export function toMm(grid, voxel) {
  return voxel.map((n, axis) => grid.origin_mm[axis] + n * grid.spacing_mm[axis]);
}

/** The nearest voxel that lies within the grid. */
export function withinGrid(shape, voxel) {
  return voxel.map(
    (n, axis) => Math.min(Math.max(Math.round(n), 0), shape[axis] - 1));
}

/** The box around all voxels of `[Z][Y][X]` masks that have any of the bits. */
export function boxAround(masks, shape, bits, margin) {
  const [nx, ny, nz] = shape;
  const low = [nx, ny, nz], high = [-1, -1, -1];
  for (let z = 0, at = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++, at++) {
        if (!(masks[at] & bits)) continue;
        if (x < low[0]) low[0] = x;
        if (x > high[0]) high[0] = x;
        if (y < low[1]) low[1] = y;
        if (y > high[1]) high[1] = y;
        if (z < low[2]) low[2] = z;
        if (z > high[2]) high[2] = z;
      }
    }
  }
  if (high[0] < 0) return wholeGrid(shape);
  return {
    low: low.map((n) => Math.max(n - margin, 0)),
    high: high.map((n, axis) => Math.min(n + margin, shape[axis] - 1)),
  };
}
