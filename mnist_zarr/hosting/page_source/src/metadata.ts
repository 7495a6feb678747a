/** The metadata of a store: its arrays, opened without a request where they are consolidated. */
import * as zarr from "zarrita";
import { ReadError, type Store, isDocument } from "./stores";

export type Attributes = Record<string, unknown>;
type Json = Record<string, unknown>;
export type ZarrArray = zarr.Array<zarr.DataType, zarr.Readable>;

/** An array with what xarray says of it. */
export interface Variable {
  name: string;
  array: ZarrArray;
  dims: string[];
  attrs: Attributes;
}

type Open = (
  location: zarr.Location<zarr.Readable>,
  options: { kind: "array" },
) => Promise<unknown>;

export interface Metadata {
  zarrFormat: 2 | 3;
  /** The document that a new version of the store replaces. */
  rootKey: string;
  attrs: Attributes;
  variables: Map<string, Variable>;
}

// Without consolidated metadata a web server does not tell which arrays there are.
const KNOWN_NAMES = ["image", "label", "split", "source_index"];

export async function readMetadata(store: Store): Promise<Metadata> {
  const root = await readJson(store, "/zarr.json");
  if (root) return openFormat3(store, root);
  const consolidated = await readJson(store, "/.zmetadata");
  if (consolidated) return openFormat2(store, consolidated.metadata as Json);
  if (await readJson(store, "/.zgroup")) {
    return openFormat2(store, { ".zattrs": (await readJson(store, "/.zattrs")) ?? {} });
  }
  throw new ReadError("there is no Zarr store here");
}

async function readJson(store: Store, key: string): Promise<Json | undefined> {
  const bytes = await store.get(key);
  if (!bytes) return undefined;
  const text = new TextDecoder().decode(bytes);
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch {
    // said below
  }
  const isPage = /^\s*</.test(text);
  throw new ReadError(`${key.slice(1)} is ${isPage ? "a web page" : "damaged"}, not metadata`);
}

const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);

async function openFormat3(store: Store, root: Json): Promise<Metadata> {
  if (root.node_type === "unfinished") throw new ReadError("the store is being written; come back later");
  if (root.node_type !== "group") throw new ReadError("a single array, not a group of arrays");
  const consolidated = isObject(root.consolidated_metadata) ? root.consolidated_metadata : {};
  const documents = new Map<string, Json>();
  for (const [path, node] of Object.entries((consolidated.metadata ?? {}) as Json)) {
    if (isObject(node)) documents.set(`/${path}/zarr.json`, node);
  }
  const names = [...documents]
    .filter(([, node]) => node.node_type === "array")
    .map(([key]) => key.split("/").slice(1, -1).join("/"));
  const attrs = isObject(root.attributes) ? root.attributes : {};
  const variables = await openAll(
    withDocuments(store, documents, attrs),
    names.length ? names : KNOWN_NAMES,
    zarr.open.v3,
  );
  return { zarrFormat: 3, rootKey: "/zarr.json", attrs, variables };
}

async function openFormat2(store: Store, metadata: Json): Promise<Metadata> {
  const documents = new Map<string, Json>();
  for (const [key, node] of Object.entries(metadata)) {
    if (isObject(node)) documents.set(`/${key}`, node);
  }
  const names = [...documents.keys()]
    .filter((key) => key.endsWith("/.zarray"))
    .map((key) => key.split("/").slice(1, -1).join("/"));
  for (const name of names) {
    const key = `/${name}/.zattrs`;
    documents.set(key, documents.get(key) ?? {});
  }
  const attrs = documents.get("/.zattrs") ?? {};
  const variables = await openAll(
    withDocuments(store, documents, attrs),
    names.length ? names : KNOWN_NAMES,
    zarr.open.v2,
  );
  return { zarrFormat: 2, rootKey: "/.zgroup", attrs, variables };
}

/**
 * Answer for documents that are here already; others are requested. Of chunks that the store
 * promises it is an error that they are missing; others hold the fill value.
 */
