/** The mean image of each class, computed here from all of its samples. */
import type { Dataset } from "./dataset";
import { byteSize, count, make, plural } from "./dom";
import { type Tones, paint, rangeOf } from "./pixels";
import { type Shown, placeOf, sharpScale } from "./plan";

const PICTURE_PIXELS = 112;
const LARGE_PICTURE_PIXELS = 160;
// Up to so many classes get large pictures.
const FEW_CLASSES = 12;
// More than this is not read unasked.
const FREE_BYTES = 256e6;
const PARALLEL_READS = 12;

export class Means {
  onFailure: (error: unknown) => void = () => {};
  /** Which request is the latest; an earlier one stops. */
  #turn = 0;

  constructor(readonly element: HTMLElement) {}

  stop(): void {
    this.#turn += 1;
  }

  /** Compute and show; asks first where that is much to read. */
  async show(ds: Dataset, shown: Shown[], tones: Tones): Promise<void> {
    this.#turn += 1;
    const turn = this.#turn;
    const all = shown.filter(({ samples }) => samples.length);
    // Samples without a label have no mean of a class; alone they are shown, as somebody asks.
    const labelled = all.filter(({ info }) => !info.isUnlabelled);
    const classes = labelled.length ? labelled : all;
    const blocks = blocksOf(ds, classes);
    const bytes = (blocks.length * ds.blockLength * ds.rawBytes) / ds.nSamples;
    if (bytes > FREE_BYTES && !(await this.#confirm(bytes))) return;
    if (turn !== this.#turn) return;
    const bar = make("progress", { max: blocks.length, value: 0, ariaLabel: "Chunks read" });
    const words = make("span");
    this.element.replaceChildren(make("p", { className: "wait" }, bar, words));
    const sums = classes.map(() => new Float64Array(ds.sampleSize));
    let isWhole = true;
    const queue = [...blocks];
    const work = async (): Promise<void> => {
      for (let block = queue.shift(); block !== undefined; block = queue.shift()) {
        try {
          await addBlock(ds, block, classes, sums);
        } catch (error) {
          isWhole = false;
          this.onFailure(error);
        }
        if (turn !== this.#turn) return;
        bar.value += 1;
        words.textContent = `${count(bar.value)} of ${plural(blocks.length, "chunk")}`;
      }
    };
    await Promise.all(Array.from({ length: PARALLEL_READS }, work));
    if (turn !== this.#turn) return;
    // The mean of some of the samples would not be that of the class.
    if (!isWhole) {
      const reason = "A mean image needs every sample, and not every chunk could be read.";
      this.element.replaceChildren(make("p", { className: "wait" }, reason));
      return;
    }
    this.#draw(ds, classes, sums, tones);
  }

  #confirm(bytes: number): Promise<boolean> {
    return new Promise((resolve) => {
      const button = make("button", { type: "button" }, "Read them all");
      button.addEventListener("click", () => resolve(true));
      const text = `Mean images need every sample: ${byteSize(bytes)} of pixels. `;
      this.element.replaceChildren(make("p", { className: "wait" }, text, button));
    });
  }

  #draw(ds: Dataset, classes: Shown[], sums: Float64Array[], tones: Tones): void {
    const means = sums.map((sum, i) => sum.map((value) => value / classes[i].samples.length));
    let { low, high } = tones;
    if (ds.shape.channels === 1) {
      const ranges = means.map(rangeOf);
      low = Math.min(...ranges.map(([least]) => least));
      high = Math.max(...ranges.map(([, most]) => most));
    }
    const { rows, columns } = ds.shape;
    const isFew = classes.length <= FEW_CLASSES;
    this.element.classList.toggle("few", isFew);
    const wanted = isFew ? LARGE_PICTURE_PIXELS : PICTURE_PIXELS;
    const scale = sharpScale(Math.max(rows, columns), wanted, wanted * 1.1);
    const figures = means.map((mean, i) => {
      const { info, samples } = classes[i];
      const canvas = make("canvas", { width: columns, height: rows, role: "img" });
      canvas.ariaLabel = `Mean image of ${info.name}`;
      canvas.classList.toggle("shrunk", scale < 1);
      canvas.style.width = `${columns * scale}px`;
      canvas.style.height = `${rows * scale}px`;
      const image = new ImageData(columns, rows);
      paint(image, 0, 0, mean, ds.shape, { ...tones, low, high });
      canvas.getContext("2d")!.putImageData(image, 0, 0);
      const caption = make("figcaption", {}, info.name);
      caption.append(make("small", {}, plural(samples.length, "sample")));
      return make("figure", { className: "mean" }, canvas, caption);
    });
    this.element.replaceChildren(...figures);
  }
}

/** Return a sample of each block that has some of these. */
function blocksOf(ds: Dataset, classes: Shown[]): number[] {
  const blocks = new Set<number>();
  for (const { samples } of classes) {
    for (const sample of samples) blocks.add(Math.floor(sample / ds.blockLength));
  }
  return [...blocks].sort((a, b) => a - b).map((block) => block * ds.blockLength);
}

async function addBlock(
  ds: Dataset,
  first: number,
  classes: Shown[],
  sums: Float64Array[],
): Promise<void> {
  const block = await ds.block(first);
  const end = Math.min(ds.nSamples, first + ds.blockLength);
  classes.forEach(({ samples }, i) => {
    const sum = sums[i];
    for (let at = placeOf(samples, first); at < samples.length && samples[at] < end; at += 1) {
      const pixels = ds.pixels(block, samples[at]);
      for (let j = 0; j < sum.length; j += 1) sum[j] += pixels[j];
    }
  });
}
