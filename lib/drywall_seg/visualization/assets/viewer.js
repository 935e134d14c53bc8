// The viewer of masks by threshold. Everything it shows is in the block; it asks for nothing from anywhere.
function unpack(text, length) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer().then((buffer) => {
    if (buffer.byteLength !== length) throw new Error("the data of this photo are damaged");
    return new Uint8Array(buffer);
  });
}

function picture(address) {
  const image = new Image();
  image.src = address;
  return image.decode().then(
    () => image,
    () => {
      throw new Error("the photo cannot be shown");
    },
  );
}

// A pixel's code: its level, 256 where it is true, 512 where it is painted, 1024 where it is erased.
async function decode(view) {
  const [height, width] = view.size;
  const [photo, levels, truth] = await Promise.all([
    picture(view.photo),
    unpack(view.levels, height * width),
    view.truth ? unpack(view.truth, height * width) : null,
  ]);
  const code = new Uint16Array(height * width);
  for (let i = 0; i < code.length; i++) {
    if (i % width) levels[i] += levels[i - 1]; // stored as differences to the left, which pack better
    code[i] = levels[i] | (truth && truth[i] ? 256 : 0);
  }
  return { photo, code, width, height };
}

const thresholdOf = (level) => Math.floor((1000 * level) / 255) / 1000;
const isMarked = (code, level) => (code >= 512 ? code < 1024 : (code & 255) >= level);

function colorTable(level, showTruth, colors) {
  const packed = (hex) =>
    new Uint32Array(new Uint8Array([1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).concat(255)).buffer)[0];
  const found = packed(colors.found),
    both = showTruth ? packed(colors.both) : found,
    missed = showTruth ? packed(colors.missed) : 0;
  const table = new Uint32Array(1536);
  for (let code = 0; code < 1536; code++) {
    const truth = code & 256;
    table[code] = isMarked(code, level) ? (truth ? both : found) : truth ? missed : 0;
  }
  return table;
}

// tp, fp and fn by threshold, from the counts of levels over other and over true pixels of the whole photo.
function cumulate([others, truths]) {
  const fp = new Float64Array(257),
    tp = new Float64Array(257);
  for (let level = 255; level >= 0; level--) {
    fp[level] = fp[level + 1] + others[level];
    tp[level] = tp[level + 1] + truths[level];
  }
  return { fp, tp, all: fp[0] + tp[0], truths: tp[0] };
}

function countPixels(code, level) {
  let tp = 0,
    fp = 0,
    fn = 0;
  for (const value of code) {
    const truth = value & 256;
    if (isMarked(value, level)) truth ? tp++ : fp++;
    else if (truth) fn++;
  }
  return [tp, fp, fn];
}

