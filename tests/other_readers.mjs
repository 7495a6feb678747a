// Reads a store with zarrita.js: `node other_readers.mjs FOLDER OUTPUT`, with zarrita installed
// beside this file or in the folder of NODE_PATH. Prints the shapes, and what cannot be read.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

const require = createRequire(join(process.env.ZARRITA_FOLDER, "package.json"));
const zarr = await import(pathToFileURL(require.resolve("zarrita")));
const [folder, output] = process.argv.slice(2);

const store = {
  async get(key) {
    try {
      return new Uint8Array(await readFile(join(folder, key)));
    } catch (error) {
      if (error.code === "ENOENT") return undefined;
      throw error;
    }
  },
};

const root = await zarr.open(zarr.root(store), { kind: "group" });
const found = {};
for (const name of ["image", "label", "source_index", "split"]) {
  try {
    const values = await zarr.get(await zarr.open(root.resolve(name), { kind: "array" }));
    found[name] = values.shape;
    if (name === "image") await writeFile(output, values.data);
    else found[name] = Array.from(values.data).map(String);
  } catch (error) {
    found[name] = `cannot: ${error.message}`;
  }
}
console.log(JSON.stringify(found));
