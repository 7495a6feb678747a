/** A store as labelled images: what is in it, and its samples, read a chunk at a time. */
import * as zarr from "zarrita";
import {
  type Attributes,
  type Metadata,
  type Variable,
  type ZarrArray,
  readMetadata,
} from "./metadata";
import { ReadError, type Store } from "./stores";

// Labels with more values than this are numbers, not classes.
const MAX_CLASSES = 256;
const CACHE_BYTES = 96 << 20;

export interface ClassInfo {
  /** The label, or null for the only class of a store without labels. */
  value: number | string | null;
  name: string;
  /** Whether it stands for samples without a label: CF 1.11, section 2.5.1, `valid_min`. */
  isUnlabelled: boolean;
  /** The samples of the class, ascending. */
  samples: Uint32Array;
  /** How many of them each split has. */
  counts: number[];
}

export type Numbers = zarr.TypedArray<zarr.NumberDataType>;

/** The samples of one chunk of images, one after another. */
export interface Block {
  first: number;
  pixels: Numbers;
}

export interface ImageShape {
  rows: number;
  columns: number;
  /** 1, 3 or 4. */
  channels: number;
  /** Where the channels stand in the array: before the rows, or after the columns. */
  isChannelsFirst: boolean;
}

export class Dataset {
  readonly #blocks = new Map<number, Promise<Block>>();

  private constructor(
    readonly metadata: Metadata,
    readonly image: Variable,
    readonly shape: ImageShape,
    /** Along the samples, other than images. */
    readonly coords: Variable[],
    readonly classes: ClassInfo[],
    readonly splits: string[],
    readonly splitOf: Uint16Array,
    readonly notes: string[],
  ) {}

  static async open(store: Store): Promise<Dataset> {
    const metadata = await readMetadata(store);
    const image = findImage(metadata.variables);
    const shape = imageShape(image);
    const nSamples = image.array.shape[0];
    const coords = [...metadata.variables.values()].filter(
      ({ array, dims }) =>
        array.shape.length === 1 && array.shape[0] === nSamples && dims[0] === image.dims[0],
    );
    const find = (name: string) => coords.find((variable) => variable.name === name);
    const [labels, splitNames] = await Promise.all(
      [find("label"), find("split")].map((variable) => variable && readAll(variable.array)),
    );
    const [splits, splitOf] = encode(splitNames, nSamples);
    const notes: string[] = [];
    const classes = makeClasses(nSamples, labels, find("label")?.attrs, splits, splitOf, notes);
    return new Dataset(metadata, image, shape, coords, classes, splits, splitOf, notes);
  }

  get attrs(): Attributes {
    return this.metadata.attrs;
  }

  get nSamples(): number {
    return this.image.array.shape[0];
  }

  /** Samples per chunk. */
  get blockLength(): number {
    return Math.max(1, this.image.array.chunks[0]);
  }

  get rawBytes(): number {
    const bits = /(\d+)$/.exec(this.image.array.dtype)?.[1];
    return (this.image.array.shape.reduce((a, b) => a * b, 1) * Number(bits ?? 8)) / 8;
  }

  /** The numbers of one image. */
  get sampleSize(): number {
    return this.shape.rows * this.shape.columns * this.shape.channels;
  }

