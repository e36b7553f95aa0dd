// Prints 1 or 0 for each document of a file, a JSON text a line: whether it is valid
// by the schema, to Ajv with its defaults. A warning of Ajv's ends it.
//
//   node ajv.mjs SCHEMA DOCUMENTS

import { readFileSync } from "node:fs";
import Ajv from "ajv/dist/2020.js";

const [schema, documents] = process.argv.slice(2).map((file) => readFileSync(file, "utf8"));
console.warn = (...what) => {
  throw new Error(what.join(" "));
};
const validate = new Ajv().compile(JSON.parse(schema));
for (const line of documents.split("\n").slice(0, -1)) {
  console.log(validate(JSON.parse(line)) ? 1 : 0);
}
