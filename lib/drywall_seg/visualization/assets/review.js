// Judging and correcting what the viewer shows: verdicts, the brush, undo, and the file that is saved.
const VERDICTS = { right: "right", wrong: "wrong", redraw: "to be redrawn" };

// COCO's run lengths: down the columns, beginning with what is outside.
function runLengths(mask, width, height) {
  const runs = [];
  let inside = false,
    run = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      if (Boolean(mask(y * width + x)) !== inside) {
        runs.push(run);
        run = 0;
        inside = !inside;
      }
      run++;
    }
  }
  return [...runs, run];
}

function startReview(viewer) {
  const { root, data, now, part, button, say } = viewer;
  const kept = new Map(); // by number: verdict, level, time, and what was painted
  const drafts = `drywall-seg ${root.dataset.viewer}`;
  let atRisk = false;
  const radios = [...root.querySelectorAll('input[type="radio"]')];
  for (const radio of radios) radio.name = `dws-${document.querySelectorAll("[data-started]").length}`; // one block may be there twice
  const of = (number) => kept.get(number) ?? { verdict: "" };
  viewer.keptLevel = () => of(now.number).level;
  viewer.isPainted = () => Boolean(of(now.number).strokes?.length);

  function keep(changes) {
    kept.set(now.number, { ...of(now.number), ...changes, level: now.level, time: new Date().toISOString() });
    if (!of(now.number).verdict && !of(now.number).strokes?.length) kept.delete(now.number);
    describe();
    store();
  }

  // Drafts stay in the browser until they are saved, where it allows that.
  function store() {
    try {
      localStorage.setItem(drafts, JSON.stringify([...kept]));
    } catch {
      atRisk = true; // no storage here: closing the page asks first
    }
  }

  function restore() {
    try {
      for (const [number, value] of JSON.parse(localStorage.getItem(drafts) ?? "[]"))
        if (data.views[number]) kept.set(number, value);
    } catch {
      return;
    }
    if (kept.size)
      say(
        "saved",
        `${kept.size} ${kept.size === 1 ? "judgement" : "judgements"} of before came back from this browser.`,
      );
  }

  function describe() {
    const view = data.views[now.number],
      { verdict, strokes } = of(now.number),
      painted = Boolean(strokes?.length);
    const can = view.understood && Boolean(view.sha256);
    part("review").disabled = !can;
    for (const radio of radios) radio.checked = radio.value === verdict;
    say("redraw-text", painted ? "Redrawn" : "To be redrawn");
    const meanings = {
      "": "Judge the mask, or paint what is missing and erase what is too much.",
      right: "What is marked becomes the truth of this photo.",
      wrong: "The truth of this photo becomes: nothing of it here.",
      redraw: painted
        ? "What is marked, as you painted it, becomes the truth of this photo."
        : "Noted only; paint it, and it becomes the truth.",
    };
    const coarse =
      view.factor > 1 && verdict ? ` As coarse as it is shown: ${view.factor} pixels of the photo are one here.` : "";
    say(
      "verdict-text",
      can ? meanings[verdict] + coarse : "This sentence is no label's own, so no truth can be made of it.",
    );
    button("undo").disabled = button("reset").disabled = !painted;
    const count = [...kept.values()].filter((value) => value.verdict).length;
    button("save").disabled = count === 0;
    button("save").textContent = count
      ? `Save ${count} ${count === 1 ? "correction" : "corrections"}`
      : "Save corrections";
    root.querySelectorAll(".dws-judged").forEach((text, number) => {
      text.textContent = VERDICTS[of(number).verdict] ? `✓ ${VERDICTS[of(number).verdict]}` : "";
    });
  }

  // A stroke is [value, diameter, x0, y0, x1, y1, ...]: they are drawn anew where a photo is shown again.
  function dab(code, { width, height }, value, diameter, x, y) {
    const radius = diameter / 2,
      top = Math.max(0, Math.ceil(y - radius)),
      bottom = Math.min(height - 1, Math.floor(y + radius));
    for (let row = top; row <= bottom; row++) {
      const half = Math.sqrt(radius * radius - (row - y) * (row - y));
      const left = Math.max(0, Math.ceil(x - half)),
        right = Math.min(width - 1, Math.floor(x + half));
      for (let column = left; column <= right; column++)
        code[row * width + column] = (code[row * width + column] & 511) | value;
    }
  }

  function segment(shown, stroke, index) {
    const [value, diameter] = stroke,
      x = stroke[index],
      y = stroke[index + 1];
    const fromX = stroke[index - 2] ?? x,
      fromY = stroke[index - 1] ?? y;
    const from = index < 4 ? [x, y] : [fromX, fromY];
    const steps = Math.max(1, Math.ceil((2 * Math.hypot(x - from[0], y - from[1])) / diameter));
    for (let step = 0; step <= steps; step++)
      dab(
        shown.code,
        shown,
        value,
        diameter,
        from[0] + ((x - from[0]) * step) / steps,
        from[1] + ((y - from[1]) * step) / steps,
      );
  }

  function applyStrokes(number, shown) {
    for (let i = 0; i < shown.code.length; i++) shown.code[i] &= 511;
    for (const stroke of of(number).strokes ?? [])
      for (let index = 2; index < stroke.length; index += 2) segment(shown, stroke, index);
  }

  viewer.beginStroke = (x, y) => {
    const stroke = [now.tool === "paint" ? 512 : 1024, Number(part("brush").value), x, y];
    viewer.stroke = stroke;
    keep({ strokes: [...(of(now.number).strokes ?? []), stroke], verdict: "redraw" });
    segment(now.shown, stroke, 2);
    viewer.draw();
  };
  viewer.extendStroke = (x, y) => {
    viewer.stroke.push(x, y);
    segment(now.shown, viewer.stroke, viewer.stroke.length - 2);
    viewer.draw();
  };
  viewer.endStroke = () => {
    viewer.stroke = null;
    store();
  };
  viewer.undo = (all = false) => {
    const strokes = all ? [] : (of(now.number).strokes ?? []).slice(0, -1);
    viewer.stroke = null;
    keep({ strokes, verdict: strokes.length || of(now.number).verdict !== "redraw" ? of(now.number).verdict : "" });
    applyStrokes(now.number, now.shown);
    viewer.draw();
  };

  const setTool = (tool) => {
    now.tool = part("stage").dataset.tool = tool;
    for (const name of ["look", "paint", "erase"]) button(name).setAttribute("aria-pressed", name === tool);
    part("ring").hidden = true;
  };
  for (const name of ["look", "paint", "erase"]) button(name).addEventListener("click", () => setTool(name));
  button("undo").addEventListener("click", () => viewer.undo());
  button("reset").addEventListener("click", () => viewer.undo(true));
  for (const radio of radios) radio.addEventListener("change", () => keep({ verdict: radio.value }));
  part("brush").addEventListener("input", () => say("brush-text", part("brush").value));
  root.addEventListener("arrive", () => {
    applyStrokes(now.number, now.shown);
    describe();
  });
  root.addEventListener("level", () => {
    if (now.shown && kept.has(now.number) && of(now.number).level !== now.level) keep({});
  });

  async function save() {
    const corrections = [];
    for (const [number, { verdict, level, time, strokes }] of kept) {
      if (!verdict) continue;
      const view = data.views[number],
        shown = await viewer.decodedOf(number);
      applyStrokes(number, shown);
      const [height, width] = view.size;
      const none = verdict === "wrong",
        unknown = verdict === "redraw" && !strokes?.length;
      corrections.push({
        sha256: view.sha256,
        name: view.name,
        prompt: view.prompt,
        label: view.label,
        height: view.own_size[0],
        width: view.own_size[1],
        verdict,
        threshold: thresholdOf(level),
        time,
        model: view.model,
        painted: Boolean(strokes?.length),
        factor: view.factor,
        size: [height, width],
        counts: unknown
          ? null
          : none
            ? [height * width]
            : runLengths((i) => isMarked(shown.code[i], level), width, height),
      });
    }
    const text = JSON.stringify({ format: data.format, made: new Date().toISOString(), corrections });
    const name = `corrections-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.json`;
    const link = Object.assign(document.createElement("a"), {
      href: URL.createObjectURL(new Blob([text], { type: "application/json" })),
      download: name,
    });
    root.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    atRisk = false;
    say("saved", `Saved as ${name}. Next: drywall-seg import-corrections ${name}, then train again.`);
  }
  button("save").addEventListener("click", () =>
    save().catch((error) => say("saved", `Could not be saved: ${error.message}`)),
  );
  window.addEventListener("beforeunload", (event) => {
    if (atRisk && root.isConnected) event.preventDefault();
  });

  setTool("look");
  say("brush-text", part("brush").value);
  restore();
}

