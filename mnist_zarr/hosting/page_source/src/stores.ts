/** Where bytes come from: a web server, or a file that the reader chose. */

export type Range = { offset: number; length: number } | { suffixLength: number };

/** What zarrita reads from; keys begin with a slash. */
export interface Store {
  get(key: string): Promise<Uint8Array | undefined>;
  getRange(key: string, range: Range): Promise<Uint8Array | undefined>;
}

/** Whatever keeps the page from reading; the message is meant for the reader. */
export class ReadError extends Error {
  override name = "ReadError";
}

/** Requests and bytes so far; `onChange` is called after each. */
export class Traffic {
  requests = 0;
  bytes = 0;
  onChange = (): void => {};

  add(bytes: number): void {
    this.requests += 1;
    this.bytes += bytes;
    this.onChange();
  }
}

const DOCUMENTS = new Set(["zarr.json", ".zmetadata", ".zgroup", ".zarray", ".zattrs"]);

/** Whether the object is metadata, which may be absent. */
export const isDocument = (key: string): boolean =>
  DOCUMENTS.has(key.slice(key.lastIndexOf("/") + 1));

/** The objects below an address. */
export class HttpStore implements Store {
  /** Objects of a server that sends them whole, whatever range is asked for. */
  readonly #whole = new Map<string, Uint8Array>();
  #version: string | undefined;

  constructor(
    readonly base: URL,
    readonly traffic: Traffic,
  ) {}

  async get(key: string): Promise<Uint8Array | undefined> {
    const response = await this.#fetch(key);
    return response && this.#body(response);
  }

  async getRange(key: string, range: Range): Promise<Uint8Array | undefined> {
    const whole = this.#whole.get(key);
    if (whole) return cut(whole, range);
    const header =
      "suffixLength" in range
        ? `bytes=-${range.suffixLength}`
        : `bytes=${range.offset}-${range.offset + range.length - 1}`;
    const response = await this.#fetch(key, { headers: { Range: header } });
    if (!response) return undefined;
    const body = await this.#body(response);
    if (response.status === 206) return body;
    this.#whole.set(key, body);
    return cut(body, range);
  }

  /** Remember the version of a document, to notice when another one takes its place. */
  async isReplaced(key: string): Promise<boolean> {
    const response = await fetch(this.#url(key), { method: "HEAD", cache: "no-store" }).catch(
      () => undefined,
    );
    this.traffic.add(0);
    if (!response?.ok) return response?.status === 404;
    const { headers } = response;
    const version = ["ETag", "Last-Modified", "Content-Length"]
      .map((name) => headers.get(name))
      .join();
    this.#version ??= version;
    return this.#version !== version;
  }

  #url(key: string): URL {
    return new URL(key.slice(1).split("/").map(encodeURIComponent).join("/"), this.base);
  }

  async #fetch(key: string, init: RequestInit = {}): Promise<Response | undefined> {
    const url = this.#url(key);
    let response: Response;
    try {
      response = await fetch(url, init);
    } catch {
      this.traffic.add(0);
      throw new ReadError(await explainRefusal(url, "headers" in init));
    }
    if (response.ok) return response;
    this.traffic.add(0);
    // Who may not list a bucket is told "forbidden" of what is not there.
    if (response.status === 404 || (response.status === 403 && isDocument(key))) return undefined;
    throw new ReadError(await describeStatus(response));
  }

  async #body(response: Response): Promise<Uint8Array> {
    try {
      const body = new Uint8Array(await response.arrayBuffer());
      this.traffic.add(body.length);
      return body;
    } catch {
      this.traffic.add(0);
      throw new ReadError("the connection broke before the last byte; reload the page");
    }
  }
}

/** A file of the reader's own disk; its only key is the empty name. */
export class FileStore implements Store {
  constructor(
    readonly file: Blob,
    readonly traffic: Traffic,
  ) {}

  async get(): Promise<Uint8Array> {
    return this.getRange("/", { offset: 0, length: this.file.size });
  }

  async getRange(_key: string, range: Range): Promise<Uint8Array> {
    const [begin, end] = bounds(range, this.file.size);
    const bytes = new Uint8Array(await this.file.slice(begin, end).arrayBuffer());
    this.traffic.add(bytes.length);
    return bytes;
  }
}

export function bounds(range: Range, size: number): [number, number] {
  if ("suffixLength" in range) return [Math.max(0, size - range.suffixLength), size];
  return [range.offset, Math.min(size, range.offset + range.length)];
}

const cut = (bytes: Uint8Array, range: Range): Uint8Array =>
  bytes.subarray(...bounds(range, bytes.length));

async function describeStatus(response: Response): Promise<string> {
  const status = `the server answers ${response.status} ${response.statusText}`.trim();
  const isText = response.headers.get("Content-Type")?.startsWith("text/plain");
  const reason = isText ? (await response.text()).trim().slice(0, 300) : "";
  return reason ? `${status}: ${reason}` : status;
}

/** Say why the browser gave no answer: it does not tell scripts, so ask once without reading. */
async function explainRefusal(url: URL, isRange: boolean): Promise<string> {
  if (location.protocol === "file:" && url.protocol === "file:") {
    return (
      "browsers do not let a page on disk read the files beside it. Run “mnist-zarr view” with " +
      "the name of the store, or “python -m http.server” in its folder"
    );
  }
  const isThere = await fetch(url, { mode: "no-cors", method: "HEAD" }).then(
    () => true,
    () => false,
  );
  if (!isThere || url.origin === location.origin) {
    return `${url.host} cannot be reached; is the address right, and this machine online?`;
  }
  const range = isRange ? ", Access-Control-Allow-Headers: Range" : "";
  return (
    `${url.host} answers, but does not let pages of ${location.origin} read. Its owner has to set ` +
    `the CORS rule that “mnist-zarr publish” prints; missing is at least ` +
    `Access-Control-Allow-Origin: *${range}`
  );
}