function startViewer(root) {
  const parts = (name) => root.querySelectorAll(`[data-is="${name}"]`);
  const part = (name) => parts(name)[0];
  const button = (name) => root.querySelector(`[data-do="${name}"]`);
  const say = (name, text) => {
    if (part(name).textContent !== text) part(name).textContent = text;
  };
  const data = JSON.parse(part("data").textContent);
  for (const view of data.views) view.photo = data.photos[view.photo];
  const live = root.querySelector(".dws-live");
  live.innerHTML = part("controls").textContent;
  const stage = part("stage"),
    base = part("base"),
    marks = part("marks");
  const now = { number: -1, level: 0, before: false, shown: null, scale: 1, x: 0, y: 0 };
  const levels = {}; // the threshold last shown of each label
  const decoded = new Map();
  const viewer = { root, data, now, part, parts, button, say, draw, show, decodedOf, zoom, pan };

  function decodedOf(number) {
    if (!decoded.has(number)) {
      decoded.set(number, decode(data.views[number]));
      if (decoded.size > 8) decoded.delete([...decoded.keys()].find((key) => key !== number && key !== now.number));
    }
    return decoded.get(number);
  }

  async function show(number) {
    const view = data.views[number];
    now.number = number;
    now.shown = null;
    say("badge", "Loading…");
    part("badge").hidden = false;
    part("photo").value = number;
    describe(view);
    root.dispatchEvent(new CustomEvent("leave"));
    let shown;
    try {
      shown = await decodedOf(number);
    } catch (error) {
      decoded.delete(number);
      if (now.number === number) showError(error);
      return;
    }
    if (now.number !== number) return; // another was asked for meanwhile
    now.shown = shown;
    part("layers").hidden = false;
    now.counts = cumulate(view.histogram);
    for (const canvas of [base, marks]) [canvas.width, canvas.height] = [shown.width, shown.height];
    base.getContext("2d").drawImage(shown.photo, 0, 0, shown.width, shown.height);
    now.image = marks.getContext("2d").createImageData(shown.width, shown.height);
    now.pixels = new Uint32Array(now.image.data.buffer);
    stage.style.aspectRatio = shown.width / shown.height;
    stage.style.maxWidth = `${Math.round(620 * Math.min(1, shown.width / shown.height))}px`;
    zoom(1 / now.scale);
    root.dispatchEvent(new CustomEvent("arrive"));
    const kept = viewer.keptLevel();
    setLevel(kept ?? levels[view.label] ?? view.level, kept === undefined);
  }

  function showError(error) {
    say("badge", `Cannot be shown: ${error.message}`);
    part("layers").hidden = true; // it still has the photo of before
    part("review").disabled = true;
    for (const name of ["area", "iou", "dice", "tp", "fp", "fn", "figures-of"]) say(name, "");
  }

  function describe(view) {
    say(
      "about",
      [
        view.note,
        `presence ${view.presence.toFixed(3)}`,
        view.factor > 1 ? `shown at 1/${view.factor} of its size` : "",
      ]
        .filter(Boolean)
        .join("; "),
    );
    const warnings = [];
    if (!view.understood)
      warnings.push(
        `“${view.prompt}” is no sentence of the model's labels; it is taken for “${view.label}”, the nearest, and cannot be corrected.`,
      );
    if (view.presence < view.presence_cut)
      warnings.push(
        `Presence is under the model's cut of ${view.presence_cut.toFixed(3)}: it delivers an empty mask here. Shown is what it would mark.`,
      );
    say("warning", warnings.join(" "));
    const truth = part("truth");
    truth.disabled = !view.truth;
    say("truth-text", view.truth ? "Show the truth" : "No truth is known for this photo and sentence");
    for (const row of parts("scored")) row.hidden = !view.truth;
    button("stored").textContent = `Model's ${view.threshold.toFixed(3)}`;
    const place = viewer.listed.indexOf(now.number);
    button("previous").disabled = place <= 0;
    button("next").disabled = place === viewer.listed.length - 1;
    say("photo-count", `Photo ${place + 1} of ${viewer.listed.length}`);
    for (const thumb of root.querySelectorAll(".dws-strip button")) {
      if (Number(thumb.dataset.number) === now.number) thumb.setAttribute("aria-current", "true");
      else thumb.removeAttribute("aria-current");
    }
  }

  function setLevel(level, remembered = true) {
    now.level = Math.min(255, Math.max(0, Math.round(level)));
    const view = data.views[now.number];
    if (remembered) levels[view.label] = now.level;
    part("threshold").value = now.level;
    const text = (now.level === view.level ? view.threshold : thresholdOf(now.level)).toFixed(3);
    part("threshold").setAttribute("aria-valuetext", text);
    say("threshold-text", text);
    draw();
    root.dispatchEvent(new CustomEvent("level"));
  }

  function draw() {
    if (!now.shown) return;
    const { code } = now.shown,
      { pixels } = now,
      view = data.views[now.number];
    const showTruth = part("truth").checked && Boolean(view.truth);
    const table = colorTable(now.level, showTruth, data.colors);
    for (let i = 0; i < code.length; i++) pixels[i] = table[code[i]];
    marks.getContext("2d").putImageData(now.image, 0, 0);
    write(view, showTruth);
    root.dispatchEvent(new CustomEvent("drawn", { bubbles: true }));
  }

  function write(view, showTruth) {
    const { counts, level } = now,
      painted = viewer.isPainted();
    const [tp, fp, fn] = painted
      ? countPixels(now.shown.code, level)
      : [counts.tp[level], counts.fp[level], counts.truths - counts.tp[level]];
    const all = painted ? now.shown.code.length : counts.all;
    const area = `${((100 * (tp + fp)) / all).toFixed(2)} %`;
    const ratio = (part_, whole) => (whole ? part_ / whole : 1).toFixed(4);
    say("area", area);
    say("iou", ratio(tp, tp + fp + fn));
    say("dice", ratio(2 * tp, 2 * tp + fp + fn));
    say("tp", tp);
    say("fp", fp);
    say("fn", fn);
    say(
      "figures-of",
      painted
        ? "Of the mask as painted, at the size shown."
        : "Of the raw mask at this threshold, at the photo's own size.",
    );
    part("both").hidden = part("missed").hidden = !showTruth;
    say("found", showTruth ? "found, not true" : "found");
    const nothing = tp + fp === 0,
      none = Boolean(view.truth) && tp + fn === 0;
    const words = now.before
      ? "Photo alone"
      : [nothing ? "Nothing found at this threshold" : "", none && showTruth ? "Truth: nothing of it here" : ""]
          .filter(Boolean)
          .join(". ");
    say("badge", words);
    part("badge").hidden = !words;
    clearTimeout(now.speaking); // a screen reader hears where the slider came to rest, not each step
    now.speaking = setTimeout(
      () =>
        say(
          "spoken",
          `${nothing ? "Nothing found" : `${area} of the photo marked`} at threshold ${part("threshold-text").textContent}${view.truth ? `, IoU ${part("iou").textContent}` : ""}.`,
        ),
      400,
    );
  }

  function setBefore(before) {
    now.before = before;
    marks.style.visibility = before ? "hidden" : "visible";
    button("before").setAttribute("aria-pressed", before);
    draw();
  }

  function place() {
    const { width, height } = stage.getBoundingClientRect();
    now.x = Math.min(0, Math.max(width * (1 - now.scale), now.x));
    now.y = Math.min(0, Math.max(height * (1 - now.scale), now.y));
    part("layers").style.transform = `translate(${now.x}px, ${now.y}px) scale(${now.scale})`;
    part("layers").toggleAttribute("data-close", now.shown && (now.scale * width) / now.shown.width > 3);
    stage.toggleAttribute("data-zoomed", now.scale > 1);
    button("farther").disabled = button("whole").disabled = now.scale <= 1;
    button("closer").disabled = now.scale >= 32;
  }

  function zoom(factor, clientX, clientY) {
    const box = stage.getBoundingClientRect();
    const x = clientX === undefined ? box.width / 2 : clientX - box.left,
      y = clientY === undefined ? box.height / 2 : clientY - box.top;
    const scale = Math.min(32, Math.max(1, now.scale * factor));
    now.x = x - ((x - now.x) * scale) / now.scale;
    now.y = y - ((y - now.y) * scale) / now.scale;
    now.scale = scale;
    place();
  }

  function pan(x, y) {
    now.x += x;
    now.y += y;
    place();
  }

  function move(steps) {
    const next = viewer.listed[viewer.listed.indexOf(now.number) + steps];
    if (next !== undefined) show(next);
  }

  const option = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });
  const prompts = [...new Set(data.views.map((view) => view.prompt))];
  part("prompt-box").hidden = prompts.length < 2;
  part("prompt").append(option("", "all"), ...prompts.map((prompt, number) => option(number, prompt)));

  function list(prompt) {
    viewer.listed = [...data.views.keys()].filter(
      (number) => prompt === undefined || data.views[number].prompt === prompt,
    );
    const several = prompt === undefined && prompts.length > 1;
    part("photo").replaceChildren(
      ...viewer.listed.map((number) =>
        option(number, data.views[number].name + (several ? ` · ${data.views[number].prompt}` : "")),
      ),
    );
    for (const thumb of root.querySelectorAll(".dws-strip button"))
      thumb.parentElement.hidden = !viewer.listed.includes(Number(thumb.dataset.number));
  }

  part("prompt").addEventListener("change", () => {
    const name = data.views[now.number].name;
    list(prompts[part("prompt").value]);
    show(viewer.listed.find((number) => data.views[number].name === name) ?? viewer.listed[0]);
  });
  part("photo").addEventListener("change", () => show(Number(part("photo").value)));
  part("threshold").addEventListener("input", () => setLevel(Number(part("threshold").value)));
  part("truth").addEventListener("change", draw);
  part("opacity").addEventListener("input", setOpacity);
  function setOpacity() {
    marks.style.opacity = part("opacity").value / 100;
    say("opacity-text", `${part("opacity").value} %`);
  }
  const actions = {
    previous: () => move(-1),
    next: () => move(1),
    before: () => setBefore(!now.before),
    closer: () => zoom(1.5),
    farther: () => zoom(1 / 1.5),
    whole: () => zoom(1 / now.scale),
    stored: () => setLevel(data.views[now.number].level),
  };
  for (const [name, action] of Object.entries(actions)) button(name).addEventListener("click", action);
  const keys = {
    " ": actions.before,
    PageUp: actions.previous,
    PageDown: actions.next,
    "+": actions.closer,
    "=": actions.closer,
    "-": actions.farther,
    0: actions.whole,
    w: () => pan(0, 60),
    s: () => pan(0, -60),
    a: () => pan(60, 0),
    d: () => pan(-60, 0),
    z: () => button("undo").click(),
  };
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const action = step
      ? () => setLevel(now.level + step * (event.shiftKey ? 10 : 1))
      : (keys[event.key] ?? keys[event.key.toLowerCase()]);
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  });
  stage.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey) return; // the wheel alone scrolls the page
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 200), event.clientX, event.clientY);
    },
    { passive: false },
  );
  new ResizeObserver(place).observe(stage);

  list();
  if (part("strip")) startStrip(viewer);
  startReview(viewer);
  startPointers(viewer);
  setOpacity();
  // JupyterLab takes the arrow keys of what has the focus, unless the thing itself says not to.
  for (const control of root.querySelectorAll("button, select, input, summary, [tabindex]"))
    control.dataset.lmSuppressShortcuts = "true";
  root.querySelector(".dws-still").hidden = true;
  live.hidden = false;
  show(0);
}

