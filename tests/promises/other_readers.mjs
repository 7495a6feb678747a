// Reads a store with zarrita.js: node other_readers.mjs FOLDER OUTPUT
// Prints the values of the coordinates as JSON; the pixels go to OUTPUT.
import FileSystemStore from "@zarrita/storage/fs";
import { writeFile } from "node:fs/promises";
import * as zarr from "zarrita";

const [folder, output] = process.argv.slice(2);
const root = await zarr.open(zarr.root(new FileSystemStore(folder)), { kind: "group" });
const read = async (name) =>
  zarr.get(await zarr.open(root.resolve(name), { kind: "array" }));

await writeFile(output, (await read("image")).data);
const coordinates = {};
for (const name of ["label", "source_index", "split"]) {
  coordinates[name] = Array.from((await read(name)).data);
}
console.log(JSON.stringify(coordinates));
