"use strict";
(() => {
  const { element, count } = results;
  const $ = (id) => document.getElementById(id);
  const form = $("ask");
  /* The page is at the root of the server's paths, including any prefix of a reverse proxy, with or without a trailing slash. */
  const root = new URL(location.pathname.replace(/\/?$/, "/"), location.origin);
  const NUMBERS = ["top_n", "max_tokens_per_doc", "window_size", "stride"];
  const KEY = /^[\x21-\x7e]+$/;
  let served = { max_body: Infinity };
  let running = null;
  let asked = null;

  class ServerError extends Error {}

  function headers() {
    const key = $("key").value.trim();
    if (key && !KEY.test(key)) throw new ServerError("API key: expected ASCII characters without spaces");
    return key ? { Authorization: `Bearer ${key}` } : {};
  }

  /* The parsed JSON of a response. Throws ServerError with the server's message. */
  async function fetchJson(path, options = {}) {
    let response;
    let text;
    const sent = { ...options, headers: { ...options.headers, ...headers() }, cache: "no-store", credentials: "same-origin" };
    try {
      response = await fetch(new URL(path, root), sent);
      text = await response.text();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError("The server cannot be reached or closed the connection.");
    }
    let body = null;
    try {
      body = JSON.parse(text);
    } catch {
      /* An error from a proxy is not JSON; its status is enough. */
    }
    if (response.ok && body !== null) return body;
    const failure = new ServerError(words(body) || "The response is not JSON.");
    failure.response = response;
    throw failure;
  }

  /* The message of an error, in any of the response formats. */
  const words = (body) => [body?.message, body?.detail, body?.error?.message, body?.error].find((value) => typeof value === "string");

  function showProblem(error) {
    const response = error.response;
    const title = response ? `${response.status} ${response.statusText}`.trim() : "";
    const wait = response?.headers.get("retry-after");
    const id = response?.headers.get("x-request-id");
    const text = element("p", {}, title && element("b", {}, `${title}: `), error.message, wait ? ` Try again in ${wait} s.` : "");
    $("problem").replaceChildren(text, id ? element("p", { class: "none" }, "Request ID ", element("bdi", {}, id)) : "");
    $("problem").hidden = false;
    if (response?.status === 401) {
      $("key-field").hidden = false;
      $("key").focus();
    }
  }

  /* Loads the capabilities of the served model and hides options that have no effect. */
  async function connect() {
    try {
      const { data } = await fetchJson("v1/models");
      served = data[0].ranking;
      $("model").replaceChildren("Served model: ", element("bdi", { class: "run" }, data[0].id), `, ${served.method}`);
      document.title = `Rank passages · ${data[0].id}`;
      $("problem").hidden = true;
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      $("model").textContent = error.response?.status === 401 ? "Enter an API key to see the served model." : "";
      const isFirst = error.response?.status === 401 && !$("key").value;
      if (isFirst) $("key-field").hidden = false;
      else showProblem(error);
      return;
    }
    for (const part of document.querySelectorAll("[data-needs]")) {
      const needed = served[part.dataset.needs];
      part.hidden = Array.isArray(needed) ? needed.length === 0 : !needed;
    }
    const own = element("option", { value: "" }, `the server’s default (${served.strategy})`);
    $("strategy").replaceChildren(own, ...served.strategies.map((name) => element("option", { value: name }, name)));
    if (served.window_size) {
      $("window_size").max = served.window_size;
      $("window_size").placeholder = served.window_size;
      $("stride").placeholder = served.stride;
    }
  }

  /* Screen readers announce every assignment, so the text is set only if it differs. */
  function tellFound(text, isBad) {
    if ($("found").textContent !== text) $("found").textContent = text;
    $("found").classList.toggle("bad", isBad);
  }

  /* Reads the passages and reports the result below the field. Null if they cannot be read. */
  function readPassages() {
    let found = null;
    let problem = "";
    try {
      found = passages.read($("passages").value, $("format").value);
    } catch (error) {
      if (!(error instanceof passages.Problem)) throw error;
      problem = error.message;
    }
    const n = found?.documents.length ?? 0;
    tellFound(problem || (n ? `${count(n, "passage")} (${found.form})` : "no passages yet"), problem !== "");
    $("passages").setCustomValidity(problem || (n ? "" : "Enter at least one passage."));
    $("example").hidden = n > 0 || problem !== "" || $("query").value.trim() !== "";
    return found;
  }

  function body(documents) {
    const made = { query: $("query").value, documents };
    for (const name of NUMBERS) if (isShown(name) && $(name).value) made[name] = Number($(name).value);
    if (isShown("strategy") && $("strategy").value) made.strategy = $("strategy").value;
    if (isShown("instruction") && $("instruction").value.trim()) made.instruction = $("instruction").value;
    for (const name of ["raw_scores", "explain"]) if (isShown(name) && $(name).checked) made[name] = true;
    return made;
  }

  const isShown = (id) => !$(id).closest("[hidden]");

  async function rank() {
    if (running) return;
    const found = readPassages();
    if (!form.reportValidity()) return;
    asked = { url: new URL("v2/rerank", root).href, body: body(found.documents), hasKey: !$("key-field").hidden };
    showRequest();
    $("problem").hidden = $("results").hidden = true;
    running = new AbortController();
    const stop = showBusy();
    try {
      const options = { method: "POST", body: snippets.json(asked.body), signal: running.signal };
      showRanking(await fetchJson("v2/rerank", { ...options, headers: { "Content-Type": "application/json" } }), found.documents);
      if (!served.method) connect(); // the key was entered after the page had loaded
    } catch (error) {
      if (error.name === "AbortError") $("said").textContent = "Cancelled.";
      else if (error instanceof ServerError) {
        $("said").textContent = "";
        showProblem(error);
      } else throw error;
    } finally {
      running = null;
      stop();
    }
  }

  function showBusy() {
    const started = performance.now();
    const tell = () => ($("elapsed").textContent = `${Math.floor((performance.now() - started) / 1000)} s`);
    const timer = setInterval(tell, 1000);
    const hadFocus = document.activeElement === $("rank");
    tell();
    $("said").textContent = "Ranking.";
    $("keys").textContent = "Escape";
    $("rank").disabled = true;
    $("cancel").hidden = $("busy").hidden = false;
    if (hadFocus) $("cancel").focus();
    return () => {
      clearInterval(timer);
      $("keys").textContent = "Ctrl + Enter";
      const isInButton = document.activeElement === $("cancel");
      $("rank").disabled = false;
      if (isInButton) $("rank").focus();
      $("cancel").hidden = $("busy").hidden = true;
    };
  }

  function showRanking(response, documents) {
    const items = response.results;
    $("summary").replaceChildren(...results.summary(response));
    $("ranking").replaceChildren(...results.ranking(response, documents));
    $("cut").textContent = cut(response, documents.length).join(" ");
    $("calls").replaceChildren(...(response.explanation ? [results.calls(response.explanation, documents)] : []));
    $("results").hidden = false;
    $("said").textContent = `${count(items.length, "passage")} ranked, status ${response.meta.status}.`;
    $("results").scrollIntoView({ block: "nearest" });
  }

  /* Notes about where the ranked list ends. */
  function cut({ results: items, explanation }, n) {
    const ranked = explanation?.n_ranked ?? n;
    return [
      ...(ranked < n ? [ranked ? `The model ranked the top ${ranked} only; it did not determine the order of the others.` : "The model ranked no passages."] : []),
      ...(items.length < n ? [`${count(n - items.length, "passage")} ranked lower ${n - items.length === 1 ? "is" : "are"} not in the response.`] : []),
    ];
  }

  /* Shows the request as curl and Python; the text is generated when it is first opened, as it may be long. */
  function showRequest() {
    $("request").hidden = false;
    $("copied").textContent = "";
    $("key-note").hidden = !asked.hasKey;
    for (const name of ["curl", "python"]) {
      $(name).textContent = "";
      if ($(name).parentElement.open) $(name).textContent = snippets[name](asked);
    }
  }

  async function copy(name) {
    const text = snippets[name](asked);
    try {
      await navigator.clipboard.writeText(text);
      $("copied").textContent = "Copied.";
    } catch {
      /* A page served over plain HTTP from another machine has no clipboard access. */
      $(name).parentElement.open = true;
      $(name).textContent = text;
      getSelection().selectAllChildren($(name));
      $(name).focus();
      $("copied").textContent = "Selected: press Ctrl + C.";
    }
  }

  async function take(files) {
    if (!files.length) return;
    const [file] = files;
    try {
      if (files.length > 1) throw new passages.Problem(`expected one file, found ${files.length}`);
      $("passages").value = await passages.fromFile(file, { most: served.max_body });
      readPassages();
    } catch (error) {
      if (!(error instanceof passages.Problem)) throw error;
      tellFound(error.message, true);
    }
  }

  function fillInExample() {
    $("query").value = passages.EXAMPLE.query;
    $("passages").value = passages.EXAMPLE.passages;
    readPassages();
    $("rank").focus();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    rank();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !running) {
      event.preventDefault();
      readPassages();
      form.requestSubmit();
    }
    if (event.key === "Escape") running?.abort();
  });
  for (const id of ["passages", "query", "format"]) $(id).addEventListener("input", readPassages);
  /* An invalid field can be reported only while it is visible. */
  $("options").addEventListener("invalid", () => ($("options").open = true), true);
  $("cancel").addEventListener("click", () => running?.abort());
  $("example").addEventListener("click", fillInExample);
  $("key").addEventListener("change", connect);
  $("file").addEventListener("change", () => take($("file").files));
  $("file").addEventListener("click", () => ($("file").value = "")); // so that the same file can be selected again
  $("strategy").addEventListener("change", () => {
    const strategy = $("strategy").value || served.strategy;
    $("stride-label").hidden = !served.stride || strategy !== "sliding";
    $("window-label").hidden = !served.window_size || strategy === "full";
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    /* Handled on the whole page: a browser would navigate to a file dropped outside the field. */
    addEventListener(kind, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy));
  for (const name of ["curl", "python"]) {
    $(name).parentElement.addEventListener("toggle", () => {
      if ($(name).parentElement.open && !$(name).textContent) $(name).textContent = snippets[name](asked);
    });
  }
  readPassages();
  connect();
})();
