/** The page: opens the store, and keeps what is shown in step with the address. */
import { type View, formatAddress, parseAddress } from "./address";
import { registerCodecs } from "./codecs";
import { type ClassInfo, Dataset } from "./dataset";
import { byId, byteSize, count, isShort, linked, make, plural } from "./dom";
import { Means } from "./means";
import { reasonOf } from "./metadata";
import { type Tones, shownRange } from "./pixels";
import { SampleDialog } from "./sample";
import { Sheet, type Shown } from "./sheet";
import { pythonCode } from "./snippet";
import { FileStore, HttpStore, ReadError, type Store, Traffic } from "./stores";
import { ZipStore } from "./zip";
import { withRangeCoalescing, type AsyncReadable } from "zarrita";

const SPLIT_COLORS = 6;
const MAX_MESSAGES = 3;
const MANY_CLASSES = 20;
const TILE_GAP_PIXELS = 6;
/** How often it is asked whether another store has taken the place of this one. */
const VERSION_SECONDS = 5;

const traffic = new Traffic();
const sheet = new Sheet(byId("sheet"));
const means = new Means(byId("means"));
const dialog = new SampleDialog();
const isDark = matchMedia("(prefers-color-scheme: dark)");

let view: View = parseAddress(location.hash);
let ds: Dataset | undefined;
let web: HttpStore | undefined;
/** What Python calls the store. */
let place = "";
let range: [number, number] = [0, 255];
let shown: Shown[] = [];

registerCodecs();

// Opening

function zipStore(file: Store, key: string): Store {
  return new ZipStore(withRangeCoalescing(file as AsyncReadable) as unknown as Store, key);
}

