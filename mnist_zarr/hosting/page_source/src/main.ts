/** The page: opens the store, and keeps what is shown in step with the address. */
import { type View, formatAddress, parseAddress } from "./address";
import { registerCodecs } from "./codecs";
import { describe, showAbout } from "./about";
import { isSeveral, layOutTiles, nameOf, showControls, showHeading } from "./controls";
import { type ClassInfo, Dataset } from "./dataset";
import { byId, byteSize, count, make, plural } from "./dom";
import { Means } from "./means";
import { reasonOf } from "./metadata";
import { type Tones, shownRange } from "./pixels";
import { SampleDialog } from "./sample";
import type { Shown } from "./plan";
import { Sheet } from "./sheet";
import { pythonCode } from "./snippet";
import { FileStore, HttpStore, ReadError, type Store, Traffic } from "./stores";
import { ZipStore } from "./zip";
import { withRangeCoalescing, type AsyncReadable } from "zarrita";

const MAX_MESSAGES = 3;
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
/** What the pictures on the page are of. */
let drawn = "";

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
  drawn = "";
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
  describe(ds, place);
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

// What is shown

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

/** Show what the view says; pictures that are drawn already are left alone. */
function render(): void {
  if (!ds) return;
  const { isMeans } = view;
  showControls(ds, view, { go, choose });
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
  showHeading(ds, view, chosen, nShown);
  byId("snippet").textContent = pythonCode(place, ds, view, chosen, nShown);
  if (view.sample === null) dialog.close();
  else if (view.sample < ds.nSamples) {
    const { sample } = view;
    void dialog.show(ds, sample, tones(), (step) => sheet.neighbour(sample, step) !== undefined);
  } else
    say(`There is no sample ${count(view.sample)}; the last one is ${count(ds.nSamples - 1)}.`);
}

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

async function copy(button: HTMLElement, words: string, refused: () => string): Promise<void> {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(words);
    button.textContent = "Copied";
    byId("status").textContent = "Copied";
  } catch {
    button.textContent = refused(); // without https there is no clipboard
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
byId("copy").addEventListener("click", () =>
  copy(byId("copy"), byId("snippet").textContent ?? "", () => {
    getSelection()?.selectAllChildren(byId("snippet"));
    return "Press Ctrl+C";
  }),
);
byId("copy-link").addEventListener("click", () =>
  copy(byId("copy-link"), location.href, () => "It is the page’s address"),
);
byId("open-about").addEventListener("click", () => ds && showAbout(ds, place, web));
addEventListener("resize", () => ds && layOutTiles(ds.classes));
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
