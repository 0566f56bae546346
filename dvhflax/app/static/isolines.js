// Lines of one value in a plane, by marching squares.

// Edges of a cell: 0 top, 1 right, 2 bottom, 3 left. Cases by corners at or
// above the level: 1 top left, 2 top right, 4 bottom right, 8 bottom left.
const CASES = [
  [], [3, 0], [0, 1], [3, 1], [1, 2], [3, 0, 1, 2], [0, 2], [3, 2],
  [2, 3], [2, 0], [0, 1, 2, 3], [2, 1], [1, 3], [1, 0], [0, 3], [],
];
// The two saddles where the middle is at or above the level, too.
const SADDLES = {5: [3, 2, 1, 0], 10: [0, 3, 2, 1]};

/**
 * Ends of the pieces of an isoline.
 *
 * @param values `[height][width]`, one row after the other
 * @param padded whether zeros surround the plane, so that lines close
 * @return [x0, y0, x1, y1, x0, ...] in voxels, 0 being the first's centre
 */
export function isolinePieces(values, width, height, level, padded = false) {
  const found = [];
  const rim = padded ? 1 : 0;
  const at = (x, y) => (
    x < 0 || y < 0 || x >= width || y >= height ? 0 : values[y * width + x]);
  const share = (a, b) => (level - a) / (b - a);
  for (let y = -rim; y < height - 1 + rim; y++) {
    for (let x = -rim; x < width - 1 + rim; x++) {
      const a = at(x, y), b = at(x + 1, y);
      const c = at(x + 1, y + 1), d = at(x, y + 1);
      const which = (a >= level ? 1 : 0) | (b >= level ? 2 : 0) |
        (c >= level ? 4 : 0) | (d >= level ? 8 : 0);
      if (which === 0 || which === 15) continue;
      let edges = CASES[which];
      if ((which === 5 || which === 10) && (a + b + c + d) / 4 >= level) {
        edges = SADDLES[which];
      }
      for (const edge of edges) {
        if (edge === 0) found.push(x + share(a, b), y);
        else if (edge === 1) found.push(x + 1, y + share(b, c));
        else if (edge === 2) found.push(x + share(d, c), y + 1);
        else found.push(x, y + share(a, d));
      }
    }
  }
  return found;
}

/** Pieces joined to lines, `[[x, y, x, y, ...], ...]`; closed ones repeat
 * their first point. */
export function joined(pieces) {
  const key = (n) => `${pieces[n].toFixed(4)},${pieces[n + 1].toFixed(4)}`;
  const ends = new Map();
  for (let n = 0; n < pieces.length; n += 2) {
    const here = ends.get(key(n));
    if (here) here.push(n);
    else ends.set(key(n), [n]);
  }
  const used = new Uint8Array(pieces.length / 4);
  const lines = [];
  const follow = (start) => {
    const line = [];
    let from = start;
    for (;;) {
      used[from >> 2] = 1;
      const to = from ^ 2;
      if (!line.length) line.push(pieces[from], pieces[from + 1]);
      line.push(pieces[to], pieces[to + 1]);
      const next = ends.get(key(to)).find((n) => !used[n >> 2]);
      if (next === undefined) return line;
      from = next;
    }
  };
  // Open lines from an end first, then what closes.
  for (const several of ends.values()) {
    if (several.length === 1 && !used[several[0] >> 2]) {
      lines.push(follow(several[0]));
    }
  }
  for (let n = 0; n < pieces.length; n += 4) {
    if (!used[n >> 2]) lines.push(follow(n));
  }
  return lines;
}

/** A line whose corners are cut once (Chaikin 1974), which takes the stairs off
 * outlines of masks and moves them by less than a quarter of a voxel. */
export function rounded(line) {
  const closed = line[0] === line.at(-2) && line[1] === line.at(-1);
  const cut = closed ? [] : [line[0], line[1]];
  for (let n = 0; n + 3 < line.length; n += 2) {
    const [x0, y0, x1, y1] = line.slice(n, n + 4);
    cut.push(0.75 * x0 + 0.25 * x1, 0.75 * y0 + 0.25 * y1,
      0.25 * x0 + 0.75 * x1, 0.25 * y0 + 0.75 * y1);
  }
  if (closed) cut.push(cut[0], cut[1]);
  else cut.push(line.at(-2), line.at(-1));
  return cut;
}
