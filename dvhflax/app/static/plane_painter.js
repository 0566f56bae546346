// Paints one plane of a patient on a canvas: CT or body, dose, lines, cross.

import {PLANES, toScreen} from './geometry.js';
import {isolinePieces, joined, rounded} from './isolines.js';
import {differenceTable, washTable} from './colours.js';
import {slice, sliceSize} from './volumes.js';

/** Slices smaller than a screen's pixels are smoothed when they are drawn. */
class Raster {
  constructor() {
    this.canvas = document.createElement('canvas');
    this.context = this.canvas.getContext('2d');
    this.image = null;
  }

  sized(width, height) {
    if (this.image?.width !== width || this.image.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.image = this.context.createImageData(width, height);
      this.values = new Float32Array(width * height);
      this.others = new Float32Array(width * height);
    }
    return this.image.data;
  }

  /** The whole slice, its outer voxels to their faces. */
  drawInto(context, place) {
    const {width, height} = this.canvas;
    this.context.putImageData(this.image, 0, 0);
    context.save();
    const [left, top] = toScreen(place, -0.5, -0.5);
    context.translate(left, top);
    context.scale(place.dx, place.dy);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = 'high';
    context.drawImage(this.canvas, 0, 0, width, height);
    context.restore();
  }
}

export class PlanePainter {
  #under = new Raster();
  #dose = new Raster();
  #contours = {key: '', lines: []};

  /**
   * @param canvas sized in device pixels
   * @param scene {name, place, shape, index: slice, cross: voxel, masks, ct,
   *   window: {centre, width}, structures: [{shown, body, colours}], dose,
   *   against: dose to subtract or null, rangeGy, wash: opacity, isodoses:
   *   [{gy, colour}], contours: bool, unit: device pixels of a thin line,
   *   version}
   */
  paint(canvas, scene) {
    const context = canvas.getContext('2d', {alpha: false});
    context.fillStyle = '#000';
    context.fillRect(0, 0, canvas.width, canvas.height);
    this.#paintUnder(context, scene);
    if (scene.dose) this.#paintDose(context, scene);
    if (scene.contours) this.#paintContours(context, scene);
    paintCross(context, canvas, scene);
  }

  #paintUnder(context, scene) {
    const {name, shape, index, ct, masks, structures} = scene;
    const data = this.#under.sized(...sliceSize(name, shape));
    const values = this.#under.values;
    slice(ct ?? masks, shape, name, index, values);
    const low = scene.window.centre - scene.window.width / 2;
    const body = structures.reduce((b, s, n) => (s.body ? b | 1 << n : b), 0);
    for (let n = 0, at = 0; n < values.length; n++, at += 4) {
      let grey = 0;
      if (ct) grey = 255 * (values[n] - low) / scene.window.width;
      else if (values[n] & body) grey = 44;
      else if (values[n]) grey = 52;
      data[at] = data[at + 1] = data[at + 2] = grey;
      data[at + 3] = 255;
    }
    this.#under.drawInto(context, scene.place);
  }

  #paintDose(context, scene) {
    const {name, shape, index, dose, against, rangeGy} = scene;
    const [width, height] = sliceSize(name, shape);
    const data = this.#dose.sized(width, height);
    const {values, others} = this.#dose;
    slice(dose.units, shape, name, index, values, (v) => v * dose.gyPerUnit);
    if (scene.wash > 0) {
      let table = washTable, factor = 255 / rangeGy, middle = 0;
      if (against) {
        slice(against.units, shape, name, index, others,
          (v) => v * against.gyPerUnit);
        table = differenceTable;
        factor = 127.5 / rangeGy;
        middle = 127.5;
      }
      for (let n = 0, at = 0; n < values.length; n++, at += 4) {
        const gy = against ? values[n] - others[n] : values[n];
        const entry = Math.min(
          Math.max(Math.round(middle + gy * factor), 0), 255) * 4;
        data[at] = table[entry];
        data[at + 1] = table[entry + 1];
        data[at + 2] = table[entry + 2];
        data[at + 3] = table[entry + 3];
      }
      context.globalAlpha = scene.wash;
      this.#dose.drawInto(context, scene.place);
      context.globalAlpha = 1;
    }
    context.lineWidth = 1.4 * scene.unit;
    context.lineCap = 'round';
    for (const {gy, colour} of scene.isodoses) {
      const pieces = isolinePieces(values, width, height, gy);
      if (!pieces.length) continue;
      context.strokeStyle = colour;
      context.beginPath();
      for (let n = 0; n < pieces.length; n += 4) {
        context.moveTo(...toScreen(scene.place, pieces[n], pieces[n + 1]));
        context.lineTo(...toScreen(scene.place, pieces[n + 2], pieces[n + 3]));
      }
      context.stroke();
    }
  }

  #paintContours(context, scene) {
    const {name, shape, index, masks, structures, unit} = scene;
    const key = `${scene.version} ${name} ${index}`;
    if (this.#contours.key !== key) {
      const [width, height] = sliceSize(name, shape);
      const bits = slice(masks, shape, name, index, new Uint32Array(
        width * height));
      const one = new Uint8Array(width * height);
      this.#contours = {key, lines: structures.map((_, s) => {
        for (let n = 0; n < bits.length; n++) one[n] = (bits[n] >> s) & 1;
        return joined(isolinePieces(one, width, height, 0.5, true))
          .map((line) => rounded(rounded(line)));
      })};
    }
    context.lineJoin = 'round';
    this.#contours.lines.forEach((lines, s) => {
      const {shown, selected, colours} = structures[s];
      if (!shown || !lines.length) return;
      const path = new Path2D();
      for (const line of lines) {
        path.moveTo(...toScreen(scene.place, line[0], line[1]));
        for (let n = 2; n < line.length; n += 2) {
          path.lineTo(...toScreen(scene.place, line[n], line[n + 1]));
        }
        const closed = line[0] === line.at(-2) && line[1] === line.at(-1);
        if (closed) path.closePath();
      }
      context.setLineDash([]);
      context.strokeStyle = 'rgb(0 0 0 / 45%)';
      context.lineWidth = (selected ? 3.2 : 2.4) * unit;
      context.stroke(path);
      context.setLineDash(colours.dash.map((length) => length * unit));
      context.strokeStyle = colours.picture;
      context.lineWidth = (selected ? 2.2 : 1.5) * unit;
      context.stroke(path);
    });
    context.setLineDash([]);
  }
}

function paintCross(context, canvas, scene) {
  const plane = PLANES[scene.name];
  const {cross, place, unit} = scene;
  const [x, y] = toScreen(place, cross[plane.across], cross[plane.down])
    .map((n) => Math.round(n) + 0.5);
  const gap = 9 * unit;
  context.strokeStyle = 'rgb(255 255 255 / 60%)';
  context.lineWidth = Math.max(1, Math.round(unit));
  context.beginPath();
  for (const [from, to] of [[0, x - gap], [x + gap, canvas.width]]) {
    context.moveTo(from, y);
    context.lineTo(to, y);
  }
  for (const [from, to] of [[0, y - gap], [y + gap, canvas.height]]) {
    context.moveTo(x, from);
    context.lineTo(x, to);
  }
  context.stroke();
}
