"use strict";
/* The answers, side by side. Cards are made for the page in view only, so thousands of images stay fast. All text goes
 * into the document as text, never as HTML. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("explorer");
  const PER_PAGE = 20;
  const state = { group: 0, text: "", split: "", show: "all", bad: "", good: "", page: 0 };

  const el = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined) node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  };
  const plural = (n, word) => n.toLocaleString("en") + " " + word + (n === 1 ? "" : "s");

  if (data.groups.length === 0) {
    root.append(el("p", {}, "The runs hold scores only: there are no answers to show."));
    return;
  }

  /* ---- what is shown ---- */

  const isBad = (item, run) => item.a[run][0] === 1;
  const textOf = (answer) => answer.slice(2).map((part) => typeof part === "string" ? part : part.w).join("");
  const said = (answer) => answer[1] || textOf(answer).trim().toLowerCase();
  const disagree = (item) => item.a.some((answer) => said(answer) !== said(item.a[0]) || answer[0] !== item.a[0][0]);

  const passes = (item) => {
    if (state.split && item.s !== state.split) return false;
    if (state.show === "disagree" && !disagree(item)) return false;
    if (state.show === "bad" && !item.a.some((answer) => answer[0] === 1)) return false;
    if (state.bad !== "" && !isBad(item, +state.bad)) return false;
    if (state.good !== "" && isBad(item, +state.good)) return false;
    if (state.text) {
      const all = [item.i, item.q || "", item.l || "", ...item.t, ...item.a.map(textOf)].join("\n").toLowerCase();
      if (!state.text.toLowerCase().split(/\s+/).every((word) => all.includes(word))) return false;
    }
    return true;
  };

  /* Items that pass, by image, in order of appearance. */
  const select = (group) => {
    const cards = new Map();
    let n = 0;
    for (const item of group.items) {
      if (!passes(item)) continue;
      if (!cards.has(item.i)) cards.set(item.i, []);
      cards.get(item.i).push(item);
      n++;
    }
    return { cards: [...cards], n };
  };

  /* ---- a card ---- */

  const picture = (name) => {
    const source = Object.prototype.hasOwnProperty.call(data.images, name) ? data.images[name] : null;
    return el("figure", {},
      source ? el("img", { src: source, alt: name, loading: "lazy" }) : el("div", { class: "no-image" }, "image not embedded"),
      el("figcaption", {}, name));
  };

  const words = (answer) => answer.slice(2).map((part) => typeof part === "string" ? part
    : el("mark", { class: part.h ? "wrong" : "right", title: part.h ? "not in the image" : "in the image" }, part.w));

  const runName = (group, run) => [el("i", { class: "key m" + group.colours[run] }), group.runs[run]];

  const longAnswers = (group, item) => {
    const box = el("div", {});
    if (item.q) box.append(el("p", { class: "truth" }, item.q));
    if (item.t.length) box.append(el("p", { class: "truth" }, "In the image: ", ...item.t.map((t) => el("span", {}, t))));
    item.a.forEach((answer, run) => {
      const mentions = answer.slice(2).filter((part) => typeof part !== "string");
      const wrong = mentions.filter((part) => part.h).length;
      const note = mentions.length ? wrong + " of " + plural(mentions.length, "mention") + " hallucinated" : "";
      box.append(el("div", { class: "answer" }, el("h4", {}, ...runName(group, run), el("small", {}, note)),
        el("p", {}, ...words(answer))));
    });
    return box;
  };

  const yesNoTable = (group, items) => {
    const splits = group.splits.length > 1;
    const head = el("tr", {}, el("th", {}, "Question"), ...(splits ? [el("th", {}, "Split")] : []), el("th", {}, "Truth"),
      ...group.runs.map((_, run) => el("th", {}, ...runName(group, run))));
    const rows = items.map((item) => el("tr", {}, el("td", {}, item.q || ""),
      ...(splits ? [el("td", {}, el("small", {}, item.s || ""))] : []), el("td", {}, item.l || ""),
      ...item.a.map((answer) => el("td", { class: answer[0] ? "no" : "yes" }, answer[0] ? "✗ " : "✓ ", ...words(answer)))));
    return el("div", { class: "wide" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
  };

  const card = (group, name, items) => {
    const box = el("article", { class: "card" }, picture(name));
    const right = el("div", {});
    const short = items.filter((item) => item.l);
    if (short.length) right.append(yesNoTable(group, short));
    for (const item of items) if (!item.l) right.append(longAnswers(group, item));
    box.append(right);
    return box;
  };

  /* ---- filters ---- */

  const choice = (label, key, options) => el("label", {}, label,
    el("select", { onchange: (event) => change(key, event.target.value) },
      ...options.map(([value, text]) => {
        const option = el("option", { value }, text);
        option.selected = value === state[key];
        return option;
      })));

  const change = (key, value) => {
    state[key] = value;
    state.page = 0;
    draw();
  };

  const list = el("div", { class: "cards" });
  const pagers = [el("div", { class: "pager" }), el("div", { class: "pager" })];

  const draw = () => {
    const group = data.groups[state.group];
    const { cards, n } = select(group);
    const pages = Math.max(1, Math.ceil(cards.length / PER_PAGE));
    state.page = Math.min(state.page, pages - 1);
    const go = (by) => { state.page += by; draw(); list.scrollIntoView({ block: "nearest" }); };
    for (const pager of pagers) {
      const previous = el("button", { onclick: () => go(-1) }, "← Previous"), next = el("button", { onclick: () => go(1) }, "Next →");
      previous.disabled = state.page === 0;
      next.disabled = state.page + 1 >= pages;
      pager.replaceChildren(previous, next, el("span", {}, plural(cards.length, "image") + ", " + plural(n, "answer set")
        + ", page " + (state.page + 1) + " of " + pages));
    }
    list.replaceChildren(...cards.slice(state.page * PER_PAGE, (state.page + 1) * PER_PAGE)
      .map(([name, items]) => card(group, name, items)));
    if (cards.length === 0) list.append(el("p", {}, "No answers pass these filters."));
  };

  const build = () => {
    const group = data.groups[state.group];
    const runs = group.runs.map((name, run) => [String(run), name]);
    const verb = group.yesno ? "Wrong" : "Hallucinates";
    const tabs = el("div", { class: "tabs" }, ...data.groups.map((g, i) => el("button", {
      "aria-pressed": String(i === state.group),
      onclick: () => { Object.assign(state, { group: i, split: "", bad: "", good: "", page: 0 }); build(); },
    }, g.title)));
    const search = el("input", { type: "search", placeholder: "word, file, object …", value: state.text,
      oninput: (event) => change("text", event.target.value) });
    const bar = el("div", { class: "bar-of-filters" },
      ...(data.groups.length > 1 ? [tabs] : []),
      el("label", {}, "Search", search),
      choice("Show", "show", [["all", "all"], ["disagree", "only where methods disagree"],
        ["bad", group.yesno ? "only where one is wrong" : "only where one hallucinates"]]),
      choice(verb, "bad", [["", "any"], ...runs]),
      choice("… but not", "good", [["", "any"], ...runs]),
      ...(group.splits.length > 1 ? [choice("Split", "split", [["", "all"], ...group.splits.map((s) => [s, s])])] : []));
    const notes = [];
    const left = data.distinct - data.embedded - data.missing;
    if (left > 0) notes.push(plural(left, "image") + " of " + data.distinct.toLocaleString("en")
      + " not embedded (more with --images-limit).");
    if (data.missing > 0) notes.push(plural(data.missing, "image") + " not found (where they are: --images).");
    root.replaceChildren(bar, ...(notes.length ? [el("p", { class: "quiet" }, notes.join(" "))] : []), pagers[0], list, pagers[1]);
    draw();
  };

  build();
})();
