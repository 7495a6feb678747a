/** One sample, large, with everything that the store says of it. */
import type { Dataset, Numbers } from "./dataset";
import { byId, count, make } from "./dom";
import type { Variable } from "./metadata";
import { type Tones, packing, paint } from "./pixels";
import { sharpScale } from "./plan";

const PICTURE_PIXELS = 392;

export class SampleDialog {
  onStep: (step: number) => void = () => {};
  onClose: () => void = () => {};
  onFailure: (error: unknown) => void = () => {};

  readonly #dialog = byId<HTMLDialogElement>("sample");
  readonly #canvas = byId<HTMLCanvasElement>("sample-canvas");
  #ds: Dataset | undefined;
  #sample = -1;
  #pixels: Numbers | undefined;

  constructor() {
    this.#dialog.addEventListener("close", () => this.onClose());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
    this.#dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) this.onStep(step);
    });
    byId("previous").addEventListener("click", () => this.onStep(-1));
    byId("next").addEventListener("click", () => this.onStep(1));
    this.#canvas.addEventListener("pointermove", (event) => this.#sayPixel(event));
    this.#canvas.addEventListener("pointerleave", () => byId("pixel").replaceChildren());
  }

  close(): void {
    if (this.#dialog.open) this.#dialog.close();
  }

  async show(
    ds: Dataset,
    sample: number,
    tones: Tones,
    hasStep: (step: number) => boolean,
  ): Promise<void> {
    this.#ds = ds;
    this.#sample = sample;
    if (!this.#dialog.open) this.#dialog.showModal();
    byId("sample-title").textContent = `Sample ${count(sample)}`;
    byId<HTMLButtonElement>("previous").disabled = !hasStep(-1);
    byId<HTMLButtonElement>("next").disabled = !hasStep(1);
    this.#showCoordinates(ds, sample);
    await this.#showImage(ds, sample, tones);
  }

  #showCoordinates(ds: Dataset, sample: number): void {
    const list = byId("coordinates");
    const rows = [...ds.coords].sort((a, b) => rank(a) - rank(b));
    const terms = rows.map((variable) => {
      const place = make("dd", {}, "…");
      void this.#fill(place, ds, variable, sample);
      const term = make("dt", {}, variable.name.replaceAll("_", " "));
      if (typeof variable.attrs.long_name === "string") term.title = variable.attrs.long_name;
      return [term, place];
    });
    const size = `${ds.shape.rows} × ${ds.shape.columns}, ${ds.image.array.dtype}`;
    const index = [make("dt", {}, "index"), make("dd", {}, String(sample))];
    list.replaceChildren(...index, ...terms.flat(), make("dt", {}, "image"), make("dd", {}, size));
  }

  async #fill(place: HTMLElement, ds: Dataset, variable: Variable, sample: number): Promise<void> {
    try {
      const value = await ds.coordinate(variable, sample);
      const text = String(value);
      const isLabel = variable.name === "label";
      const name = isLabel
        ? ds.classes.find((info) => String(info.value) === text)?.name
        : undefined;
      place.textContent = name === undefined || name === text ? text : `${text}: ${name}`;
    } catch (error) {
      place.textContent = "cannot be read";
      this.onFailure(error);
    }
  }

  async #showImage(ds: Dataset, sample: number, tones: Tones): Promise<void> {
    const { rows, columns } = ds.shape;
    const most = Math.min(PICTURE_PIXELS, innerWidth - 72, innerHeight - 200);
    const scale = sharpScale(Math.max(rows, columns), most - rows / 2, most);
    const canvas = this.#canvas;
    Object.assign(canvas, { width: columns, height: rows });
    canvas.classList.toggle("shrunk", scale < 1);
    canvas.style.width = `${columns * scale}px`;
    canvas.style.height = `${rows * scale}px`;
    canvas.ariaLabel = `The image of sample ${count(sample)}`;
    this.#pixels = undefined;
    byId("pixel").replaceChildren();
    try {
      const pixels = ds.pixels(await ds.block(sample), sample);
      if (this.#sample !== sample) return;
      this.#pixels = pixels;
      const image = new ImageData(columns, rows);
      paint(image, 0, 0, pixels, ds.shape, tones);
      canvas.getContext("2d")!.putImageData(image, 0, 0);
    } catch (error) {
      if (this.#sample === sample) byId("pixel").textContent = "This image cannot be read.";
      this.onFailure(error);
    }
  }

  #sayPixel(event: PointerEvent): void {
    if (!this.#pixels || !this.#ds) return;
    const { shape } = this.#ds;
    const box = this.#canvas.getBoundingClientRect();
    const column = Math.min(
      shape.columns - 1,
      Math.floor(((event.clientX - box.left) / box.width) * shape.columns),
    );
    const row = Math.min(
      shape.rows - 1,
      Math.floor(((event.clientY - box.top) / box.height) * shape.rows),
    );
    if (row < 0 || column < 0) return;
    const { factor, offset } = packing(this.#ds);
    const plane = shape.rows * shape.columns;
    const values = Array.from({ length: shape.channels }, (_, channel) => {
      const place = row * shape.columns + column;
      const at = shape.isChannelsFirst ? channel * plane + place : place * shape.channels + channel;
      const stored = Number(this.#pixels![at]);
      // As xarray computes it; 15 digits leave out what only the base of two adds.
      return factor === 1 && offset === 0
        ? stored
        : Number((stored * factor + offset).toPrecision(15));
    });
    byId("pixel").textContent = `row ${row}, column ${column}: ${values.join(", ")}`;
  }
}

/** The well-known coordinates first, in this order. */
function rank({ name }: Variable): number {
  const place = ["label", "split", "source_index"].indexOf(name);
  return place < 0 ? 3 : place;
}
