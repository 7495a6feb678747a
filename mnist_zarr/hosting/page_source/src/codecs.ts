/** Decoders that notice damage, in place of those of zarrita that do not. */
import Zstd from "numcodecs/zstd";
import { registry } from "zarrita";

// The table of the Castagnoli polynomial, reflected: RFC 3720, appendix B.4.
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = (value >>> 1) ^ (value & 1 ? 0x82f63b78 : 0);
  return value >>> 0;
});

/** Return the CRC-32C of bytes. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 255];
  return (crc ^ 0xffffffff) >>> 0;
}

/** zarrita's own drops the checksum without a look, and a damaged index of a shard is followed. */
class Crc32c {
  readonly kind = "bytes_to_bytes";

  static fromConfig(): Crc32c {
    return new Crc32c();
  }

  encode(): never {
    throw new Error("this page only reads");
  }

  decode(bytes: Uint8Array): Uint8Array {
    const end = bytes.length - 4;
    const content = bytes.subarray(0, Math.max(0, end));
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (end < 0 || view.getUint32(end, true) !== crc32c(content)) {
      throw new Error("the checksum does not match");
    }
    return content;
  }

  computeEncodedSize(size: number): number {
    return size + 4;
  }
}

/**
 * Strings of variable length: four bytes with their number, then each with its length before it.
 * A split has as many strings as samples, but few different ones: each is decoded once.
 */
class VLenUtf8 {
  readonly kind = "array_to_bytes";

  constructor(readonly shape: number[]) {}

  static fromConfig(_: unknown, meta: { shape: number[] }): VLenUtf8 {
    return new VLenUtf8(meta.shape);
  }

  encode(): never {
    throw new Error("this page only reads");
  }

  decode(bytes: Uint8Array): { data: string[]; shape: number[]; stride: number[] } {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const decoder = new TextDecoder();
    const count = view.getUint32(0, true);
    if (4 * count > bytes.length) throw new Error("more strings are stated than there are bytes");
    const data = new Array<string>(count);
    let at = 4;
    let [begin, end] = [0, 0];
    for (let i = 0; i < data.length; i += 1) {
      const length = view.getUint32(at, true);
      at += 4;
      if (at + length > bytes.length) throw new Error("a string ends behind the last byte");
      if (i > 0 && isSame(bytes, begin, end, at, length)) {
        data[i] = data[i - 1];
      } else {
        data[i] = decoder.decode(bytes.subarray(at, at + length));
      }
      [begin, end] = [at, at + length];
      at = end;
    }
    const stride = this.shape.map((_, axis) =>
      this.shape.slice(axis + 1).reduce((product, size) => product * size, 1),
    );
    return { data, shape: this.shape, stride };
  }
}

function isSame(
  bytes: Uint8Array,
  begin: number,
  end: number,
  at: number,
  length: number,
): boolean {
  if (end - begin !== length) return false;
  for (let i = 0; i < length; i += 1) if (bytes[begin + i] !== bytes[at + i]) return false;
  return true;
}

// Of no bytes at all: RFC 8878, section 3.1.1.
const EMPTY_FRAME = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00);

/** Give zarrita these decoders; those that are left out it calls unknown. */
export function registerCodecs(): void {
  // WebAssembly is compiled while the first requests are on their way.
  void Zstd.fromConfig({ id: "zstd" }).decode(EMPTY_FRAME);
  const codecs = registry as Map<string, () => unknown>;
  codecs.set("crc32c", () => Crc32c);
  for (const prefix of ["", "numcodecs."]) {
    codecs.set(`${prefix}vlen-utf8`, () => VLenUtf8);
    codecs.delete(`${prefix}blosc`);
    codecs.delete(`${prefix}lz4`);
  }
}