function withDocuments(store: Store, documents: Map<string, Json>, attrs: Attributes): Store {
  const isPromised = promisesOf(attrs);
  const present = (key: string, bytes: Uint8Array | undefined): Uint8Array | undefined => {
    if (!bytes && !isDocument(key) && isPromised(key)) {
      throw new ReadError("missing; the store is damaged, or still being written");
    }
    return bytes;
  };
  return {
    async get(key) {
      const document = documents.get(key);
      if (document) return new TextEncoder().encode(JSON.stringify(document));
      return present(key, await store.get(key));
    },
    getRange: async (key, range) => present(key, await store.getRange(key, range)),
  };
}

/**
 * Return which chunks must be there: those of arrays whose metadata the store records, as
 * mnist-zarr does, but for those that it lists as blank ("image 3 4": from the fourth to the fifth
 * along the first dimension). Other programs may leave out chunks of nothing but the fill value.
 */
function promisesOf(attrs: Attributes): (key: string) => boolean {
  const lines = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : []);
  const recorded = new Set(lines(attrs.metadata_sha256).map((line) => line.split("  ")[1]));
  const blank = lines(attrs.blank_objects).map((line) => /^(.+) (\d+) (\d+)$/.exec(line));
  return (key) => {
    const [array, ...rest] = key.slice(1).split("/");
    if (!recorded.has(`${array}/zarr.json`) && !recorded.has(`${array}/.zarray`)) return false;
    const index = Number(/\d+/.exec(rest.join("/"))?.[0] ?? 0);
    return !blank.some(
      (match) => match?.[1] === array && Number(match[2]) <= index && index <= Number(match[3]),
    );
  };
}

async function openAll(store: Store, names: string[], open: Open): Promise<Map<string, Variable>> {
  const opened = await Promise.all(names.map((name) => openVariable(store, name, open)));
  return new Map(opened.flatMap((variable) => (variable ? [[variable.name, variable]] : [])));
}

async function openVariable(store: Store, name: string, open: Open): Promise<Variable | undefined> {
  const coalesced = zarr.withRangeCoalescing(store as zarr.AsyncReadable);
  try {
    const location = new zarr.Location(coalesced as zarr.Readable, `/${name}`);
    const array = checked(name)((await open(location, { kind: "array" })) as ZarrArray);
    const { attrs } = array;
    const dims = (array.dimensionNames ?? attrs._ARRAY_DIMENSIONS ?? []) as unknown[];
    return { name, array: array as ZarrArray, dims: dims.map(String), attrs };
  } catch (error) {
    if (zarr.isZarritaError(error, "NotFoundError")) return undefined;
    // An array of a type that only other readers know is none of this page.
    if (zarr.isZarritaError(error)) return undefined;
    throw error;
  }
}

/** Let a chunk that cannot be decoded, or has not the size it should have, be an error. */
const checked = (name: string) =>
  zarr.defineArrayExtension((array) => ({
    async getChunk(index: number[], ...options: unknown[]) {
      const size = array.chunks.reduce((product, length) => product * length, 1);
      try {
        const chunk = await array.getChunk(index, ...(options as []));
        const { length } = chunk.data as ArrayLike<unknown>;
        if (length === size) return chunk;
        throw new ReadError(`damaged: expected ${size} values, got ${length}`);
      } catch (error) {
        throw new ReadError(`${name}, chunk ${index.join("/")}: ${reasonOf(error)}`);
      }
    },
  }));

/** Return what went wrong, in words for the reader of the page. */
export function reasonOf(error: unknown): string {
  if (error instanceof ReadError) return error.message;
  if (zarr.isZarritaError(error, "UnknownCodecError")) {
    return `compressed with ${error.codec}, which this page cannot decode; xarray can`;
  }
  if (zarr.isZarritaError(error, "CodecPipelineError")) {
    const { cause } = error as Error;
    const reason = cause instanceof Error ? cause.message : String(cause);
    return `damaged: ${reason.replace(/^std::runtime_error,/, "")}`;
  }
  return error instanceof Error ? error.message : String(error);
}
