/** Python code that opens this very store and selection with plain xarray. */
import type { View } from "./address";
import type { ClassInfo, Dataset } from "./dataset";
import { count } from "./dom";

// JSON's strings are Python's, but for characters that show as nothing.
const quote = (text: string): string =>
  JSON.stringify(text).replace(
    /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

const literal = (value: number | string | null): string =>
  typeof value === "string" ? quote(value) : String(value);

/**
 * Return the code.
 *
 * `place` is what Python calls the store: a path, or an address.
 */
export function pythonCode(
  place: string,
  ds: Dataset,
  view: View,
  chosen: ClassInfo[],
  nChosen: number,
): string {
  const isWhole = chosen.length === ds.classes.length;
  const [dim] = ds.image.dims.length ? ds.image.dims : ["sample"];
  const lines = opening(place, ds.metadata.zarrFormat);
  if (view.sample !== null) {
    return [...lines, `image = ds.isel(${dim}=${view.sample}).${ds.image.name}`].join("\n");
  }
  const values = chosen.map(({ value }) => literal(value)).join(", ");
  if (nChosen === 1 && (!isWhole || view.split !== null)) {
    // Where one sample matches, `sel` drops the dimension.
    const label = isWhole ? [] : [`ds.label.isin([${values}])`];
    const split = view.split === null ? [] : [`(ds.split == ${quote(view.split)})`];
    const mask = [...label, ...split].join(" & ");
    return [...lines, `chosen = ds.isel(${dim}=(${mask}).values)  # 1 sample`].join("\n");
  }
  let expression = view.split === null ? "ds" : `ds.sel(split=${quote(view.split)})`;
  if (!isWhole && chosen.length === 1) expression += `.sel(label=${literal(chosen[0].value)})`;
  if (!isWhole && chosen.length > 1) {
    const source = expression === "ds" ? "ds" : "part";
    if (source === "part") lines.push(`part = ${expression}`);
    expression = `${source}.isel(${dim}=${source}.label.isin([${values}]).values)`;
  }
  if (expression !== "ds") lines.push(`chosen = ${expression}  # ${count(nChosen)} samples`);
  return lines.join("\n");
}

function opening(place: string, zarrFormat: 2 | 3): string[] {
  const isUrl = /^[a-z0-9+]+:\/\//i.test(place);
  const isZip = place.endsWith(".zip");
  if (place.startsWith("icechunk+") || (isZip && isUrl && !/^https?:/i.test(place))) {
    return ["import mnist_zarr", "", `ds = mnist_zarr.open_store(${quote(place)})`];
  }
  if (isZip && isUrl) {
    const protocol = place.slice(0, place.indexOf(":"));
    return [
      "import xarray as xr",
      "",
      "ds = xr.open_zarr(",
      `    ${quote(`zip::${place}`)},`,
      `    storage_options={"${protocol}": {"block_size": 16384}},`,
      ")",
    ];
  }
  if (isZip) {
    return [
      "import xarray as xr",
      "import zarr",
      "",
      `store = zarr.storage.ZipStore(${quote(place)}, mode="r")`,
      "ds = xr.open_zarr(store)",
    ];
  }
  return [
    "import xarray as xr",
    "",
    `ds = xr.open_zarr(${quote(place)}, zarr_format=${zarrFormat})`,
  ];
}
