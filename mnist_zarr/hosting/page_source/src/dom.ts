/** Small helpers for the document. Whatever comes from a store becomes text, never HTML. */

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return found as T;
}

type Child = Node | string;

/** Make an element with properties and children; strings become text. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const URL_OR_DOI = /(https?:\/\/[^\s<>"]+[^\s<>".,;)]|\bdoi:10\.\d{4,}\/[^\s<>"]+[^\s<>".,;)])/;

/** Return a text with its web addresses as links; no other scheme becomes one. */
export function linked(text: string): Child[] {
  return text.split(URL_OR_DOI).map((part, i) => {
    if (i % 2 === 0) return part;
    const href = part.startsWith("doi:") ? `https://doi.org/${part.slice(4)}` : part;
    return make("a", { href, rel: "noreferrer", target: "_blank" }, part);
  });
}

const NUMBER = new Intl.NumberFormat("en");
export const count = (value: number): string => NUMBER.format(value);

/** Return a number of something, with the plural where it is not one. */
export const plural = (value: number, noun: string, nouns = `${noun}s`): string =>
  `${count(value)} ${value === 1 ? noun : nouns}`;

export function byteSize(bytes: number): string {
  if (bytes < 1000) return `${bytes}\u00a0bytes`;
  const power = Math.min(4, Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** power;
  return `${value.toFixed(value < 10 && power > 1 ? 1 : 0)}\u00a0${["", "kB", "MB", "GB", "TB"][power]}`;
}

/** A short name, as of a digit, is set larger. */
export const isShort = (name: string): boolean => [...name].length <= 2;