// Mouse, pen and fingers on the photo.
function startPointers(viewer) {
  const { now, part } = viewer,
    stage = part("stage"),
    ring = part("ring"),
    down = new Map();
  const at = (event) => {
    const box = part("base").getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * now.shown.width - 0.5,
      ((event.clientY - box.top) / box.height) * now.shown.height - 0.5,
    ].map((value) => Math.round(value * 10) / 10);
  };
  const brushes = () => now.tool !== "look" && !part("review").disabled;
  const middle = () => {
    const [a, b] = [...down.values()];
    return {
      x: (a.clientX + b.clientX) / 2,
      y: (a.clientY + b.clientY) / 2,
      apart: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY),
    };
  };
  stage.addEventListener("pointerdown", (event) => {
    if (!now.shown || event.button > 0) return;
    stage.setPointerCapture(event.pointerId);
    down.set(event.pointerId, event);
    if (down.size === 2 && viewer.stroke) viewer.undo(); // the second finger wants to move, not to paint
    if (down.size === 1 && brushes()) viewer.beginStroke(...at(event));
  });
  stage.addEventListener("pointermove", (event) => {
    if (now.shown && brushes() && event.pointerType !== "touch") {
      const box = stage.getBoundingClientRect(),
        size = (part("brush").value / now.shown.width) * box.width * now.scale;
      Object.assign(ring.style, {
        left: `${event.clientX - box.left}px`,
        top: `${event.clientY - box.top}px`,
        width: `${size}px`,
        height: `${size}px`,
      });
      ring.hidden = false;
    }
    const before = down.get(event.pointerId);
    if (!before || !now.shown) return;
    if (down.size === 2) {
      const was = middle();
      down.set(event.pointerId, event);
      const is = middle();
      viewer.pan(is.x - was.x, is.y - was.y);
      viewer.zoom(is.apart / (was.apart || 1), is.x, is.y);
      return;
    }
    down.set(event.pointerId, event);
    if (viewer.stroke) for (const step of event.getCoalescedEvents?.() ?? [event]) viewer.extendStroke(...at(step));
    else if (!brushes()) viewer.pan(event.clientX - before.clientX, event.clientY - before.clientY);
  });
  const up = (event) => {
    down.delete(event.pointerId);
    if (viewer.stroke) viewer.endStroke();
  };
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) stage.addEventListener(name, up);
  stage.addEventListener("pointerleave", () => {
    ring.hidden = true;
  });
  viewer.root.addEventListener("leave", () => {
    down.clear();
    viewer.stroke = null;
  });
}
