/** Canvases of some rows of the sheet each, which come and go as one scrolls. */
import type { Block } from "./dataset";
import { isShort, make } from "./dom";
import { crossOut, fill, paint } from "./pixels";
import type { Plan } from "./plan";

const BAND_PIXELS = 480;
/** Blocks that are read at the same time: ranges next to each other become one. */
const PARALLEL_READS = 12;

interface Band {
  plan: Plan;
  element: HTMLElement;
  image: ImageData;
  canvas: HTMLCanvasElement;
  isAlive: boolean;
}

/** The samples of one block in a band, each with the place of its image. */
interface Job {
  band: Band;
  sample: number;
  places: [sample: number, left: number, top: number][];
}

export class Bands {
  onFailure: (error: unknown) => void = () => {};

  readonly #bands = new Map<number, Band>();
  #jobs: Job[] = [];
  #nReading = 0;
  #isPumping = false;

  constructor(readonly parent: HTMLElement) {}

  clear(): void {
    this.#jobs = [];
    for (const number of [...this.#bands.keys()]) this.#drop(number);
  }

  /** Make the bands near the screen, and drop those far from it. */
  update(plan: Plan): void {
    if (!this.parent.offsetParent) return;
    const bandRows = Math.max(1, Math.round(BAND_PIXELS / plan.rowPixels));
    const bandPixels = plan.rowPixels * bandRows;
    const top = -this.parent.getBoundingClientRect().top;
    const nBands = Math.ceil(plan.rows.length / bandRows);
    const first = Math.max(0, Math.floor((top - innerHeight / 2) / bandPixels));
    const last = Math.min(nBands - 1, Math.floor((top + 1.5 * innerHeight) / bandPixels));
    for (const number of [...this.#bands.keys()]) {
      if (number < first - 2 || number > last + 2) this.#drop(number);
    }
    for (let number = first; number <= last; number += 1) {
      if (!this.#bands.has(number)) this.#add(plan, number, bandRows);
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

  #add(plan: Plan, number: number, bandRows: number): void {
    const begin = number * bandRows;
    const end = Math.min(plan.rows.length, begin + bandRows);
    const band = makeBand(plan, begin, end);
    this.#bands.set(number, band);
    this.#jobs.push(...jobsOf(band, begin, end));
    show(band);
    this.parent.append(band.element);
  }

  /** Read what is still wanted. */
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
    const { ds } = job.band.plan;
    try {
      const block = await ds.block(job.sample);
      if (job.band.isAlive) draw(job, block);
    } catch (error) {
      for (const [, left, top] of job.places) crossOut(job.band.image, left, top, ds.shape);
      this.onFailure(error);
    } finally {
      if (job.band.isAlive) show(job.band);
      this.#nReading -= 1;
      this.#pump();
    }
  }
}

function makeBand(plan: Plan, begin: number, end: number): Band {
  const { ds, scale, gap, columns, left, rowPixels } = plan;
  const canvas = make("canvas", {
    width: columns * (ds.shape.columns + gap) - gap,
    height: (end - begin) * (ds.shape.rows + gap) - gap,
    className: scale < 1 ? "shrunk" : "",
    ariaHidden: "true",
  });
  canvas.style.width = `${canvas.width * scale}px`;
  canvas.style.height = `${canvas.height * scale}px`;
  const element = make("div", { className: "band" }, canvas);
  element.style.left = `${left}px`;
  element.style.top = `${begin * rowPixels}px`;
  for (let row = begin; left && row < end; row += 1) {
    const { name } = plan.shown[plan.rows[row][0]].info;
    element.append(rowName(name, (row - begin) * rowPixels, left, rowPixels));
  }
  const image = new ImageData(canvas.width, canvas.height);
  return { plan, element, canvas, image, isAlive: true };
}

function rowName(name: string, top: number, left: number, height: number): HTMLElement {
  const element = make("span", { className: "row-name", title: name }, name);
  if (isShort(name)) element.classList.add("short");
  element.style.left = `${-left}px`;
  element.style.top = `${top}px`;
  element.style.width = `${left - 10}px`;
  element.style.lineHeight = `${height}px`;
  return element;
}

/** Mark the places of the images in a band; return what has to be read for them. */
function jobsOf(band: Band, begin: number, end: number): Iterable<Job> {
  const { ds, gap, columns } = band.plan;
  const jobs = new Map<number, Job>();
  for (let row = begin; row < end; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const sample = band.plan.sampleAt({ row, column });
      if (sample === undefined) break;
      const [left, top] = [
        column * (ds.shape.columns + gap),
        (row - begin) * (ds.shape.rows + gap),
      ];
      const block = Math.floor(sample / ds.blockLength);
      const job = jobs.get(block) ?? { band, sample, places: [] };
      job.places.push([sample, left, top]);
      jobs.set(block, job);
      fill(band.image, left, top, ds.shape);
    }
  }
  return jobs.values();
}

function draw({ band, places }: Job, block: Block): void {
  const { ds, tones } = band.plan;
  for (const [sample, left, top] of places) {
    paint(band.image, left, top, ds.pixels(block, sample), ds.shape, tones);
  }
  performance.mark("first samples drawn");
}

function show({ canvas, image }: Band): void {
  canvas.getContext("2d")!.putImageData(image, 0, 0);
}
