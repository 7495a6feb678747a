/** From the numbers of an image to what is seen: ink on paper, or colours. */
import type { Dataset, ImageShape } from "./dataset";

/** Alpha, blue, green and red: browsers run on little-endian machines only. */
const PALE_GREY = 0x16808080;
const DANGER = [168, 50, 31] as const;
const LINE_DISTANCE = 7;

export interface Tones {
  /** The numbers that are shown as paper and as ink. */
  low: number;
  high: number;
  /** Whether high numbers are bright: on dark paper, or in a negative. */
  isHighBright: boolean;
}

const asNumber = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isFinite(value) ? value : undefined;

/** Return the CF packing of the images; 1 and 0 where they are not packed. */
export function packing(ds: Dataset): { factor: number; offset: number } {
  const { scale_factor: factor, add_offset: offset } = ds.image.attrs;
  return { factor: asNumber(factor) || 1, offset: asNumber(offset) ?? 0 };
}

/**
 * Return the range of the stored numbers, as far as the store states it: `valid_range` is one of
 * the unpacked values, and small integers have that of their type.
 */
function statedRange(ds: Dataset): [number, number] | undefined {
  const { factor, offset } = packing(ds);
  const { valid_range: range } = ds.image.attrs;
  const bounds = Array.isArray(range) ? range.map(asNumber) : [];
  if (bounds.length === 2 && bounds[0] !== undefined && bounds[1] !== undefined) {
    const [low, high] = bounds.map((bound) => (bound! - offset) / factor).sort((a, b) => a - b);
    if (low < high) return [low, high];
  }
  const type = ds.image.array.dtype;
  return type === "uint8" ? [0, 255] : type === "bool" ? [0, 1] : undefined;
}

/** Return the numbers to show as paper and as ink; of floats, whatever the store states, all. */
export async function shownRange(ds: Dataset): Promise<[number, number]> {
  const stated = statedRange(ds);
  if (stated && !ds.image.array.dtype.startsWith("float")) return stated;
  const [low, high] = rangeOf((await ds.block(0)).pixels);
  if (stated && stated[0] <= low && high <= stated[1]) return stated;
  return ds.shape.channels > 1 && low >= 0 && high <= 1 ? [0, 1] : [low, high];
}

/** Return the lowest and highest of these numbers, leaving out those that are not finite. */
export function rangeOf(values: ArrayLike<number>): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i];
    if (value < low && value > -Infinity) low = value;
    if (value > high && value < Infinity) high = value;
  }
  return low <= high ? [low, high] : [0, 1];
}

/** Write one image into the bytes of a canvas, at a column and row of its pixels. */
export function paint(
  target: ImageData,
  left: number,
  top: number,
  values: ArrayLike<number>,
  shape: ImageShape,
  tones: Tones,
): void {
  const { rows, columns, channels, isChannelsFirst } = shape;
  const scale = 255 / (tones.high - tones.low || 1);
  const plane = rows * columns;
  const { data, width } = target;
  // What is no number is shown as paper.
  const tone = (value: number) => Math.round((value - tones.low) * scale) || 0;
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const to = 4 * ((top + row) * width + left + column);
      const from = row * columns + column;
      if (channels === 1) {
        const grey = tone(values[from]);
        data[to] = data[to + 1] = data[to + 2] = tones.isHighBright ? grey : 255 - grey;
      } else {
        for (let channel = 0; channel < 3; channel += 1) {
          const place = isChannelsFirst ? channel * plane + from : from * channels + channel;
          data[to + channel] = tone(values[place]);
        }
      }
      data[to + 3] = 255;
    }
  }
}

/** Mark the place of an image that is still to come. */
export function fill(
  target: ImageData,
  left: number,
  top: number,
  { rows, columns }: ImageShape,
): void {
  const pixels = new Uint32Array(target.data.buffer);
  for (let row = top; row < top + rows; row += 1) {
    const begin = row * target.width + left;
    pixels.fill(PALE_GREY, begin, begin + columns);
  }
}

/** Cross out the place of an image that cannot be read. */
export function crossOut(
  target: ImageData,
  left: number,
  top: number,
  { rows, columns }: ImageShape,
): void {
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const to = 4 * ((top + row) * target.width + left + column);
      const isLine = (row + column) % LINE_DISTANCE === 0;
      target.data.set([...DANGER, isLine ? 255 : 40], to);
    }
  }
}
