"use strict";
/* Renders a response as elements. Strings are set as text, never as markup. */
const results = (() => {
  const SNIPPET = 220;
  const SHORT_SNIPPET = 90;
  const FEW_DEFECTS = 6;
  const MOST_ROWS = 200;
  const FEW_CALLS = 3;
  const SCORES = {
    probability: "Scores are probabilities of relevance.",
    sigmoid: "Scores are the sigmoid of the model’s score: comparable between requests, not calibrated.",
    softmax: "Scores are a softmax over the identifiers’ logits; they sum to 1.",
    preference: "Scores are mean preferences over the other passages.",
    rank: "Scores reflect the rank only: of n passages, the best has 1 and the last 1/n.",
    raw: "Scores are the model’s raw scores.",
  };
  const FALLBACK = "Fallback: where the model returned no ranking, passages keep their previous order.";
  const REPAIRED = "Repaired: an answer was not a complete ranking; passages it omitted are placed after those it ranked.";

  /* Creates an element: attributes by name, including `class`, and children; strings become text nodes. */
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  }

  const number = (value) => value.toLocaleString("en");
  const short = (value) => (Math.abs(value) < 1e4 ? value.toPrecision(4) : String(Math.round(value)));
  const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
  const tokens = (read, written) => `${number(read)} prompt tokens, ${number(written)} output tokens`;
  const badge = (status) => element("span", { class: `badge ${status}` }, status);

  /* Splits a text into [head, rest], at a space. `rest` is empty if it would be short. */
  function split(text, most = SNIPPET) {
    if (text.length <= (most * 5) / 4) return [text, ""];
    const blank = text.lastIndexOf(" ", most);
    const end = blank > most / 2 ? blank : most - /[\ud800-\udbff]/.test(text[most - 1]);
    return [text.slice(0, end), text.slice(end).trimStart()];
  }

  function defects(all) {
    if (!all.length) return null;
    const few = all.slice(0, FEW_DEFECTS).join("; ");
    if (all.length <= FEW_DEFECTS) return element("p", { class: "defects" }, `Defects: ${few}`);
    const more = element("summary", {}, `Defects: ${few}; ${all.length - FEW_DEFECTS} more`);
    return element("details", { class: "defects" }, more, element("p", {}, all.slice(FEW_DEFECTS).join("; ")));
  }

  function move(rank, was) {
    if (rank === was) return element("span", { class: "move" }, "unchanged");
    const rise = was - rank;
    const arrow = element("span", { "aria-hidden": "true" }, rise > 0 ? "▲" : "▼");
    return element("span", { class: `move ${rise > 0 ? "better" : "worse"}` }, arrow, ` ${rise > 0 ? "up" : "down"} ${Math.abs(rise)}, was ${was}`);
  }

  /* The path of each passage that windows moved: its ranks and the calls between them. Empty if other calls contributed. */
  function paths({ calls: all }, items) {
    const steps = new Map();
    all.forEach((call, place) => {
      if (call.start === null || call.indices.length < 2) return;
      call.order.forEach((position, rank) => {
        const index = call.indices[position];
        if (!steps.has(index)) steps.set(index, []);
        steps.get(index).push({ call: place + 1, from: call.start + position + 1, to: call.start + rank + 1 });
      });
    });
    return items.map((item, place) => {
      let rank = item.index + 1;
      const taken = steps.get(item.index) ?? [];
      for (const { from, to } of taken) rank = from === rank ? to : NaN;
      if (!taken.length || rank !== place + 1) return "";
      return `rank ${item.index + 1}${taken.map(({ call, to }) => ` → ${to} (call ${call})`).join("")}`;
    });
  }

  function passage(doc, item, { rank, path }) {
    const { title, text, docid } = passages.parts(doc);
    const [head, rest] = split(text);
    const facts = element(
      "p",
      { class: "facts" },
      element("b", { class: "rank" }, String(rank)),
      move(rank, item.index + 1),
      element("span", { class: "score" }, `score ${short(item.relevance_score)}`),
      path && element("span", { class: "path" }, path),
      docid && element("bdi", { class: "docid" }, docid),
    );
    const shown = rest
      ? element("details", { class: "text" }, element("summary", { dir: "auto" }, head), element("p", { dir: "auto" }, rest))
      : element("p", { class: "text", dir: "auto" }, head || "(empty)");
    return element("li", {}, facts, title && element("p", { class: "title", dir: "auto" }, title), shown);
  }

  function summary({ meta, usage, model, results: items }) {
    const warnings = meta.warnings.filter((warning) => !warning.startsWith("the ranking is not entirely"));
    const notes = meta.status === "fallback" ? [FALLBACK, ...warnings] : warnings;
    const repaired = meta.status === "repaired" ? [element("p", { class: "none" }, REPAIRED)] : [];
    const nMoved = items.filter((item, place) => item.index !== place).length;
    const facts = [
      badge(meta.status),
      element("span", {}, `${number(nMoved)} of ${count(items.length, "passage")} moved`),
      element("span", {}, `${count(meta.calls, "model call")} in ${count(meta.rounds, "round")}`),
      element("span", {}, tokens(usage.prompt_tokens, usage.completion_tokens)),
      element("span", {}, `${meta.queued_s.toFixed(2)} s in the queue, ${meta.computed_s.toFixed(2)} s ranking`),
      element("bdi", { class: "docid" }, model),
    ];
    return [
      ...notes.map((note) => element("p", { class: "note" }, note)),
      element("p", { class: "facts" }, ...facts),
      element("p", { class: "none" }, SCORES[meta.score_kind] ?? `Scores are of kind ${meta.score_kind}.`),
      ...repaired,
      defects(meta.defects),
    ].filter(Boolean);
  }

  /* The original rank of a document and the beginning of its text. */
  function brief(documents, index) {
    const { title, text } = passages.parts(documents[index]);
    const [head, rest] = split(title ? `${title}: ${text}` : text, SHORT_SNIPPET);
    return element("span", { dir: "auto" }, `${index + 1}. ${head || "(empty)"}${rest && " …"}`);
  }

  /* columns: names; numeric columns have a leading "#". */
  function table(caption, columns, rows) {
    const of = (name) => (name.startsWith("#") ? { class: "n" } : {});
    const head = columns.map((name) => element("th", { scope: "col", ...of(name) }, name.replace("#", "")));
    const body = rows.slice(0, MOST_ROWS).map((cells) => element("tr", {}, ...cells.map((cell, place) => element("td", of(columns[place]), cell))));
    const shown = element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
    const n = rows.length - MOST_ROWS;
    return n > 0 ? [shown, element("p", { class: "none" }, `The response contains ${number(n)} more.`)] : [shown];
  }

  /* Fills an element when it is first opened: the table of a window may be long, and most are never opened. */
  function lazily(details, fill) {
    let isFilled = false;
    details.addEventListener("toggle", () => {
      if (details.open && !isFilled) details.append(...fill());
      isFilled ||= details.open;
    });
    return details;
  }

  function windowCall(call, place, documents, isOpen) {
    const ranks = call.start === null ? count(call.indices.length, "passage") : `ranks ${call.start + 1}–${call.start + call.indices.length}`;
    const facts = element(
      "span",
      { class: "facts" },
      element("b", {}, `Call ${place}`),
      " ",
      element("span", {}, ranks),
      " ",
      badge(call.status),
      " ",
      element("span", {}, tokens(call.prompt_tokens, call.completion_tokens)),
    );
    const rows = () =>
      call.order.map((position, rank) => [
        String((call.start ?? 0) + rank + 1),
        `[${position + 1}]`,
        brief(documents, call.indices[position]),
        ...(call.scores?.length === call.indices.length ? [call.scores[position] === null ? "none" : short(call.scores[position])] : []),
      ]);
    const columns = ["#Rank", "#Identifier", "Passage", ...(call.scores?.length === call.indices.length ? ["#Score"] : [])];
    const fill = () => [
      ...(call.response ? [element("p", { class: "label" }, "Answer"), element("pre", { dir: "auto", tabindex: "0" }, call.response)] : []),
      ...table(call.status === "fallback" ? "Order kept: the answer contained no ranking" : "Order parsed from the answer", columns, rows()),
    ];
    const details = lazily(element("details", {}, element("summary", {}, facts)), fill);
    details.open = isOpen;
    return element("li", {}, details, defects(call.defects));
  }

  const scoresOf = (call) => (call.scores ?? []).map((score) => (score === null ? "none" : short(score))).join(" / ");

  function pairs(calls, documents) {
    const columns = ["#Call", "First", "Second", "#Preferred", "#Scores"];
    const rows = calls.map((call, place) => [
      String(place + 1),
      brief(documents, call.indices[0]),
      brief(documents, call.indices[1]),
      String(call.indices[call.order[0]] + 1),
      scoresOf(call),
    ]);
    return table("Comparisons, in order of execution", columns, rows);
  }

  function single(calls, documents) {
    const isYesNo = calls.some((call) => call.scores?.length === 2);
    const rows = calls.map((call) => [brief(documents, call.indices[0]), scoresOf(call), number(call.prompt_tokens)]);
    return table("Each passage individually", ["Passage", isYesNo ? "#Yes / no" : "#Score", "#Tokens"], rows);
  }

  /* The model calls of a ranking, collapsed. */
  function calls({ calls: all, n_omitted: n }, documents) {
    const heading = element("summary", {}, `Explanation: ${count(all.length + n, "model call")}`);
    const note = n ? [element("p", { class: "none" }, `The response contains the first ${number(all.length)}.`)] : [];
    const width = Math.max(0, ...all.map((call) => call.indices.length));
    const fill = () => {
      if (width > 2 || all.some((call) => call.start !== null && call.indices.length === 2)) {
        return [...note, element("ol", {}, ...all.map((call, place) => windowCall(call, place + 1, documents, all.length <= FEW_CALLS)))];
      }
      return [...note, ...(width === 2 ? pairs(all, documents) : single(all, documents))];
    };
    return lazily(element("details", { class: "calls" }, heading), fill);
  }

  /* The ranked passages of a response. */
  function ranking({ results: items, explanation }, documents) {
    const ways = explanation ? paths(explanation, items) : [];
    return items.map((item, place) => passage(documents[item.index], item, { rank: place + 1, path: ways[place] ?? "" }));
  }

  return { element, count, ranking, summary, calls };
})();
