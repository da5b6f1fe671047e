// Makes a component of words.js: node build.mjs OUTPUT
import { componentize } from "@bytecodealliance/componentize-js";
import { readFile, writeFile } from "node:fs/promises";

const read = (name) => readFile(new URL(name, import.meta.url), "utf8");
const { component } = await componentize(await read("words.js"), await read("words.wit"), {
  // Millpond offers WASI without HTTP.
  disableFeatures: ["http", "fetch-event"],
});
await writeFile(process.argv[2], component);
