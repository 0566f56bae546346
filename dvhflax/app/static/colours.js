// Colours that people with any colour vision tell apart (after Okabe and Ito,
// and Tol), always together with a dash on contours and a mark on curves.

// On black pictures, on a dark and on a light page. The page's are darkened
// or lightened to keep 3:1 and more against it.
const TARGETS = [
  {picture: '#ff5a4f', dark: '#ff6f61', light: '#c8281c'},
  {picture: '#ff9e80', dark: '#ff9e80', light: '#a8450f'},
];
const ORGANS = [
  {picture: '#56b4e9', dark: '#5cbcf2', light: '#0a78b8'},
  {picture: '#e69f00', dark: '#f0ad1c', light: '#a86c00'},
  {picture: '#1fc796', dark: '#24c596', light: '#00795a'},
  {picture: '#d48fc0', dark: '#dc93c4', light: '#9c3f7d'},
  {picture: '#f0e442', dark: '#ece252', light: '#75700a'},
  {picture: '#8c9eff', dark: '#92a3ff', light: '#3a4cc0'},
  {picture: '#a6d96a', dark: '#a6d96a', light: '#4c7d12'},
];
const BODY = {picture: '#9aa4af', dark: '#98a3ae', light: '#66717c'};

const DASHES = [[], [9, 2.5], [3, 2.5], [9, 2.5, 3, 2.5], [5, 4], [14, 3]];
const MARKS = ['circle', 'square', 'triangle', 'diamond', 'hexagon', 'star'];

/** `[{picture, dark, light, dash, mark}]` of structures, by their roles. */
export function structureColours(structures) {
  let targets = 0, organs = 0;
  return structures.map((structure) => {
    if (structure.role === 'body') return {...BODY, dash: [], mark: 'circle'};
    if (structure.role === 'target') {
      const n = targets++;
      return {
        ...TARGETS[n % TARGETS.length],
        dash: DASHES[n % DASHES.length], mark: 'circle',
      };
    }
    const n = organs++;
    return {
      ...ORGANS[n % ORGANS.length],
      dash: DASHES[n % DASHES.length],
      mark: MARKS[(n + 1) % MARKS.length],
    };
  });
}

/** Isodoses in % of the prescription, in the colours that clinics use. */
export const ISODOSES = [
  {percent: 107, colour: '#ff66cc', shown: true},
  {percent: 100, colour: '#ff3b30', shown: true},
  {percent: 95, colour: '#ff9500', shown: true},
  {percent: 80, colour: '#ffe14d', shown: true},
  {percent: 70, colour: '#4cd964', shown: true},
  {percent: 50, colour: '#32d6ff', shown: true},
  {percent: 30, colour: '#4f8dff', shown: true},
  {percent: 20, colour: '#a58bff', shown: false},
];

// Lightness rises evenly with the dose.
const WASH = [
  [0.00, 12, 8, 38], [0.15, 58, 15, 104], [0.30, 110, 28, 124],
  [0.45, 164, 44, 104], [0.60, 213, 72, 66], [0.75, 244, 118, 28],
  [0.90, 252, 180, 44], [1.00, 250, 244, 150],
];
const DIFFERENCE = [
  [0.00, 46, 134, 255], [0.25, 96, 176, 255], [0.50, 235, 235, 235],
  [0.75, 255, 170, 70], [1.00, 255, 106, 0],
];

function interpolated(stops, place) {
  let n = 1;
  while (n < stops.length - 1 && place > stops[n][0]) n++;
  const [low, high] = [stops[n - 1], stops[n]];
  const share = (place - low[0]) / (high[0] - low[0]);
  return [1, 2, 3].map((c) => Math.round(low[c] + (high[c] - low[c]) * share));
}

function table(stops, alpha) {
  const found = new Uint8ClampedArray(4 * 256);
  for (let n = 0; n < 256; n++) {
    found.set([...interpolated(stops, n / 255), 255 * alpha(n / 255)], 4 * n);
  }
  return found;
}

/** 256 RGBA for doses from 0 to the most; low doses are transparent. */
export const washTable = table(
  WASH, (share) => 0.25 * Math.min(share / 0.12, 1) +
    0.75 * Math.min(Math.max((share - 0.1) / 0.4, 0), 1));

/** 256 RGBA for differences from -most to most; none is transparent. */
export const differenceTable = table(
  DIFFERENCE, (share) => Math.min(Math.abs(share - 0.5) * 2 / 0.35, 1));

/** Stops of the tables for a colour bar: `[[share, 'rgb()'], ...]`. */
export function barStops(difference) {
  return (difference ? DIFFERENCE : WASH).map(
    ([share, ...rgb]) => [share, `rgb(${rgb.join(' ')})`]);
}
