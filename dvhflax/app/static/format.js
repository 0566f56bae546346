// Numbers and names as the page writes them.

export const gy = (value) => `${value.toFixed(1)} Gy`;
export const percent = (value) => `${value.toFixed(1)} %`;

/** A cc with as many digits as it deserves. */
export function cc(value) {
  return `${value < 10 ? value.toFixed(2) : value.toFixed(1)} cc`;
}

/** A number with its sign, a true minus, and `±0.0` for what rounds to none. */
export function signed(value, digits = 1) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return `±${text}`;
  return `${value < 0 ? '−' : '+'}${text}`;
}

/** `femoral_head_left` as people read it. */
export const readable = (name) => name.replaceAll('_', ' ');

/** A duration in s, for a progress bar. */
export function remaining(seconds) {
  if (!Number.isFinite(seconds)) return '';
  if (seconds < 90) return `${Math.ceil(seconds)} s left`;
  return `${Math.round(seconds / 60)} min left`;
}

/** The hour of a time stamp, local. */
export function clock(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return '';
  return date.toLocaleTimeString([], {hour: '2-digit', minute: '2-digit'});
}

const GOAL = new RegExp(
  '^(?<structure>.+?)\\s+(?:(?<kind>[VD])\\s*(?<at>\\d+(?:\\.\\d+)?)\\s*' +
  '(?<atUnit>Gy|%|cc)?|(?<whole>mean|max))\\s*(?<relation><=|>=|[<>=≤≥])' +
  '\\s*(?<value>\\d+(?:\\.\\d+)?)\\s*(?<unit>Gy|%|cc)?$', 'i');

/**
 * Where on the plot a goal lies, to mark it there.
 *
 * @return {structure, gy, percent, most} (most: it is an upper bound), or null
 *   for what has no place (a mean) or cannot be read
 */
export function goalPlace(text, structures, prescriptionGy) {
  const found = GOAL.exec(text.trim())?.groups;
  if (!found || found.whole?.toLowerCase() === 'mean') return null;
  const structure = structures.findIndex(
    (s) => s.name.toLowerCase() === found.structure.toLowerCase());
  if (structure < 0) return null;
  const dose = (number, unit) => (
    unit === '%' ? number * prescriptionGy / 100 : Number(number));
  const volume = (number, unit) => (unit?.toLowerCase() === 'cc' ?
    100 * number / structures[structure].volume_cc : Number(number));
  const most = !/[>≥]/.test(found.relation);
  if (found.whole) {
    return {structure, gy: dose(found.value, found.unit), percent: 0, most};
  }
  if (found.kind.toUpperCase() === 'V') {
    return {
      structure, gy: dose(found.at, found.atUnit),
      percent: volume(found.value, found.unit), most,
    };
  }
  return {
    structure, gy: dose(found.value, found.unit),
    percent: volume(found.at, found.atUnit), most,
  };
}
