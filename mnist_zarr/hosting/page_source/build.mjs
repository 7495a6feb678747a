// Bundles the page into one file: node build.mjs [OUTPUT], by default ../page.html.
// The same sources and the same lock file give the same bytes on any machine.
import { createHash } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build, transform } from "esbuild";
import { deflateSync } from "fflate";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Replace a text that stands exactly once in a file of a pinned version of a package. */
function replaceOnce(source, from, to) {
  const parts = source.split(from);
  if (parts.length !== 2)
    throw new Error(`expected once, found ${parts.length - 1} times: ${from}`);
  return parts.join(to);
}

/**
 * numcodecs' zstd calls into WebAssembly through functions that it makes from strings, which a
 * strict Content-Security-Policy forbids: `callable` does the same without. The WebAssembly itself
 * is packed, to a quarter of its size, and unpacked by the browser.
 */
async function loadZstd({ path }) {
  let code = await readFile(path, "utf8");
  const [, encoded] = code.match(/__toBinary\("([^"]+)"\)/);
  const packed = deflateSync(Buffer.from(encoded, "base64"), { level: 9 });
  code = replaceOnce(
    code,
    `__toBinary("${encoded}")`,
    `"${Buffer.from(packed).toString("base64")}"`,
  );
  code = replaceOnce(code, "var init = () =>", "var init = async () =>");
  code = replaceOnce(
    code,
    "wasmBinary: zstd_codec_default2",
    "wasmBinary: await unpack(zstd_codec_default2)",
  );
  code = replaceOnce(code, "Ga(Oa)(...w)", "callable(w)");
  code = replaceOnce(code, 'from "./chunk-INHXZS53.js"', `from "${here("src/wasm.ts")}"`);
  return { contents: code.replace("__toBinary", "callable, unpack"), loader: "js" };
}

const codecs = {
  name: "codecs",
  setup(bundle) {
    bundle.onLoad({ filter: /numcodecs\/dist\/zstd\.js$/ }, loadZstd);
    // The large decoders that no store of ours needs.
    bundle.onResolve({ filter: /^numcodecs\/(blosc|lz4)$/ }, ({ path }) => ({
      path,
      namespace: "left-out",
    }));
    bundle.onLoad({ filter: /.*/, namespace: "left-out" }, () => ({
      contents: "export default undefined;",
    }));
  },
};

async function bundleScript() {
  const { outputFiles } = await build({
    entryPoints: [here("src/main.ts")],
    bundle: true,
    write: false,
    format: "iife",
    target: "es2023",
    charset: "utf8",
    minify: true,
    legalComments: "none",
    plugins: [codecs],
  });
  return outputFiles[0].text.trim();
}

async function readLicenses() {
  const names = (await readdir(here("licenses"))).sort();
  const texts = await Promise.all(names.map((name) => readFile(here(`licenses/${name}`), "utf8")));
  return texts.map((text) => text.trim()).join(`\n\n${"-".repeat(78)}\n\n`);
}

const hashed = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

const script = await bundleScript();
if (/<\/script/i.test(script)) throw new Error("the script would end its own element");
const { code } = await transform(await readFile(here("style.css"), "utf8"), {
  loader: "css",
  minify: true,
});
const style = code.trim();
const parts = {
  policy: [
    "default-src 'none'",
    `script-src ${hashed(script)} 'wasm-unsafe-eval'`,
    `style-src ${hashed(style)}`,
    "connect-src *",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join("; "),
  style,
  script,
  licenses: await readLicenses(),
};
const template = await readFile(here("index.html"), "utf8");
const page = template.replace(/\{\{(\w+)\}\}/g, (_, name) => parts[name]);
await writeFile(process.argv[2] ?? here("../page.html"), page);
console.log(`${page.length.toLocaleString("en")} characters`);
