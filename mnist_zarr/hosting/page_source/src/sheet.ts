/** The contact sheet: rows of samples on canvases that come and go as one scrolls. */
import type { Block, ClassInfo, Dataset } from "./dataset";
import { count, isShort, make } from "./dom";
import { type Tones, crossOut, paint } from "./pixels";

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
const BAND_PIXELS = 480;
const MAX_NAME_PIXELS = 116;
const PARALLEL_READS = 12;

interface Geometry {
  columns: number;
  /** Pixels of CSS for one of an image. */
  scale: number;
  /** Pixels of an image between two of them. */
  gap: number;
  left: number;
  rowPixels: number;
  bandRows: number;
}

interface Band {
  element: HTMLElement;
  image: ImageData;
  canvas: HTMLCanvasElement;
  isAlive: boolean;
}

interface Job {
  band: Band;
  sample: number;
  places: [sample: number, left: number, top: number][];
}

/** Return pixels of CSS for one of an image: whole pixels of the screen, if it is enlarged. */
export function sharpScale(size: number, wanted: number, most: number): number {
  const enlarged = Math.max(1, Math.round((wanted * devicePixelRatio) / size)) / devicePixelRatio;
  return size * enlarged <= most ? enlarged : most / size;
}

export class Sheet {
  onOpen: (sample: number) => void = () => {};
  onFailure: (error: unknown) => void = () => {};

  #ds: Dataset | undefined;
  #tones: Tones = { low: 0, high: 255, isHighBright: false };
  #shown: Shown[] = [];
  /** For each row of the sheet, its class and its number within the class. */
  #rows: [shown: number, row: number][] = [];
  #geometry: Geometry | undefined;
  readonly #bands = new Map<number, Band>();
  #jobs: Job[] = [];
  #nReading = 0;
  #isPumping = false;
  #cell: Cell = { row: 0, column: 0 };
  readonly #cursor = make("div", { id: "cursor", role: "gridcell" });
  readonly #cursorRow = make("div", { role: "row" }, this.#cursor);

