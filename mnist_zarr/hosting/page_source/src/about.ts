/** What a store says of itself. */
import type { Dataset } from "./dataset";
import { byId, byteSize, count, linked, make, plural } from "./dom";
import type { HttpStore } from "./stores";

/** Show title, figures, licence and citation above everything else. */
export function describe(
  { attrs, shape, image, nSamples, classes, rawBytes, metadata }: Dataset,
  place: string,
): void {
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

/** Show all attributes and arrays. */
export function showAbout(ds: Dataset, place: string, web: HttpStore | undefined): void {
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
  void sizeOf(ds, web).then((words) => size.replaceChildren(words));
}

/** Return the size of the store; a web server does not list, but the dataset card names objects. */
async function sizeOf({ rawBytes }: Dataset, web: HttpStore | undefined): Promise<string> {
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
