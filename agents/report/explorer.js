// The explorer of sample sessions. Texts of the data become text nodes only, never markup.
(() => {
  const block = document.getElementById("sessions-data");
  if (block === null) return;
  const data = JSON.parse(block.textContent);
  const MODELS = ["f_mat", "f_sim", "f_sta"];
  const CARDS = 5; // earlier items beside a recommendation, at most
  const run = document.getElementById("run");
  const group = document.getElementById("group");
  const pattern = document.getElementById("pattern");
  const search = document.getElementById("search");
  const status = document.getElementById("status");
  const results = document.getElementById("results");

  // ---- elements --------------------------------------------------------------------------------------------

  const el = (name, style, ...children) => {
    const element = document.createElement(name);
    if (style) element.className = style;
    element.append(...children.flat().filter((child) => child !== null));
    return element;
  };
  const sign = (positive) => (positive ? "+" : "−");
  const signed = (number, digits = 2) => sign(number >= 0) + Math.abs(number).toFixed(digits);
  const many = (number, name) => `${number} ${name}${number === 1 ? "" : "s"}`;
  const mark = (like, title = like ? "liked" : "disliked") => {
    const element = el("span", like ? "sign up" : "sign down", sign(like));
    element.title = title;
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", element.title);
    return element;
  };
  const table = (head, rows) => {
    const cells = (row) => row.map((x, i) => el(i === 0 ? "th" : "td", "", x));
    const heads = el("tr", "", head.map((x) => el("th", "", x)));
    const body = el("tbody", "", rows.map((row) => el("tr", "", cells(row))));
    return el("div", "scroll", el("table", "", el("thead", "", heads), body));
  };
  // What stands in an element that opens is made when it opens.
  const opening = (style, summary, fill) => {
    const element = el("details", style, el("summary", "", summary));
    element.addEventListener("toggle", () => {
      if (element.open && element.childElementCount === 1) element.append(...[fill()].flat());
    });
    return element;
  };
  const opened = (element) => {
    element.open = true;
    return element;
  };

  // ---- words -----------------------------------------------------------------------------------------------

  const title = (item) => data.items[item][0];
  const words = (numbers) => numbers.map((number) => data.words[number]);
  const chips = (numbers, positive, matched) => {
    if (numbers.length === 0) return "none";
    const ordered = [...numbers].sort((a, b) => matched.has(b) - matched.has(a));
    return ordered.map((number) => {
      if (!matched.has(number)) return el("span", "chip", data.words[number]);
      return el("span", positive ? "chip pro" : "chip con", `${sign(positive)} `, el("u", "", data.words[number]));
    });
  };
  // The interactions before a recommendation: the history and the session so far.
  const interaction = (session, position) => {
    const before = session.history.length;
    if (position < before) return { item: session.history[position][0], like: session.history[position][1], when: "earlier" };
    const step = session.steps[position - before];
    return { item: step.item, like: step.like, when: `at step ${position - before + 1}` };
  };
  const card = (heading, item, lists) => {
    const [, categories] = data.items[item];
    const rows = [["Category", words(categories).join(", ") || "none"], ...lists];
    const list = el("dl", "", rows.map(([name, content]) => [el("dt", "", name), el("dd", "", content)]).flat());
    return el("div", "card", el("h4", "", heading, el("b", "", title(item))), list);
  };
  const recommended = (step, pros, cons) => {
    const [, , ownPros, ownCons] = data.items[step.item];
    const lists = [["Pros", chips(ownPros, true, pros)], ["Cons", chips(ownCons, false, cons)]];
    const element = card("Recommended", step.item, lists);
    element.classList.add("candidate");
    return element;
  };

  // ---- the reasons -----------------------------------------------------------------------------------------

  const earlier = (session, position, pros, cons, more = []) => {
    const { item, like, when } = interaction(session, position);
    const [, , ownPros, ownCons] = data.items[item];
    const heading = [mark(like), ` ${like ? "liked" : "disliked"} ${when}`];
    const lists = [];
    if (like || pros.size > 0) lists.push(["Pros", chips(ownPros, true, pros)]);
    if (!like || cons.size > 0) lists.push(["Cons", chips(ownCons, false, cons)]);
    return card(heading, item, [...lists, ...more]);
  };

  const flips = (step) => {
    if (step.flips === undefined) return []; // they were not looked for
    const turns = step.p === undefined ? "flips the decision" : "moves the probability across 1/2";
    if (step.all_flips === 0) return [el("p", "note", `No change that was tried ${turns}.`)];
    const lines = step.flips.map(([text, p]) => el("li", "", p === null ? text : `${text}: ${p.toFixed(3)}`));
    const rest = step.all_flips - step.flips.length;
    if (rest > 0) lines.push(el("li", "", `${rest} more such changes`));
    return [el("h3", "", `What ${turns}: any one of`), el("ul", "", lines)];
  };

  const voteTable = (session, step) => {
    const similar = (side) => {
      if (step.beta[side] === null) return "none";
      return `${step.beta[side].toFixed(2)}, ${title(interaction(session, step.similar[side]).item)}`;
    };
    const vote = (index) => {
      const text = step.coins[index] ? " (a tie: by a coin)" : "";
      return el("span", "", mark(step.votes[index]), text);
    };
    return table(["vote", "for a like", "against", "result"], [
      ["f_mat: keywords in common", `${many(step.alpha[1], "pro")} of liked items`, `${many(step.alpha[0], "con")} of disliked items`, vote(0)],
      ["f_sim: keywords alike", similar(1), similar(0), vote(1)],
      ["f_sta: ratings alike", `probability ${step.sta.toFixed(2)}`, `${(1 - step.sta).toFixed(2)}`, vote(2)],
    ]);
  };

  const voteReasons = (session, step) => {
    const both = [new Set(), new Set()]; // cons, pros
    const at = new Map(); // position to the words that match there
    for (const [word, side, positions] of step.matched) {
      both[side].add(word);
      for (const position of positions) at.set(position, (at.get(position) ?? new Set()).add(word));
    }
    const none = new Set();
    const ordered = [...at].sort((a, b) => b[1].size - a[1].size || b[0] - a[0]);
    const cards = ordered.slice(0, CARDS).map(([position, matched]) => {
      const { like } = interaction(session, position);
      return earlier(session, position, like ? matched : none, like ? none : matched);
    });
    const rest = ordered.length - cards.length;
    const read = step.read < step.all ? `the ${step.read} of ${step.all} earlier items that count here, those of the same category` : `all ${step.all} earlier items`;
    const note = `f_mat and f_sim read ${read}. ${ordered.length} of them share keywords` + (rest > 0 ? `; those with the most are shown.` : ".");
    return [
      voteTable(session, step),
      el("div", "cards", recommended(step, both[1], both[0]), cards),
      el("p", "note", note),
      ...flips(step),
    ];
  };

  const bars = (rows) => {
    const most = Math.max(0.001, ...rows.map(([, value]) => Math.abs(value)));
    const line = ([name, value]) => {
      const bar = el("i", value >= 0 ? "up" : "down");
      bar.style.width = `${(50 * Math.abs(value)) / most}%`;
      const label = el("span", "name", name);
      if (data.meanings[name]) label.append(el("small", "", data.meanings[name]));
      return el("li", "", label, el("span", "value", signed(value, 3)), el("span", "bar", bar));
    };
    return el("ul", "bars", rows.map(line));
  };

  const tasteReasons = (session, step) => {
    const both = [new Set(), new Set()];
    const cards = step.shares.map(([position, value, parts, pros, cons]) => {
      pros.forEach((word) => both[1].add(word));
      cons.forEach((word) => both[0].add(word));
      const text = parts.map(([name, x]) => `${name} ${signed(x)}`).join(", ") || "none";
      const share = el("span", value >= 0 ? "up" : "down", el("b", "", signed(value, 3)));
      return earlier(session, position, new Set(pros), new Set(cons), [["Share", share], ["Of which", text]]);
    });
    const [rest, sum] = step.rest;
    const note = rest > 0 ? `The ${rest} other earlier items add ${signed(sum, 3)} together.` : "";
    const drawn = Math.abs(step.p - step.posterior) > 0.005;
    return [
      drawn ? el("p", "note", `This user has a drawn taste, with a probability of ${step.p.toFixed(3)}. What follows explains the mean over tastes, ${step.posterior.toFixed(3)}.`) : null,
      el("h3", "", "Log-odds of a like: above 0, a like is more probable than not"),
      bars(step.sums),
      el("h3", "", "The taste, by what is alike"),
      bars(step.parts),
      el("h3", "", "The largest shares of the taste, by earlier item"),
      el("div", "cards", recommended(step, both[1], both[0]), cards),
      el("p", "note", note),
      ...flips(step),
    ].filter((part) => part !== null);
  };

  const slateReasons = (step) => {
    const rows = step.slate.map((item, place) => [
      `${place + 1}`, title(item), step.chances[place].toFixed(3), place === step.place ? el("span", "", mark(true, "an item was"), " chosen") : "",
    ]);
    rows.push(["", "none of them", step.chances[step.slate.length].toFixed(3), step.place < 0 ? el("span", "", mark(false, "none was"), " chosen") : ""]);
    return [table(["place", "item", "probability", "choice"], rows)];
  };

  // ---- the patterns that one can filter by -----------------------------------------------------------------

  const KINDS = {
    votes: {
      pattern: (step) => step.votes.map(sign).join(" "),
      name: (key) => `${key}  (${MODELS.join(", ")})`,
      tags: (step) => MODELS.map((model, i) => {
        const tag = el("span", step.votes[i] ? "vote up" : "vote down", `${model} ${sign(step.votes[i])}`);
        if (step.coins[i]) { tag.append("*"); tag.title = "a tie, decided by a coin"; }
        return tag;
      }),
      title: (step) => title(step.item),
      items: (step) => [step.item],
      reasons: voteReasons,
    },
    taste: {
      pattern: (step) => `${step.like ? "liked" : "disliked"}, p ${step.p >= 0.5 ? "from 1/2" : "below 1/2"}`,
      name: (key) => key,
      tags: (step) => {
        const [largest] = [...step.parts].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
        return [el("span", "vote", `p ${step.p.toFixed(2)}`), largest ? el("span", "vote", `${largest[0]} ${signed(largest[1])}`) : null];
      },
      title: (step) => title(step.item),
      items: (step) => [step.item],
      reasons: tasteReasons,
    },
    slate: {
      pattern: (step) => (step.place < 0 ? "none chosen" : `place ${step.place + 1} chosen`),
      name: (key) => key,
      tags: (step) => [el("span", "vote", `${step.slate.length} items`)],
      title: (step) => (step.place < 0 ? "none of the slate" : title(step.slate[step.place])),
      items: (step) => step.slate,
      reasons: (session, step) => slateReasons(step),
    },
  };

  const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
  const texts = new Map(); // of the items that were searched
  const found = (item, query) => {
    if (!texts.has(item)) {
      const [name, ...lists] = data.items[item];
      texts.set(item, plain([name, ...lists.flatMap(words)].join("\n")));
    }
    return texts.get(item).includes(query);
  };

  // ---- sessions --------------------------------------------------------------------------------------------

  const further = (step) => {
    const parts = [];
    if (step.session !== undefined) parts.push(`session ${step.session + 1} of the life, day ${step.day}`);
    if (step.rating !== undefined) parts.push(`rating ${step.rating}`);
    if (step.duration !== undefined) parts.push(`duration ${step.duration}`);
    if (step.departure_probability !== undefined) parts.push(`probability of leaving afterwards ${step.departure_probability}`);
    return parts.length === 0 ? [] : [el("p", "note", `${parts.join("; ")}.`)];
  };

  const stepLine = (kind, session, index, open) => {
    const step = session.steps[index];
    const summary = [
      el("span", "number", `${index + 1}`),
      mark(step.like),
      el("span", "title", kind.title(step)),
      el("span", "tags", kind.tags(step)),
    ];
    const line = opening("step", summary, () => [el("div", "reasons", kind.reasons(session, step), further(step))]);
    return el("li", "", open ? opened(line) : line);
  };

  const historyBlock = (session) => {
    const liked = session.history.filter(([, like]) => like).length;
    const summary = `History before the session: ${session.history.length} items, ${liked} liked, the latest last`;
    return opening("history", summary, () => el("ol", "", session.history.map(([item, like]) => {
      const [, , pros, cons] = data.items[item];
      return el("li", "", mark(like), " ", el("b", "", title(item)), el("small", "", ` ${words(like ? pros : cons).join(", ")}`));
    })));
  };

  const sessionBlock = (kind, session, number, shown, example) => {
    const liked = session.steps.filter((step) => step.like).length;
    const strip = el("span", "strip", session.steps.map((step) => el("i", step.like ? "up" : "down", sign(step.like))));
    strip.setAttribute("aria-hidden", "true");
    const who = session.group === "train" ? "" : ", held out from training";
    const heading = [
      el("span", "title", `Session ${number}: user ${session.user}${who}`),
      el("span", "count", `${liked} of ${session.steps.length} ${kind === KINDS.slate ? "with a choice" : "liked"}`),
      strip,
    ];
    return opening("session", heading, () => [
      session.differs ? el("p", "note", "On this machine the session went differently than in the evaluation of the run.") : null,
      historyBlock(session),
      el("ol", "steps", shown.map((index) => stepLine(kind, session, index, example && index === shown[0]))),
    ].filter((part) => part !== null));
  };

  const current = () => data.runs[run === null ? 0 : Number(run.value)];

  const show = () => {
    const { kind: name, sessions } = current();
    const kind = KINDS[name];
    const query = plain(search.value.trim());
    const chosen = pattern.value;
    const fits = (step) =>
      (chosen === "" || (chosen === "liked" && step.like) || (chosen === "disliked" && !step.like) || chosen === `=${kind.pattern(step)}`) &&
      (query === "" || kind.items(step).some((item) => found(item, query)));
    const filtered = chosen !== "" || query !== "";
    let [number, all] = [0, 0];
    const blocks = [];
    sessions.forEach((session, index) => {
      if (group.value !== "" && group.value !== session.group) return;
      const shown = [...session.steps.keys()].filter((step) => fits(session.steps[step]));
      all += session.steps.length;
      number += shown.length;
      if (shown.length > 0) blocks.push(sessionBlock(kind, session, index + 1, shown, blocks.length === 0));
    });
    results.replaceChildren(...blocks);
    blocks.slice(0, filtered ? blocks.length : 1).forEach(opened);
    status.textContent = `${number} of ${all} recommendations, in ${many(blocks.length, "session")}`;
  };

  const fillPatterns = () => {
    const { kind: name, sessions } = current();
    const counts = new Map([["liked", 0], ["disliked", 0]]);
    const chosen = pattern.value;
    for (const session of sessions) {
      if (group.value !== "" && group.value !== session.group) continue;
      for (const step of session.steps) {
        const fine = `=${KINDS[name].pattern(step)}`;
        const coarse = step.like ? "liked" : "disliked";
        counts.set(coarse, counts.get(coarse) + 1);
        counts.set(fine, (counts.get(fine) ?? 0) + 1);
      }
    }
    const option = (value, text) => {
      const element = el("option", "", text);
      element.value = value;
      return element;
    };
    const fine = [...counts.keys()].filter((key) => key.startsWith("=")).sort();
    const words = name === "slate" ? { liked: "an item chosen", disliked: "none chosen" } : { liked: "liked", disliked: "disliked" };
    const label = (key) => (key.startsWith("=") ? KINDS[name].name(key.slice(1)) : words[key]);
    pattern.replaceChildren(
      option("", "all"),
      ...["liked", "disliked", ...fine].map((key) => option(key, `${label(key)}: ${counts.get(key)}`)),
    );
    if (counts.has(chosen)) pattern.value = chosen;
  };

  if (run !== null) run.addEventListener("change", () => { fillPatterns(); show(); });
  group.addEventListener("change", () => { fillPatterns(); show(); });
  pattern.addEventListener("change", show);
  search.addEventListener("input", show);
  fillPatterns();
  show();
})();
