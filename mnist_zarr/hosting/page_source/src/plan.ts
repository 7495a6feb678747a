/** Where each sample of the contact sheet is: what is shown, in rows of as many as fit. */
import type { ClassInfo, Dataset } from "./dataset";
import { isShort } from "./dom";
import type { Tones } from "./pixels";

/** A class with those of its samples that are shown. */
export interface Shown {
  info: ClassInfo;
  samples: Uint32Array;
}

export interface Cell {
  row: number;
  column: number;
}

const CELL_PIXELS = 56;
const SMALL_CELL_PIXELS = 46;
const MAX_CELL_PIXELS = 160;
const MAX_NAME_PIXELS = 116;
/** Sheets narrower than this, as of phones, have small cells. */
const NARROW_PIXELS = 560;

/** Return pixels of CSS for one of an image: whole pixels of the screen, if it is enlarged. */
export function sharpScale(size: number, wanted: number, most: number): number {
  const enlarged = Math.max(1, Math.round((wanted * devicePixelRatio) / size)) / devicePixelRatio;
  return size * enlarged <= most ? enlarged : most / size;
}

export class Plan {
  /** Pixels of CSS for one of an image. */
  readonly scale: number;
  /** Pixels of an image between two of them. */
  readonly gap: number;
  /** Room for the names of the rows. */
  readonly left: number;
  readonly columns: number;
  /** For each row of the sheet, its class and its number within the class. */
  readonly rows: [shown: number, row: number][];

  constructor(
    readonly ds: Dataset,
    readonly shown: Shown[],
    readonly tones: Tones,
    readonly width: number,
  ) {
    const { rows, columns } = ds.shape;
    const wanted = width < NARROW_PIXELS ? SMALL_CELL_PIXELS : CELL_PIXELS;
    this.scale = sharpScale(Math.max(rows, columns), wanted, MAX_CELL_PIXELS);
    this.gap = Math.max(1, Math.ceil(1 / this.scale));
    const names = shown.map(({ info }) => info.name);
    const longest = Math.max(...names.map((name) => (isShort(name) ? 3 : name.length)), 0);
    this.left = shown.length > 1 ? Math.min(MAX_NAME_PIXELS, 12 + 8 * longest, width / 4) : 0;
    const cellWidth = (columns + this.gap) * this.scale;
    this.columns = Math.max(1, Math.floor((width - this.left + this.gap * this.scale) / cellWidth));
    this.rows = takeTurns(shown, this.columns);
  }

  get rowPixels(): number {
    return (this.ds.shape.rows + this.gap) * this.scale;
  }

  /** Return the sample in a cell, if there is one. */
  sampleAt({ row, column }: Cell): number | undefined {
    const place = this.rows[row];
    if (!place || column < 0 || column >= this.columns) return undefined;
    return this.shown[place[0]].samples[place[1] * this.columns + column];
  }

  /** Return the cell at a place in the sheet, if there is a sample. */
  cellAt(x: number, y: number): Cell | undefined {
    const column = Math.floor((x - this.left) / ((this.ds.shape.columns + this.gap) * this.scale));
    const cell = { row: Math.floor(y / this.rowPixels), column };
    return this.sampleAt(cell) === undefined ? undefined : cell;
  }

  /** Return the place and size of a cell in pixels of CSS. */
  boxOf({ row, column }: Cell): { left: number; top: number; width: number; height: number } {
    const { rows, columns } = this.ds.shape;
    return {
      left: this.left + column * (columns + this.gap) * this.scale,
      top: row * this.rowPixels,
      width: columns * this.scale,
      height: rows * this.scale,
    };
  }
}

/** Return the first row of each class, the second of each, and so on. */
function takeTurns(shown: Shown[], columns: number): [number, number][] {
  const lengths = shown.map(({ samples }) => Math.ceil(samples.length / columns));
  const rows: [number, number][] = [];
  for (let row = 0; row < Math.max(0, ...lengths); row += 1) {
    lengths.forEach((length, i) => {
      if (row < length) rows.push([i, row]);
    });
  }
  return rows;
}

/** Return the place of the first number of an ascending list that is not below this one. */
export function placeOf(list: Uint32Array, value: number): number {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