  constructor(readonly element: HTMLElement) {
    addEventListener("scroll", () => this.#update(), { passive: true });
    new ResizeObserver(() => this.#layOut()).observe(element);
    element.addEventListener("keydown", (event) => this.#onKey(event));
    element.addEventListener("pointermove", (event) => this.#onPointer(event));
    element.addEventListener("pointerleave", () => element.classList.remove("pointed"));
    element.addEventListener("click", (event) => {
      const cell = this.#cellAt(event);
      if (cell) this.onOpen(this.sampleAt(cell)!);
    });
  }

  show(ds: Dataset, shown: Shown[], tones: Tones): void {
    this.#ds = ds;
    this.#shown = shown.filter(({ samples }) => samples.length);
    this.#tones = tones;
    this.#cell = { row: 0, column: 0 };
    this.#clear();
    this.#layOut();
  }

  /** Return the sample in a cell, if there is one. */
  sampleAt({ row, column }: Cell): number | undefined {
    const place = this.#rows[row];
    if (!place || !this.#geometry || column < 0 || column >= this.#geometry.columns)
      return undefined;
    return this.#shown[place[0]].samples[place[1] * this.#geometry.columns + column];
  }

  /** Return the sample that lies this many steps after one, in the order of the sheet. */
  neighbour(sample: number, step: number): number | undefined {
    for (const { samples } of this.#shown) {
      const place = placeOf(samples, sample);
      if (samples[place] === sample) return samples[place + step];
    }
    return undefined;
  }

  #layOut(): void {
    const ds = this.#ds;
    if (!ds || !this.element.clientWidth) return;
    const geometry = this.#measure(ds, this.element.clientWidth);
    if (JSON.stringify(geometry) === JSON.stringify(this.#geometry)) return;
    this.#clear();
    this.#geometry = geometry;
    this.#rows = planRows(this.#shown, geometry.columns);
    const { style } = this.element;
    style.height = `${this.#rows.length * geometry.rowPixels}px`;
    this.element.setAttribute("aria-rowcount", String(this.#rows.length));
    this.element.setAttribute("aria-colcount", String(geometry.columns));
    this.element.append(this.#cursorRow);
    this.#moveTo(this.#cell, false);
    this.#update();
  }

  #clear(): void {
    this.#geometry = undefined;
    this.#rows = [];
    this.#jobs = [];
    for (const number of [...this.#bands.keys()]) this.#drop(number);
  }

  #measure(ds: Dataset, width: number): Geometry {
    const { rows, columns } = ds.shape;
    const wanted = width < 560 ? SMALL_CELL_PIXELS : CELL_PIXELS;
    const scale = sharpScale(Math.max(rows, columns), wanted, MAX_CELL_PIXELS);
    const gap = Math.max(1, Math.ceil(1 / scale));
    const names = this.#shown.map(({ info }) => info.name);
    const longest = Math.max(...names.map((name) => (isShort(name) ? 3 : name.length)), 0);
    const left =
      this.#shown.length > 1 ? Math.min(MAX_NAME_PIXELS, 12 + 8 * longest, width / 4) : 0;
    const rowPixels = (rows + gap) * scale;
    return {
      columns: Math.max(1, Math.floor((width - left + gap * scale) / ((columns + gap) * scale))),
      scale,
      gap,
      left,
      rowPixels,
      bandRows: Math.max(1, Math.round(BAND_PIXELS / rowPixels)),
    };
  }

  /** Make the bands near the screen, and drop those far from it. */
  #update(): void {
    if (!this.#geometry || !this.element.offsetParent) return;
    const { rowPixels, bandRows } = this.#geometry;
    const bandPixels = rowPixels * bandRows;
    const top = -this.element.getBoundingClientRect().top;
    const nBands = Math.ceil(this.#rows.length / bandRows);
    const first = Math.max(0, Math.floor((top - innerHeight / 2) / bandPixels));
    const last = Math.min(nBands - 1, Math.floor((top + 1.5 * innerHeight) / bandPixels));
    for (const number of [...this.#bands.keys()]) {
      if (number < first - 2 || number > last + 2) this.#drop(number);
    }
    for (let number = first; number <= last; number += 1) {
      if (!this.#bands.has(number)) this.#add(number);
    }
    this.#pump();
  }

  #drop(number: number): void {
    const band = this.#bands.get(number);
    if (!band) return;
    band.isAlive = false;
    band.element.remove();
    this.#bands.delete(number);
  }

  #add(number: number): void {
    const ds = this.#ds!;
    const { columns, scale, gap, left, rowPixels, bandRows } = this.#geometry!;
    const begin = number * bandRows;
    const rows = this.#rows.slice(begin, begin + bandRows);
    const [width, height] = [ds.shape.columns + gap, ds.shape.rows + gap];
    const canvas = make("canvas", {
      width: columns * width - gap,
      height: rows.length * height - gap,
      className: scale < 1 ? "shrunk" : "",
      ariaHidden: "true",
    });
    canvas.style.width = `${canvas.width * scale}px`;
    canvas.style.height = `${canvas.height * scale}px`;
    const element = make("div", { className: "band" }, canvas);
    element.style.left = `${left}px`;
    element.style.top = `${begin * rowPixels}px`;
    const image = new ImageData(canvas.width, canvas.height);
    const band: Band = { element, canvas, image, isAlive: true };
    const jobs = new Map<number, Job>();
    rows.forEach(([shown, row], i) => {
      const { info, samples } = this.#shown[shown];
      if (left) element.append(this.#rowName(info.name, i * rowPixels, left, rowPixels));
      for (let column = 0; column < columns; column += 1) {
        const sample = samples[row * columns + column];
        if (sample === undefined) break;
        const block = Math.floor(sample / ds.blockLength);
        let job = jobs.get(block);
        if (!job) jobs.set(block, (job = { band, sample, places: [] }));
        job.places.push([sample, column * width, i * height]);
        fill(image, column * width, i * height, ds.shape.columns, ds.shape.rows);
      }
    });
    canvas.getContext("2d")!.putImageData(image, 0, 0);
    this.element.append(element);
    this.#bands.set(number, band);
    this.#jobs.push(...jobs.values());
  }

  #rowName(name: string, top: number, left: number, height: number): HTMLElement {
    const element = make("span", { className: "row-name", title: name }, name);
    if (isShort(name)) element.classList.add("short");
    element.style.left = `${-left}px`;
    element.style.top = `${top}px`;
    element.style.width = `${left - 10}px`;
    element.style.lineHeight = `${height}px`;
    return element;
  }

  /** Read what is still wanted, some blocks at once: their ranges are merged. */
  #pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    setTimeout(() => {
      this.#isPumping = false;
      this.#jobs = this.#jobs.filter(({ band }) => band.isAlive);
      while (this.#nReading < PARALLEL_READS && this.#jobs.length) {
        this.#nReading += 1;
        void this.#run(this.#jobs.shift()!);
      }
    });
  }

  async #run(job: Job): Promise<void> {
    try {
      const block = await this.#ds!.block(job.sample);
      if (job.band.isAlive) this.#draw(job, block);
    } catch (error) {
      for (const [, left, top] of job.places) {
        crossOut(job.band.image, left, top, this.#ds!.shape, [168, 50, 31]);
      }
      job.band.canvas.getContext("2d")!.putImageData(job.band.image, 0, 0);
      this.onFailure(error);
    } finally {
      this.#nReading -= 1;
      this.#pump();
    }
  }

  #draw({ band, places }: Job, block: Block): void {
    const ds = this.#ds!;
    for (const [sample, left, top] of places) {
      paint(band.image, left, top, ds.pixels(block, sample), ds.shape, this.#tones);
    }
    band.canvas.getContext("2d")!.putImageData(band.image, 0, 0);
    performance.mark("first samples drawn");
  }

  #cellAt({ clientX, clientY }: MouseEvent): Cell | undefined {
    if (!this.#geometry || !this.#ds) return undefined;
    const { left, scale, gap, rowPixels } = this.#geometry;
    const box = this.element.getBoundingClientRect();
    const column = Math.floor(
      (clientX - box.left - left) / ((this.#ds.shape.columns + gap) * scale),
    );
    const cell = { row: Math.floor((clientY - box.top) / rowPixels), column };
    return this.sampleAt(cell) === undefined ? undefined : cell;
  }

  #onPointer(event: PointerEvent): void {
    const cell = this.#cellAt(event);
    this.element.classList.toggle("pointed", cell !== undefined && event.pointerType === "mouse");
    if (cell) this.#moveTo(cell, false);
  }

  #onKey(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#geometry) return;
    const { row, column } = this.#cell;
    const page = Math.max(1, Math.floor(innerHeight / this.#geometry.rowPixels) - 2);
    const targets: Record<string, Cell> = {
      ArrowLeft: { row, column: column - 1 },
      ArrowRight: { row, column: column + 1 },
      ArrowUp: { row: row - 1, column },
      ArrowDown: { row: row + 1, column },
      PageUp: { row: Math.max(0, row - page), column },
      PageDown: { row: Math.min(this.#rows.length - 1, row + page), column },
      Home: { row: 0, column: 0 },
      End: { row: this.#rows.length - 1, column: 0 },
    };
    const target = targets[event.key];
    const sample = this.sampleAt(this.#cell);
    if (target) this.#moveTo(target, true);
    else if ((event.key === "Enter" || event.key === " ") && sample !== undefined)
      this.onOpen(sample);
    else return;
    event.preventDefault();
  }

  #moveTo(cell: Cell, isKey: boolean): void {
    const sample = this.sampleAt(cell);
    if (sample === undefined || !this.#ds || !this.#geometry) return;
    this.#cell = cell;
    const { left, scale, gap, rowPixels } = this.#geometry;
    const { style } = this.#cursor;
    const { shape } = this.#ds;
    style.left = `${left + cell.column * (shape.columns + gap) * scale}px`;
    style.top = `${cell.row * rowPixels}px`;
    style.width = `${shape.columns * scale}px`;
    style.height = `${shape.rows * scale}px`;
    const { info } = this.#shown[this.#rows[cell.row][0]];
    const words = [`sample ${count(sample)}`];
    if (info.value !== null) words.push(`class ${info.name}`);
    if (this.#ds.splits.length) words.push(this.#ds.splits[this.#ds.splitOf[sample]]);
    this.#cursor.ariaLabel = words.join(", ");
    this.#cursor.ariaRowIndex = String(cell.row + 1);
    this.#cursor.ariaColIndex = String(cell.column + 1);
    if (isKey) this.#cursor.scrollIntoView({ block: "nearest" });
  }
}

/** Take turns: the first row of each class, the second of each, and so on. */
function planRows(shown: Shown[], columns: number): [number, number][] {
  const lengths = shown.map(({ samples }) => Math.ceil(samples.length / columns));
  const rows: [number, number][] = [];
  for (let row = 0; row < Math.max(0, ...lengths); row += 1) {
    lengths.forEach((length, i) => {
      if (row < length) rows.push([i, row]);
    });
  }
  return rows;
}

/** Mark the place of an image that is still to come. */
function fill(
  { data, width }: ImageData,
  left: number,
  top: number,
  columns: number,
  rows: number,
): void {
  for (let row = top; row < top + rows; row += 1) {
    for (let at = 4 * (row * width + left) + 3; at < 4 * (row * width + left + columns); at += 4) {
      data[at - 3] = data[at - 2] = data[at - 1] = 128;
      data[at] = 22;
    }
  }
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
