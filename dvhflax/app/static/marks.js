// Marks that tell curves apart without colour.

const CORNERS = {triangle: 3, square: 4, diamond: 4, hexagon: 6};

function polygon(x, y, radii, turn) {
  return radii.map((radius, n) => {
    const angle = turn + 2 * Math.PI * n / radii.length;
    const px = x + radius * Math.sin(angle), py = y - radius * Math.cos(angle);
    return `${n ? 'L' : 'M'}${px.toFixed(2)} ${py.toFixed(2)}`;
  }).join('') + 'Z';
}

/** The outline of a mark about a place, as SVG has it. */
export function markPath(mark, x, y, radius) {
  if (mark === 'star') {
    const radii = Array.from({length: 10}, (_, n) => (
      radius * (n % 2 ? 0.55 : 1.3)));
    return polygon(x, y, radii, 0);
  }
  const corners = CORNERS[mark];
  if (!corners) {
    return `M${x - radius} ${y}a${radius} ${radius} 0 1 1 ${2 * radius} 0` +
      `a${radius} ${radius} 0 1 1 ${-2 * radius} 0Z`;
  }
  const turn = mark === 'square' ? Math.PI / 4 : 0;
  return polygon(x, y, Array(corners).fill(1.2 * radius), turn);
}
