/** What the bundled zstd of numcodecs needs where it would make functions from strings. */

interface WireType {
  toWireType(destructors: unknown[], value: unknown): unknown;
  fromWireType(value: unknown): unknown;
}
type Binding = [
  name: string,
  fail: (message: string) => never,
  invoke: (...values: unknown[]) => unknown,
  target: unknown,
  runDestructors: (destructors: unknown[]) => void,
  result: WireType,
  self: unknown,
  ...parameters: WireType[],
];

/** Return the JavaScript function of one of WebAssembly, as Emscripten's embind describes it. */
export function callable(binding: Binding): (...values: unknown[]) => unknown {
  const [, , invoke, target, runDestructors, result, , ...parameters] = binding;
  return (...values) => {
    const destructors: unknown[] = [];
    const wired = values.map((value, i) => parameters[i].toWireType(destructors, value));
    const returned = invoke(target, ...wired);
    runDestructors(destructors);
    return result.fromWireType(returned);
  };
}

/** Return the bytes of a base64 text of deflated data. */
export async function unpack(text: string): Promise<ArrayBuffer> {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).arrayBuffer();
}
