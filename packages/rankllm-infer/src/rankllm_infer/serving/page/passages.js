"use strict";
/* Parses pasted text or a file into the documents of a request. */
const passages = (() => {
  const TEXT_FIELDS = ["text", "segment", "contents", "content", "body", "passage"];
  const EXAMPLE = {
    query: "how do plants make sugar",
    passages: [
      "Sugar cane and sugar beet are the two plants from which most of the world’s sugar is extracted.",
      "In photosynthesis, chloroplasts use the energy of light to turn carbon dioxide and water into glucose and oxygen.",
      "Table sugar should be stored in a dry place, since it takes up moisture and forms lumps.",
      "The Calvin cycle fixes carbon dioxide in the stroma of the chloroplast and builds three-carbon sugars from it.",
      "House plants need more water in summer than in winter, and less light than most people think.",
      "Maple syrup is boiled down from sap, in which the tree moves the sugar that its leaves made the summer before.",
    ].join("\n"),
  };

  class Problem extends Error {}

  /* {documents, form}: the documents and the detected format. Throws Problem with the line. */
  function read(text, format) {
    if (!text.trim()) return { documents: [], form: "" };
    if (format === "json" || (format === "auto" && looksLikeJson(text))) return readJson(text);
    const blank = /\n[^\S\n]*\n/;
    const trimmed = text.replace(/\r\n?/g, "\n").trim();
    const asParagraphs = format === "paragraphs" || (format === "auto" && blank.test(trimmed));
    const parts = trimmed.split(asParagraphs ? /\n(?:[^\S\n]*\n)+/ : "\n").map((part) => part.trim()).filter(Boolean);
    return { documents: parts, form: asParagraphs ? "paragraphs" : "one per line" };
  }

  function looksLikeJson(text) {
    const first = text.trim().split("\n", 1)[0].trim();
    return isJson(first, (value) => isObject(value)) || isJson(text, (value) => Array.isArray(value) && value.length > 0 && value.every(holdsText));
  }

  function isJson(text, fits) {
    try {
      return fits(JSON.parse(text));
    } catch {
      return false;
    }
  }

  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const holdsText = (value) => typeof value === "string" || (isObject(value) && TEXT_FIELDS.some((name) => typeof value[name] === "string"));

  function readJson(text) {
    if (isJson(text, Array.isArray)) {
      const documents = JSON.parse(text);
      documents.forEach((value, position) => check(value, `passage ${position + 1}`));
      return { documents, form: "a JSON array" };
    }
    const documents = [];
    text.split("\n").forEach((line, position) => {
      if (!line.trim()) return;
      let value;
      try {
        value = JSON.parse(line);
      } catch (error) {
        throw new Problem(`line ${position + 1}: not JSON: ${error.message}`);
      }
      check(value, `line ${position + 1}`);
      documents.push(value);
    });
    return { documents, form: "JSON lines" };
  }

  function check(value, where) {
    if (!holdsText(value)) throw new Problem(`${where}: expected a string, or an object with a string under "text"`);
  }

  /* Title, text and docid of a document, read as the server reads them. */
  function parts(doc) {
    if (typeof doc === "string") return { title: "", text: doc, docid: "" };
    const field = TEXT_FIELDS.find((name) => doc[name] !== undefined && doc[name] !== null);
    const docid = ["pid", "docid", "_id", "id"].map((name) => doc[name]).find((value) => ["string", "number"].includes(typeof value));
    return { title: String(doc.title ?? "").trim(), text: String(doc[field] ?? "").trim(), docid: String(docid ?? "") };
  }

  /* The text of a file for the field. Tables become JSON lines. Throws Problem. */
  async function fromFile(file, { most }) {
    if (file.size > most) throw new Problem(`${file.name}: ${file.size} bytes; this server takes at most ${most} (--max-body)`);
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    } catch {
      throw new Problem(`${file.name}: not valid UTF-8 text`);
    }
    const kind = file.name.toLowerCase().match(/\.(csv|tsv)$/)?.[1];
    return kind ? fromTable(text, { name: file.name, separator: kind === "csv" ? "," : "\t" }) : text;
  }

  function fromTable(text, { name, separator }) {
    const table = separator === "," ? cells(text, name) : text.split(/\r?\n/).map((line) => line.split(separator));
    const [header = [], ...rows] = table.filter((row) => row.length > 1 || row[0].trim());
    const columns = header.map((cell) => cell.trim());
    if (!columns.some((column) => TEXT_FIELDS.includes(column))) {
      throw new Problem(`${name}: expected a column "text" in the first row, found ${columns.slice(0, 8).join(", ") || "nothing"}`);
    }
    const records = rows.map((row, position) => {
      if (row.length !== columns.length) throw new Problem(`${name}: row ${position + 2}: expected ${columns.length} columns, found ${row.length}`);
      return Object.fromEntries(columns.map((column, place) => [column, row[place]]));
    });
    return records.map((record) => JSON.stringify(record)).join("\n");
  }

  /* The rows of a .csv file. Source: RFC 4180; a quoted cell may hold commas, line breaks and doubled quotes. */
  function cells(text, name) {
    const rows = [[""]];
    let isQuoted = false;
    for (let place = 0; place < text.length; place++) {
      const character = text[place];
      const row = rows[rows.length - 1];
      if (isQuoted && character === '"' && text[place + 1] === '"') row[row.length - 1] += text[++place];
      else if (character === '"' && (isQuoted || row[row.length - 1] === "")) isQuoted = !isQuoted;
      else if (!isQuoted && character === ",") row.push("");
      else if (!isQuoted && character === "\n") rows.push([""]);
      else if (isQuoted || character !== "\r") row[row.length - 1] += character;
    }
    if (isQuoted) throw new Problem(`${name}: row ${rows.length}: unterminated quote`);
    return rows;
  }

  return { EXAMPLE, Problem, read, parts, fromFile };
})();