function openAddress(address: string | null): Store {
  const url = new URL(address ?? "./", document.baseURI.replace(/#.*/, ""));
  if (!/^(https?|file):$/.test(url.protocol)) {
    throw new ReadError(`${url.href} is no address that a page can read; expected https://…`);
  }
  url.hash = "";
  const own = document.querySelector<HTMLMetaElement>('meta[name="store"]')?.content;
  place = (address === null && own) || url.href.replace(/\/$/, "");
  if (url.pathname.endsWith(".zip")) {
    const name = url.pathname.slice(url.pathname.lastIndexOf("/") + 1);
    return zipStore(new HttpStore(new URL("./", url), traffic), `/${decodeURIComponent(name)}`);
  }
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  web = new HttpStore(url, traffic);
  return web;
}

async function load(open: () => Store): Promise<void> {
  ds = undefined;
  web = undefined;
  byId("messages").replaceChildren();
  delete byId("messages").dataset.more;
  document.body.classList.add("closed");
  byId("title").textContent = "Opening the store …";
  try {
    const store = open();
    ds = await Dataset.open(store);
    range = await shownRange(ds);
  } catch (error) {
    ds = undefined;
    byId("title").textContent = "The store cannot be opened";
    for (const id of ["facts", "credit", "classes", "snippet", "heading"])
      byId(id).replaceChildren();
    byId("toolbar").hidden = byId("sheet").hidden = byId("means").hidden = true;
    say(`${place}: ${reasonOf(error)}`);
    return;
  }
  document.body.classList.remove("closed");
  byId("toolbar").hidden = byId("sheet").hidden = false;
  for (const note of ds.notes) say(note, "note");
  void lookForNewVersion(true);
  describe(ds);
  render();
}

// Messages

const said = new Set<string>();

function say(text: string, kind = ""): void {
  if (said.has(text) && byId("messages").childElementCount) return;
  if (!byId("messages").childElementCount) said.clear();
  said.add(text);
  if (said.size <= MAX_MESSAGES) {
    byId("messages").append(make("p", { className: `message ${kind}` }, text));
  } else {
    byId("messages").dataset.more = `and ${plural(said.size - MAX_MESSAGES, "more message")}`;
  }
}

function sayFailure(error: unknown): void {
  say(reasonOf(error));
  void lookForNewVersion();
}

sheet.onFailure = means.onFailure = dialog.onFailure = sayFailure;

let lookedAt = performance.now();

/** Labels of one version and images of another would be wrong without a sign. */
async function lookForNewVersion(isFirst = false): Promise<void> {
  if (!ds || !web || (!isFirst && performance.now() - lookedAt < VERSION_SECONDS * 1000)) return;
  lookedAt = performance.now();
  if (await web.isReplaced(ds.metadata.rootKey)) {
    say("Another store has taken the place of this one. Reload the page.");
  }
}

// What the store says of itself

function describe({ attrs, shape, image, nSamples, classes, rawBytes, metadata }: Dataset): void {
  const title = text(attrs.title) || place.replace(/^.*\//, "") || "Zarr store";
  document.title = title;
  byId("title").textContent = title;
  const facts = [
    plural(nSamples, "image"),
    `${shape.rows} × ${shape.columns}${shape.channels > 1 ? ` × ${shape.channels}` : ""}`,
    String(image.array.dtype),
    ...(classes[0]?.value == null ? [] : [plural(classes.length, "class", "classes")]),
    `${byteSize(rawBytes)} of pixels`,
    `Zarr ${metadata.zarrFormat}`,
  ];
  byId("facts").textContent = facts.join(" · ");
  const license = text(attrs.license);
  const citation = text(attrs.references) || text(attrs.creator_name);
  // What was made from a data set has no title of its own.
  const source = text(attrs.title) ? "" : text(attrs.source);
  const credit = [license && `Licence: ${license}`, source, citation].filter(Boolean).join("\n");
  byId("credit").replaceChildren(
    ...credit.split("\n").flatMap((line, i) => [...(i ? [make("br")] : []), ...linked(line)]),
  );
}

function text(value: unknown): string {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function showAbout(): void {
  if (!ds) return;
  const rows: [string, unknown][] = Object.entries(ds.attrs).map(([name, value]) => [
    name,
    Array.isArray(value) ? value.map(text).join("\n") : value,
  ]);
  const arrays = [...ds.metadata.variables.values()].map(({ name, array, dims }) => {
    const sizes = array.shape.map((size, i) => `${dims[i] ?? "?"} ${count(size)}`).join(", ");
    return `${name} (${sizes}), ${array.dtype}, in chunks of ${array.chunks.join(" × ")}`;
  });
  rows.unshift(["store", place]);
  rows.push(["arrays", arrays.join("\n")]);
  const size = make("dd", {}, "…");
  byId("attributes").replaceChildren(
    ...rows.flatMap(([name, value]) => [
      make("dt", {}, name.replaceAll("_", " ")),
      make("dd", {}, ...linked(text(value))),
    ]),
    make("dt", {}, "size"),
    size,
  );
  byId<HTMLDialogElement>("about").showModal();
  void sizeOf(ds).then((words) => size.replaceChildren(words));
}

/** Return the size of the store; a web server does not list, but the dataset card names objects. */
async function sizeOf({ rawBytes }: Dataset): Promise<string> {
  const raw = `${byteSize(rawBytes)} of pixels`;
  const bytes = await web?.get("/croissant.json").catch(() => undefined);
  if (!bytes) return raw;
  try {
    const card = JSON.parse(new TextDecoder().decode(bytes));
    const sizes: number[] = card.distribution.map((object: { contentSize: string }) =>
      Number.parseInt(object.contentSize, 10),
    );
    const total = sizes.reduce((sum, size) => sum + size, 0);
    return `${raw}; ${plural(sizes.length, "object")}, ${byteSize(total)}`;
  } catch {
    return raw;
  }
}

// What is shown

const nameOf = ({ value }: ClassInfo): string => String(value);

function chosenClasses({ classes }: Dataset): ClassInfo[] {
  const chosen = classes.filter((info) => view.classes.includes(nameOf(info)));
  return chosen.length ? chosen : classes;
}

function inSplit(samples: Uint32Array, { splits, splitOf }: Dataset): Uint32Array {
  const code = view.split === null ? -1 : splits.indexOf(view.split);
  return code < 0 ? samples : samples.filter((sample) => splitOf[sample] === code);
}

const tones = (): Tones => ({
  low: range[0],
  high: range[1],
  isHighBright: isDark.matches !== view.isInverted,
});

/** Show what the view says; what has not changed is left alone. */
let drawn = "";

function render(): void {
  if (!ds) return;
  const { isMeans } = view;
  showControls(ds);
  const chosen = chosenClasses(ds);
  const key = JSON.stringify([
    view.classes,
    view.split,
    isMeans,
    view.isInverted,
    isDark.matches,
    place,
  ]);
  if (key !== drawn) {
    drawn = key;
    const current = ds;
    shown = chosen.map((info) => ({ info, samples: inSplit(info.samples, current) }));
    byId("sheet").hidden = isMeans;
    byId("means").hidden = !isMeans;
    sheet.show(ds, shown, tones());
    if (isMeans) void means.show(ds, shown, tones());
    else means.stop();
  }
  const nShown = shown.reduce((sum, { samples }) => sum + samples.length, 0);
  showHeading(ds, chosen, nShown);
  byId("snippet").textContent = pythonCode(place, ds, view, chosen, nShown);
  if (view.sample === null) dialog.close();
  else if (view.sample < ds.nSamples) {
    const { sample } = view;
    void dialog.show(ds, sample, tones(), (step) => sheet.neighbour(sample, step) !== undefined);
  } else
    say(`There is no sample ${count(view.sample)}; the last one is ${count(ds.nSamples - 1)}.`);
}

function showHeading({ classes }: Dataset, chosen: ClassInfo[], nShown: number): void {
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

function showControls(current: Dataset): void {
  const { classes, splits } = current;
  showTiles(current);
  const choices: [string | null, number][] = [
    [null, current.nSamples],
    ...splits.map((name, i): [string, number] => [
      name,
      classes.reduce((sum, { counts }) => sum + counts[i], 0),
    ]),
  ];
  byId("splits").hidden = !splits.length;
  byId("splits").replaceChildren(
    ...choices.map(([name, size], i) => {
      const button = make("button", { type: "button", ariaPressed: String(view.split === name) });
      button.ariaLabel = `${name ?? "All splits"}, ${plural(size, "sample")}`;
      if (i) {
        const dot = make("span", { className: "dot", ariaHidden: "true" });
        dot.style.background = colorOf(i - 1);
        button.append(dot);
      }
      button.append(name ?? "All", make("small", {}, count(size)));
      button.addEventListener("click", () => go({ split: name }));
      return button;
    }),
  );
  byId("view-samples").ariaPressed = String(!view.isMeans);
  byId("view-means").ariaPressed = String(view.isMeans);
  byId("invert").ariaPressed = String(view.isInverted);
  byId("invert").hidden = current.shape.channels > 1;
  byId("several").hidden = classes.length < 2;
}

const colorOf = (split: number): string => `var(--split-${Math.min(split, SPLIT_COLORS - 1)})`;

function showTiles({ classes, splits }: Dataset): void {
  const element = byId("classes");
  element.hidden = classes.length < 1 || classes[0].value === null;
  element.classList.toggle("many", classes.length > MANY_CLASSES);
  layOutTiles();
  const most = Math.max(1, ...classes.map(({ samples }) => samples.length));
  const focused = document.activeElement?.getAttribute("data-class");
  const tiles = classes.map((info) => {
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
    const shownCount =
      view.split === null ? info.samples.length : (info.counts[splits.indexOf(view.split)] ?? 0);
    const tile = make(
      "button",
      {
        type: "button",
        className: "tile",
        ariaPressed: String(view.classes.includes(nameOf(info))),
        ariaLabel: `Class ${info.name}, ${bySplit.join(", ")}`,
        title: bySplit.join(", "),
      },
      name,
      make("span", { className: "count" }, count(shownCount)),
      bar,
    );
    tile.dataset.class = nameOf(info);
    tile.addEventListener("click", (event) => {
      choose(info, event.shiftKey || event.ctrlKey || event.metaKey || isSeveral());
    });
    return tile;
  });
  element.replaceChildren(...tiles);
  if (focused) tiles.find((tile) => tile.dataset.class === focused)?.focus();
}

/** Give each row about as many tiles. */
function layOutTiles(): void {
  const { classes } = ds ?? { classes: [] };
  const element = byId("classes");
  const longest = Math.max(0, ...classes.map(({ name }) => (isShort(name) ? 5 : name.length)));
  const isNarrow = innerWidth <= 640;
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

addEventListener("resize", layOutTiles);

const isSeveral = (): boolean => byId("several").ariaPressed === "true";

function choose(info: ClassInfo, isAdded: boolean): void {
  const name = nameOf(info);
  const isOn = view.classes.includes(name);
  let classes = isOn && view.classes.length === 1 ? [] : [name];
  if (isAdded) {
    classes = isOn ? view.classes.filter((other) => other !== name) : [...view.classes, name];
  }
  go({ classes });
}

/** Change the view and the address; steps from sample to sample leave one entry in the history. */
function go(change: Partial<View>): void {
  const isStep = view.sample !== null && change.sample != null;
  view = { ...view, ...change };
  history[isStep ? "replaceState" : "pushState"](null, "", formatAddress(view));
  render();
  void lookForNewVersion();
}

// Events

async function copy(button: HTMLElement, words: string): Promise<void> {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(words);
    button.textContent = "Copied";
    byId("status").textContent = "Copied";
  } catch {
    // Without https there is no clipboard: leave the text selected.
    getSelection()?.selectAllChildren(byId("snippet"));
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => (button.textContent = label), 1600);
}

function nextSplit(): void {
  if (!ds?.splits.length) return;
  const choices = [null, ...ds.splits];
  go({ split: choices[(choices.indexOf(view.split) + 1) % choices.length] });
}

function chooseDigit(digit: string): void {
  const info = ds?.classes.find((other) => nameOf(other) === digit);
  if (info && isSeveral()) choose(info, true);
  else if (info) go({ classes: [digit] });
}

const KEYS: Record<string, () => void> = {
  "?": () => byId<HTMLDialogElement>("help").showModal(),
  a: () => go({ classes: [] }),
  s: nextSplit,
  m: () => go({ isMeans: !view.isMeans }),
  i: () => go({ isInverted: !view.isInverted }),
  c: () => byId("copy").click(),
};

addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLInputElement;
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return;
  if (/^\d$/.test(event.key)) chooseDigit(event.key);
  else if (event.key.startsWith("Arrow") && event.target === document.body) {
    byId("sheet").focus({ preventScroll: true });
    byId("sheet").dispatchEvent(new KeyboardEvent("keydown", event));
    event.preventDefault();
  } else KEYS[event.key]?.();
});

sheet.onOpen = (sample) => go({ sample });
dialog.onClose = () => {
  if (view.sample !== null) go({ sample: null });
};
dialog.onStep = (step) => {
  const next = view.sample === null ? undefined : sheet.neighbour(view.sample, step);
  if (next !== undefined) go({ sample: next });
};

byId("view-samples").addEventListener("click", () => go({ isMeans: false }));
byId("view-means").addEventListener("click", () => go({ isMeans: true }));
byId("invert").addEventListener("click", () => go({ isInverted: !view.isInverted }));
byId("several").addEventListener("click", () => {
  byId("several").ariaPressed = String(!isSeveral());
});
byId("copy").addEventListener("click", () => copy(byId("copy"), byId("snippet").textContent ?? ""));
byId("copy-link").addEventListener("click", () => copy(byId("copy-link"), location.href));
byId("open-about").addEventListener("click", showAbout);
byId("open-help").addEventListener("click", KEYS["?"]);
byId("open-store").addEventListener("click", () => byId<HTMLDialogElement>("open").showModal());
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("sheet").focus();
});
isDark.addEventListener("change", render);

const NOTHING = { classes: [], split: null, sample: null, isMeans: false };

byId("open-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const store = byId<HTMLInputElement>("open-url").value.trim();
  if (!store) return;
  byId<HTMLDialogElement>("open").close();
  view = { ...view, ...NOTHING, store };
  history.pushState(null, "", formatAddress(view));
  void load(() => openAddress(store));
});

function openFile(file: File): void {
  byId<HTMLDialogElement>("open").close();
  view = { ...view, ...NOTHING };
  place = file.name;
  void load(() => zipStore(new FileStore(file, traffic), "/"));
}

byId("open-file").addEventListener("change", () => {
  const [file] = byId<HTMLInputElement>("open-file").files ?? [];
  if (file) openFile(file);
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer?.files ?? [];
  if (file) openFile(file);
});

addEventListener("popstate", () => {
  const { store } = view;
  view = parseAddress(location.hash);
  if (view.store === store) render();
  else void load(() => openAddress(view.store));
});

let isCounting = false;
traffic.onChange = () => {
  if (isCounting) return;
  isCounting = true;
  requestAnimationFrame(() => {
    isCounting = false;
    byId("traffic").textContent =
      `${plural(traffic.requests, "request")} · ${byteSize(traffic.bytes)}`;
  });
};

void load(() => openAddress(view.store));
