/** The entries of a zip file, read in place: one request for its directory, one per entry. */
import { type Range, ReadError, type Store, bounds } from "./stores";

interface Entry {
  /** Where its header begins, and where whatever comes next does. */
  begin: number;
  end: number;
  size: number;
  isDeflated: boolean;
}

// A directory of some hundred entries, and the end of it, lie in the last bytes of the file.
const TAIL_BYTES = 1 << 16;
const END = 0x06054b50;
const END_64 = 0x06064b50;
const LOCATOR_64 = 0x07064b50;
const ENTRY = 0x02014b50;
const HEADER = 0x04034b50;
const HEADER_BYTES = 30;
const FULL_32 = 0xffffffff;

const view = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/**
 * Source: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3 and 4.5.
 */
export class ZipStore implements Store {
  #entries: Promise<Map<string, Entry>> | undefined;

  constructor(
    readonly file: Store,
    readonly key: string,
  ) {}

  async get(key: string): Promise<Uint8Array | undefined> {
    const entry = await this.#entry(key);
    if (!entry) return undefined;
    const whole = await this.#read(entry.begin, entry.end);
    const data = whole.subarray(dataOffset(whole));
    if (!entry.isDeflated) return exactly(data.slice(0, entry.size), entry.size);
    const stream = new Blob([data as BlobPart])
      .stream()
      .pipeThrough(new DecompressionStream("deflate-raw"));
    return exactly(new Uint8Array(await new Response(stream).arrayBuffer()), entry.size);
  }

  async getRange(key: string, range: Range): Promise<Uint8Array | undefined> {
    const entry = await this.#entry(key);
    if (!entry) return undefined;
    if (entry.isDeflated) {
      const whole = await this.get(key);
      return whole?.slice(...bounds(range, whole.length));
    }
    const header = await this.#read(entry.begin, entry.begin + HEADER_BYTES);
    const begin = entry.begin + dataOffset(header);
    const [first, last] = bounds(range, entry.size);
    return this.#read(begin + first, begin + last);
  }

  async #entry(key: string): Promise<Entry | undefined> {
    this.#entries ??= this.#readDirectory();
    return (await this.#entries).get(key.slice(1));
  }

  async #readDirectory(): Promise<Map<string, Entry>> {
    const tail = await this.file.getRange(this.key, { suffixLength: TAIL_BYTES });
    if (!tail) throw new ReadError("there is no such file");
    const data = view(tail);
    let at = tail.length - 22;
    while (at >= 0 && data.getUint32(at, true) !== END) at -= 1;
    if (at < 0) throw new ReadError("no zip file, or not a whole one");
    let count = data.getUint16(at + 10, true);
    let size = data.getUint32(at + 12, true);
    let begin = data.getUint32(at + 16, true);
    let directoryEnd = at;
    if (at >= 20 && data.getUint32(at - 20, true) === LOCATOR_64) {
      // Of fixed size, if nobody has extended it.
      directoryEnd = at - 20 - 56;
      if (directoryEnd < 0 || data.getUint32(directoryEnd, true) !== END_64) {
        throw new ReadError("a zip file with a directory that this page cannot read");
      }
      count = Number(data.getBigUint64(directoryEnd + 32, true));
      size = Number(data.getBigUint64(directoryEnd + 40, true));
      begin = Number(data.getBigUint64(directoryEnd + 48, true));
    }
    const directory =
      size <= directoryEnd
        ? tail.subarray(directoryEnd - size, directoryEnd)
        : await this.#read(begin, begin + size);
    return parseDirectory(directory, count, begin);
  }

  async #read(begin: number, end: number): Promise<Uint8Array> {
    const range = { offset: begin, length: end - begin };
    return exactly(await this.file.getRange(this.key, range), range.length);
  }
}

function exactly(bytes: Uint8Array | undefined, length: number): Uint8Array {
  if (bytes?.length === length) return bytes;
  throw new ReadError(
    `expected ${length} bytes, got ${bytes?.length ?? 0}; the zip file is damaged`,
  );
}

function dataOffset(header: Uint8Array): number {
  const data = view(header);
  if (header.length < HEADER_BYTES || data.getUint32(0, true) !== HEADER) {
    throw new ReadError("no header here; the zip file is damaged");
  }
  return HEADER_BYTES + data.getUint16(26, true) + data.getUint16(28, true);
}

function parseDirectory(bytes: Uint8Array, count: number, begin: number): Map<string, Entry> {
  const data = view(bytes);
  const entries = new Map<string, Entry>();
  let at = 0;
  for (let i = 0; i < count; i += 1) {
    if (at + 46 > bytes.length || data.getUint32(at, true) !== ENTRY) {
      throw new ReadError("a zip file with a damaged directory");
    }
    const nameEnd = at + 46 + data.getUint16(at + 28, true);
    const next = nameEnd + data.getUint16(at + 30, true);
    const method = data.getUint16(at + 10, true);
    if (method !== 0 && method !== 8) {
      throw new ReadError("a zip file with a compression other than deflate");
    }
    const [size, , offset] = sizesOf(data, at, nameEnd, next);
    const name = new TextDecoder().decode(bytes.subarray(at + 46, nameEnd));
    entries.set(name, { begin: offset, end: begin, size, isDeflated: method === 8 });
    at = next + data.getUint16(at + 32, true);
  }
  const inOrder = [...entries.values()].sort((a, b) => a.begin - b.begin);
  inOrder.slice(1).forEach((entry, i) => (inOrder[i].end = entry.begin));
  return entries;
}

/** Return size, packed size and offset, from the 64-bit field where those of 32 bits are full. */
function sizesOf(data: DataView, at: number, extra: number, end: number): number[] {
  const values = [24, 20, 42].map((field) => data.getUint32(at + field, true));
  for (let i = extra; i + 4 <= end; i += 4 + data.getUint16(i + 2, true)) {
    if (data.getUint16(i, true) !== 1) continue;
    let field = i + 4;
    return values.map((value) => {
      if (value !== FULL_32) return value;
      field += 8;
      return Number(data.getBigUint64(field - 8, true));
    });
  }
  return values;
}