// Small pictures of all photos, each loaded when it comes near.
function startStrip(viewer) {
  const near = new IntersectionObserver(
    (entries) =>
      entries
        .filter((entry) => entry.isIntersecting)
        .forEach(({ target }) => {
          target.src = viewer.data.views[target.dataset.number].photo;
          near.unobserve(target);
        }),
    { rootMargin: "200px" },
  );
  viewer.part("strip").append(
    ...viewer.data.views.map((view, number) => {
      const item = document.createElement("li"),
        button = document.createElement("button"),
        box = document.createElement("span"),
        image = document.createElement("img");
      Object.assign(button, { type: "button" }).dataset.number = image.dataset.number = number;
      image.alt = "";
      box.className = "dws-thumb";
      const texts = [view.name, view.prompt, view.note]
        .filter(Boolean)
        .map((text) => Object.assign(document.createElement("span"), { textContent: text, dir: "auto" }));
      const judged = Object.assign(document.createElement("span"), { className: "dws-judged" });
      box.append(image);
      button.append(box, ...texts, judged);
      button.addEventListener("click", () => {
        viewer.show(number);
        viewer.root.scrollIntoView({ block: "start" });
        viewer.part("stage").focus({ preventScroll: true });
      });
      near.observe(image);
      item.append(button);
      return item;
    }),
  );
}