  /** Return the block that holds a sample; it stays in memory for a while. */
  block(sample: number): Promise<Block> {
    const number = Math.floor(sample / this.blockLength);
    let block = this.#blocks.get(number);
    this.#blocks.delete(number);
    if (!block) {
      block = this.#read(number);
      // What failed is asked for again the next time.
      block.catch(() => this.#blocks.delete(number));
    }
    this.#blocks.set(number, block);
    const most = Math.max(4, CACHE_BYTES / ((this.blockLength * this.rawBytes) / this.nSamples));
    if (this.#blocks.size > most) this.#blocks.delete(this.#blocks.keys().next().value!);
    return block;
  }

  /** Return the pixels of one sample of a block. */
  pixels(block: Block, sample: number): Numbers {
    const begin = (sample - block.first) * this.sampleSize;
    return block.pixels.subarray(begin, begin + this.sampleSize);
  }

  async #read(number: number): Promise<Block> {
    const first = number * this.blockLength;
    const { array } = this.image;
    const window = array.shape.map((_, axis) =>
      axis === 0 ? zarr.slice(first, Math.min(array.shape[0], first + this.blockLength)) : null,
    );
    const read = (await zarr.get(array, window)) as zarr.Chunk<zarr.NumberDataType>;
    return { first, pixels: asNumbers(inOrder(read)) };
  }

  /** Return the coordinate of one sample, from the one chunk that has it. */
  async coordinate(variable: Variable, sample: number): Promise<unknown> {
    const { array } = variable;
    const chunk = await array.getChunk([Math.floor(sample / array.chunks[0])]);
    return at(chunk.data, sample % array.chunks[0]);
  }
}

function findImage(variables: Map<string, Variable>): Variable {
  const image =
    variables.get("image") ??
    [...variables.values()].find(({ array }) => array.shape.length >= 3 && isNumeric(array));
  if (!image) throw new ReadError("the store has no images that this page can show");
  if (!isNumeric(image.array)) throw new ReadError(`“${image.name}” does not hold numbers`);
  return image;
}

const isNumeric = (array: ZarrArray): boolean =>
  array.is("number") || array.is("bigint") || array.is("boolean");

/** Take the last two dimensions for rows and columns, but three or four values for a colour. */
function imageShape({ array, name }: Variable): ImageShape {
  const [, ...inner] = array.shape;
  const isColor = (length: number) => length === 3 || length === 4;
  if (inner.length === 3 && isColor(inner[2])) {
    return { rows: inner[0], columns: inner[1], channels: inner[2], isChannelsFirst: false };
  }
  if (inner.length === 3 && isColor(inner[0])) {
    return { rows: inner[1], columns: inner[2], channels: inner[0], isChannelsFirst: true };
  }
  if (inner.length === 3 && (inner[0] === 1 || inner[2] === 1)) {
    const [rows, columns] = inner[2] === 1 ? inner : inner.slice(1);
    return { rows, columns, channels: 1, isChannelsFirst: false };
  }
  if (inner.length < 1 || inner.length > 2) {
    throw new ReadError(
      `“${name}” has ${array.shape.length} dimensions (${array.shape.join(" × ")}), which are no ` +
        "images",
    );
  }
  const [rows, columns] = inner.length === 2 ? inner : [1, inner[0]];
  return { rows, columns, channels: 1, isChannelsFirst: false };
}

/** Return all values of a one-dimensional array. */
async function readAll(array: ZarrArray): Promise<ArrayLike<unknown>> {
  const [length] = array.shape;
  const [step] = array.chunks;
  const n = Math.ceil(length / step);
  const chunks = await Promise.all(Array.from({ length: n }, (_, i) => array.getChunk([i])));
  if (n === 1) return slice(chunks[0].data, length);
  return chunks.flatMap(({ data }, i) =>
    Array.from(slice(data, Math.min(step, length - i * step))),
  );
}

function slice(data: unknown, length: number): ArrayLike<unknown> {
  const values =
    Array.isArray(data) || ArrayBuffer.isView(data) ? data : [...(data as Iterable<unknown>)];
  return (values as Uint8Array).slice(0, length);
}

function at(data: unknown, index: number): unknown {
  return slice(data, index + 1)[index];
}

/** Return the different values in order of appearance, and for each sample which one it has. */
function encode(values: ArrayLike<unknown> | undefined, length: number): [string[], Uint16Array] {
  const codes = new Uint16Array(length);
  if (!values) return [[], codes];
  const known = new Map<unknown, number>();
  for (let i = 0; i < length; i += 1) {
    let code = known.get(values[i]);
    if (code === undefined) known.set(values[i], (code = known.size));
    codes[i] = code;
    if (known.size > MAX_CLASSES) return [[], new Uint16Array(length)];
  }
  return [[...known.keys()].map(String), codes];
}

function makeClasses(
  length: number,
  labels: ArrayLike<unknown> | undefined,
  attrs: Attributes | undefined,
  splits: string[],
  splitOf: Uint16Array,
  notes: string[],
): ClassInfo[] {
  const members = new Map<unknown, number[]>();
  for (let i = 0; labels && i < length; i += 1) {
    const found = members.get(labels[i]);
    if (found) found.push(i);
    else members.set(labels[i], [i]);
    if (members.size > MAX_CLASSES) {
      notes.push(`“label” has more than ${MAX_CLASSES} values, which are no classes.`);
      labels = undefined;
    }
  }
  const count = (samples: Uint32Array) => {
    const counts = new Array<number>(Math.max(1, splits.length)).fill(0);
    for (const sample of samples) counts[splitOf[sample]] += 1;
    return counts;
  };
  if (!labels) {
    const samples = Uint32Array.from({ length }, (_, i) => i);
    const counts = count(samples);
    return [{ value: null, name: "All images", isUnlabelled: false, samples, counts }];
  }
  const least = Number(attrs?.valid_min ?? -Infinity);
  const names = classNames(attrs ?? {}, notes);
  return [...members]
    .map(([label, list]) => {
      const value = typeof label === "string" ? label : Number(label);
      const samples = Uint32Array.from(list);
      const name = names.get(value) ?? String(value);
      const isUnlabelled = typeof value === "number" && value < least;
      return { value, name, isUnlabelled, samples, counts: count(samples) };
    })
    .sort((a, b) => (a.value < b.value ? -1 : 1));
}

/** Return the CF flags of a label: CF 1.11, section 3.5. */
function classNames(attrs: Attributes, notes: string[]): Map<unknown, string> {
  const { flag_values: given, flag_meanings: meanings } = attrs;
  if (given === undefined || meanings === undefined) return new Map();
  const values: unknown[] = Array.isArray(given) ? given : [given];
  const words = String(meanings).split(/\s+/).filter(Boolean);
  if (values.length !== words.length) {
    notes.push(`flag_values has ${values.length} entries, but flag_meanings has ${words.length}.`);
    return new Map();
  }
  return new Map(values.map((value, i) => [value, words[i].replaceAll("_", " ")]));
}

/** Return the values of a chunk with its last dimension running fastest. */
function inOrder({ data, shape, stride }: zarr.Chunk<zarr.NumberDataType>): Numbers {
  const plain = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  if (stride.every((step, axis) => step === plain[axis] || shape[axis] === 1)) return data;
  const ordered = new (data.constructor as Uint8ArrayConstructor)(data.length);
  for (let i = 0; i < data.length; i += 1) {
    let from = 0;
    for (let axis = 0, rest = i; axis < shape.length; axis += 1) {
      from += Math.floor(rest / plain[axis]) * stride[axis];
      rest %= plain[axis];
    }
    ordered[i] = data[from];
  }
  return ordered;
}

function asNumbers(data: unknown): Numbers {
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    return Float64Array.from(data as Iterable<bigint>, Number);
  }
  if (ArrayBuffer.isView(data)) return data as Numbers;
  return Uint8Array.from(data as Iterable<boolean>, Number);
}
