/** What is shown stands in the address, so that a link shows the same. */

export interface View {
  /** The store, if it is not the folder of the page. */
  store: string | null;
  /** Names of label values; none means all. */
  classes: string[];
  split: string | null;
  sample: number | null;
  isMeans: boolean;
  isInverted: boolean;
}

export function parseAddress(hash: string): View {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const sample = fields.get("sample");
  return {
    store: fields.get("store"),
    classes: fields.getAll("class"),
    split: fields.get("split"),
    sample: sample !== null && /^\d+$/.test(sample) ? Number(sample) : null,
    isMeans: fields.get("view") === "means",
    isInverted: fields.has("invert"),
  };
}

export function formatAddress(view: View): string {
  const fields = new URLSearchParams();
  if (view.store !== null) fields.set("store", view.store);
  for (const name of view.classes) fields.append("class", name);
  if (view.split !== null) fields.set("split", view.split);
  if (view.isMeans) fields.set("view", "means");
  if (view.isInverted) fields.set("invert", "1");
  if (view.sample !== null) fields.set("sample", String(view.sample));
  return `#${fields.toString()}`;
}
