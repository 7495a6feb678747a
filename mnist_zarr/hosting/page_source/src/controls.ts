/** Classes, splits and view: buttons that show what is chosen, and choose. */
import type { View } from "./address";
import type { ClassInfo, Dataset } from "./dataset";
import { byId, count, isShort, make, plural } from "./dom";

const SPLIT_COLORS = 6;
const MANY_CLASSES = 20;
const TILE_GAP_PIXELS = 6;
/** As in the style sheet. */
const NARROW_PIXELS = 640;

/** What buttons do. */
export interface Actions {
  go(change: Partial<View>): void;
  choose(info: ClassInfo, isAdded: boolean): void;
}

/** How the address names a class. */
export const nameOf = ({ value }: ClassInfo): string => String(value);

/** Whether a click adds a class to those that are shown. */
export const isSeveral = (): boolean => byId("several").ariaPressed === "true";

const colorOf = (split: number): string => `var(--split-${Math.min(split, SPLIT_COLORS - 1)})`;

export function showControls(ds: Dataset, view: View, actions: Actions): void {
  showTiles(ds, view, actions);
  showSplits(ds, view, actions);
  byId("view-samples").ariaPressed = String(!view.isMeans);
  byId("view-means").ariaPressed = String(view.isMeans);
  byId("invert").ariaPressed = String(view.isInverted);
  byId("invert").hidden = ds.shape.channels > 1;
  byId("several").hidden = ds.classes.length < 2;
}

/** Say above the sheet what is on it. */
export function showHeading(
  { classes }: Dataset,
  view: View,
  chosen: ClassInfo[],
  nShown: number,
): void {
  const isAll = chosen.length === classes.length;
  const names = chosen.map(({ name }) => name).join(", ");
  const what =
    isAll && classes.length > 1 ? "All classes" : isShort(names) ? `Class ${names}` : names;
  if (!nShown) {
    byId("heading").replaceChildren("No samples");
    return;
  }
  const detail = [plural(nShown, "sample")];
  if (view.split !== null) detail.push(view.split);
  const heading = byId("heading");
  const words = `${what} ${detail.join(", ")}`;
  if (heading.textContent === words) return;
  heading.replaceChildren(`${what} `, make("span", {}, detail.join(", ")));
}

function showSplits({ classes, splits, nSamples }: Dataset, view: View, actions: Actions): void {
  const sizes = splits.map((_, i) => classes.reduce((sum, { counts }) => sum + counts[i], 0));
  const buttons = [null, ...splits].map((split, i) => {
    const size = i ? sizes[i - 1] : nSamples;
    const button = make("button", { type: "button", ariaPressed: String(view.split === split) });
    button.ariaLabel = `${split ?? "All splits"}, ${plural(size, "sample")}`;
    if (i) {
      const dot = make("span", { className: "dot", ariaHidden: "true" });
      dot.style.background = colorOf(i - 1);
      button.append(dot);
    }
    button.append(split ?? "All", make("small", {}, count(size)));
    button.addEventListener("click", () => actions.go({ split }));
    return button;
  });
  const element = byId("splits");
  const focused = [...element.children].indexOf(document.activeElement as Element);
  element.hidden = !splits.length;
  element.replaceChildren(...buttons);
  buttons[focused]?.focus();
}

function showTiles({ classes, splits }: Dataset, view: View, actions: Actions): void {
  const element = byId("classes");
  element.hidden = classes.length < 1 || classes[0].value === null;
  element.classList.toggle("many", classes.length > MANY_CLASSES);
  layOutTiles(classes);
  const most = Math.max(1, ...classes.map(({ samples }) => samples.length));
  const tiles = classes.map((info) => {
    const tile = makeTile(info, splits, view, most);
    tile.addEventListener("click", (event) => {
      const isAdded = event.shiftKey || event.ctrlKey || event.metaKey || isSeveral();
      actions.choose(info, isAdded);
    });
    return tile;
  });
  const focused = [...element.children].indexOf(document.activeElement as Element);
  element.replaceChildren(...tiles);
  tiles[focused]?.focus();
}

/** Make the button of a class: its name, its size, and a bar in the colours of its splits. */
function makeTile(info: ClassInfo, splits: string[], view: View, most: number): HTMLElement {
  const bar = make("span", { className: "bar", ariaHidden: "true" });
  info.counts.forEach((size, i) => {
    const part = make("i");
    part.style.width = `${(100 * size) / most}%`;
    part.style.background = colorOf(i);
    part.classList.toggle("dim", view.split !== null && splits[i] !== view.split);
    bar.append(part);
  });
  const bySplit = info.counts.map((size, i) => `${splits[i] ?? "samples"} ${count(size)}`);
  const name = make("span", { className: "name", title: info.name }, info.name);
  name.classList.toggle("short", isShort(info.name));
  const isChosen = view.classes.includes(nameOf(info));
  const tile = make("button", { type: "button", className: "tile", ariaPressed: String(isChosen) });
  tile.ariaLabel = `Class ${info.name}, ${bySplit.join(", ")}`;
  tile.title = bySplit.join(", ");
  tile.dataset.class = nameOf(info);
  const code = view.split === null ? -1 : splits.indexOf(view.split);
  const size = code < 0 ? info.samples.length : info.counts[code];
  tile.append(name, make("span", { className: "count" }, count(size)), bar);
  return tile;
}

/** Give each row about as many tiles. */
export function layOutTiles(classes: ClassInfo[]): void {
  const element = byId("classes");
  const longest = Math.max(0, ...classes.map(({ name }) => (isShort(name) ? 5 : name.length)));
  const isNarrow = innerWidth <= NARROW_PIXELS;
  const least = isNarrow
    ? Math.min(110, Math.max(62, 7 * longest + 18))
    : Math.min(150, 8 * longest + 24);
  const most = Math.max(
    1,
    Math.floor((element.clientWidth + TILE_GAP_PIXELS) / (least + TILE_GAP_PIXELS)),
  );
  const columns = Math.ceil(classes.length / Math.ceil(classes.length / most));
  element.style.gridTemplateColumns = `repeat(${columns || 1}, minmax(0, 1fr))`;
}
