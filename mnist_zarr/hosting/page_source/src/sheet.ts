/** The contact sheet: rows of samples, with a cursor for keys and the pointer. */
import { Bands } from "./bands";
import type { Dataset } from "./dataset";
import { count, make } from "./dom";
import type { Tones } from "./pixels";
import { type Cell, Plan, type Shown, placeOf } from "./plan";

export class Sheet {
  onOpen: (sample: number) => void = () => {};

  readonly #bands: Bands;
  readonly #cursor = make("div", { id: "cursor", role: "gridcell" });
  readonly #cursorRow = make("div", { role: "row" }, this.#cursor);
  #wanted: [ds: Dataset, shown: Shown[], tones: Tones] | undefined;
  #plan: Plan | undefined;
  #cell: Cell = { row: 0, column: 0 };

  constructor(readonly element: HTMLElement) {
    this.#bands = new Bands(element);
    addEventListener("scroll", () => this.#plan && this.#bands.update(this.#plan), {
      passive: true,
    });
    new ResizeObserver(() => {
      if (this.#plan?.width !== element.clientWidth) this.#layOut();
    }).observe(element);
    element.addEventListener("keydown", (event) => this.#onKey(event));
    element.addEventListener("pointermove", (event) => this.#onPointer(event));
    element.addEventListener("pointerleave", () => element.classList.remove("pointed"));
    element.addEventListener("click", (event) => {
      const cell = this.#cellAt(event);
      if (cell) this.onOpen(this.#plan!.sampleAt(cell)!);
    });
  }

  set onFailure(report: (error: unknown) => void) {
    this.#bands.onFailure = report;
  }

  show(ds: Dataset, shown: Shown[], tones: Tones): void {
    this.#wanted = [ds, shown.filter(({ samples }) => samples.length), tones];
    this.#cell = { row: 0, column: 0 };
    this.#layOut();
  }

  /** Return the sample that lies this many steps after one, among those of its class. */
  neighbour(sample: number, step: number): number | undefined {
    for (const { samples } of this.#wanted?.[1] ?? []) {
      const place = placeOf(samples, sample);
      if (samples[place] === sample) return samples[place + step];
    }
    return undefined;
  }

  #layOut(): void {
    this.#bands.clear();
    this.#plan = undefined;
    const width = this.element.clientWidth;
    if (!this.#wanted || !width) return; // shown later
    this.#plan = new Plan(...this.#wanted, width);
    const { rows, columns, rowPixels } = this.#plan;
    this.element.style.height = `${rows.length * rowPixels}px`;
    this.element.setAttribute("aria-rowcount", String(rows.length));
    this.element.setAttribute("aria-colcount", String(columns));
    this.element.append(this.#cursorRow);
    this.#moveTo(this.#cell);
    this.#bands.update(this.#plan);
  }

  #cellAt({ clientX, clientY }: MouseEvent): Cell | undefined {
    const box = this.element.getBoundingClientRect();
    return this.#plan?.cellAt(clientX - box.left, clientY - box.top);
  }

  #onPointer(event: PointerEvent): void {
    const cell = this.#cellAt(event);
    this.element.classList.toggle("pointed", cell !== undefined && event.pointerType === "mouse");
    if (cell) this.#moveTo(cell);
  }

  #onKey(event: KeyboardEvent): void {
    const plan = this.#plan;
    if (event.ctrlKey || event.metaKey || event.altKey || !plan) return;
    const { row, column } = this.#cell;
    const page = Math.max(1, Math.floor(innerHeight / plan.rowPixels) - 2);
    const targets: Record<string, Cell> = {
      ArrowLeft: { row, column: column - 1 },
      ArrowRight: { row, column: column + 1 },
      ArrowUp: { row: row - 1, column },
      ArrowDown: { row: row + 1, column },
      PageUp: { row: Math.max(0, row - page), column },
      PageDown: { row: Math.min(plan.rows.length - 1, row + page), column },
      Home: { row: 0, column: 0 },
      End: { row: plan.rows.length - 1, column: 0 },
    };
    const target = targets[event.key];
    const sample = plan.sampleAt(this.#cell);
    if (target) {
      this.#moveTo(target);
      this.#cursor.scrollIntoView({ block: "nearest" });
    } else if ((event.key === "Enter" || event.key === " ") && sample !== undefined) {
      this.onOpen(sample);
    } else return;
    event.preventDefault();
  }

  #moveTo(cell: Cell): void {
    const sample = this.#plan?.sampleAt(cell);
    if (sample === undefined || !this.#plan) return;
    this.#cell = cell;
    for (const [name, pixels] of Object.entries(this.#plan.boxOf(cell))) {
      this.#cursor.style.setProperty(name, `${pixels}px`);
    }
    const { ds, shown, rows } = this.#plan;
    const { info } = shown[rows[cell.row][0]];
    const words = [`sample ${count(sample)}`];
    if (info.value !== null) words.push(`class ${info.name}`);
    if (ds.splits.length) words.push(ds.splits[ds.splitOf[sample]]);
    this.#cursor.ariaLabel = words.join(", ");
    this.#cursor.ariaRowIndex = String(cell.row + 1);
    this.#cursor.ariaColIndex = String(cell.column + 1);
  }
}
