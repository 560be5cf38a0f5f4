"use strict";
// The page's behaviour: one clock for media and timeline, drawing, and what follows when a passage
// is left out. The summary's rules are those of trend.py; a test holds the two together.
(() => {
  const view = JSON.parse(document.getElementById("view").textContent);
  const byId = (id) => document.getElementById(id);
  const { utterances, duration, rules } = view;
  const START = 0, END = 1, SCORE = 2, LOW = 3, HIGH = 4, DOUBTFUL = 5;
  const leftOut = new Set();
  let shown = { trend: view.trend.values, turning: view.turning };

  // Words and numbers

  const clock = (seconds) => {
    const whole = Math.max(0, Math.floor(seconds));
    const two = (n) => String(n).padStart(2, "0");
    const rest = `${Math.floor(whole / 60) % 60}:${two(whole % 60)}`;
    return whole < 3600 ? rest : `${Math.floor(whole / 3600)}:${rest.padStart(5, "0")}`;
  };
  const signed = (value, digits = 2) => {
    const text = Math.abs(value).toFixed(digits);
    return (value < 0 && Number(text) !== 0 ? "\u2212" : "+") + text;
  };
  const secondsOf = (text) => {
    const parts = text.trim().split(":").map(Number);
    if (!parts.length || parts.length > 3 || parts.some((n) => !(n >= 0))) return null;
    return parts.reduce((sum, n) => sum * 60 + n, 0);
  };
  const signOf = (score) => (score > view.middle ? "pos" : score < view.middle ? "neg" : "none");
  const wordsOf = (number) => [...document.querySelectorAll(`#u${number} .w`)];

  // Rules of trend.py

  const isUsed = (number) => utterances[number][SCORE] !== null && !leftOut.has(number);
  const used = () => utterances.map((_, k) => k).filter(isUsed);

  function summarised() {
    const numbers = used();
    if (!numbers.length) return { num_utterances: 0, seconds: 0, mean: null, positive: null, negative: null, highest: null, lowest: null };
    const seconds = numbers.map((k) => utterances[k][END] - utterances[k][START]);
    const weights = seconds.map((s) => Math.max(s, 0.001));
    const total = weights.reduce((a, b) => a + b, 0);
    const share = (test) => numbers.reduce((sum, k, n) => sum + (test(utterances[k][SCORE]) ? weights[n] : 0), 0) / total;
    const best = (sign) => numbers.reduce((a, b) => (sign * utterances[b][SCORE] > sign * utterances[a][SCORE] ? b : a));
    return {
      num_utterances: numbers.length,
      seconds: seconds.reduce((a, b) => a + b, 0),
      mean: numbers.reduce((sum, k, n) => sum + utterances[k][SCORE] * weights[n], 0) / total,
      positive: share((score) => score > view.middle),
      negative: share((score) => score < view.middle),
      highest: best(1),
      lowest: best(-1),
    };
  }

  function smoothed() {
    const numbers = used();
    if (!numbers.length) return [];
    const { bandwidth, times } = view.trend;
    return times.map((time) => {
      let nearest = Infinity, gap = Infinity;
      for (const k of numbers) {
        const distance = Math.abs(time - (utterances[k][START] + utterances[k][END]) / 2);
        nearest = Math.min(nearest, distance);
        gap = Math.min(gap, Math.max(distance - (utterances[k][END] - utterances[k][START]) / 2, 0));
      }
      if (gap > rules.far * bandwidth) return null;
      let sum = 0, total = 0;
      for (const k of numbers) {
        const distance = Math.abs(time - (utterances[k][START] + utterances[k][END]) / 2);
        const weight = Math.exp((nearest ** 2 - distance ** 2) / (2 * bandwidth ** 2)) *
          Math.max(utterances[k][END] - utterances[k][START], 0.1);
        sum += weight * utterances[k][SCORE];
        total += weight;
      }
      return sum / total;
    });
  }

  function turningPoints(values) {
    const found = [];
    let first = 0;
    for (let place = 0; place <= values.length; place++) {
      if (place < values.length && values[place] !== null) continue;
      const run = values.slice(first, place);
      for (const [sign, kind] of [[1, "peak"], [-1, "low"]]) {
        for (const [at, change] of peaks(run.map((v) => sign * v))) {
          const time = view.trend.times[first + at];
          found.push({ time, value: run[at], kind, change, quote: quote(time) });
        }
      }
      first = place + 1;
    }
    return found.sort((a, b) => a.time - b.time);
  }

  // Maxima and how far they stand out: the smaller of the falls to either side.
  function peaks(values) {
    const found = [];
    for (let k = 1; k < values.length - 1; k++) {
      if (!(values[k - 1] < values[k])) continue;
      let after = k + 1;
      while (after < values.length - 1 && values[after] === values[k]) after++;
      if (values[after] < values[k]) {
        const at = (k + after - 1) >> 1;
        const fall = (step) => {
          let least = values[at];
          for (let n = at; n >= 0 && n < values.length && values[n] <= values[at]; n += step) least = Math.min(least, values[n]);
          return values[at] - least;
        };
        const change = Math.min(fall(-1), fall(1));
        if (change >= rules.least) found.push([at, change]);
      }
      k = after - 1;
    }
    return found;
  }

  function quote(time) {
    const words = utterances.flatMap((_, k) => (leftOut.has(k) ? [] : wordsOf(k)));
    if (!words.length) return "";
    const middle = (k) => (Number(words[k].dataset.s) + Number(words[k].dataset.e)) / 2;
    let nearest = 0;
    for (let k = 1; k < words.length; k++) {
      if (Math.abs(middle(k) - time) < Math.abs(middle(nearest) - time)) nearest = k;
    }
    const first = Math.max(Math.min(nearest - (rules.quoted >> 1), words.length - rules.quoted), 0);
    const last = Math.min(first + rules.quoted, words.length);
    const text = words.slice(first, last).map((w) => w.textContent).join(" ");
    return `${first ? "... " : ""}${text}${last < words.length ? " ..." : ""}`;
  }

  // Summary, and what is left out

  const moodOf = (score) => (view.moods.find(([upTo]) => score <= upTo) || view.moods[view.moods.length - 1])[1];

  function showSummary() {
    const told = summarised();
    const put = (name, text, sign = "") => {
      for (const at of document.querySelectorAll(`[data-of="${name}"]`)) {
        at.textContent = text;
        if (at.classList.contains("value")) at.className = `value ${sign}`;
      }
    };
    const nothing = told.mean === null;
    put("mean", nothing ? "-" : signed(told.mean), nothing ? "" : signOf(told.mean));
    put("mood", nothing ? "nothing is scored" : moodOf(told.mean));
    put("positive", nothing ? "-" : Math.round(100 * told.positive));
    put("negative", nothing ? "-" : Math.round(100 * told.negative));
    put("seconds", clock(told.seconds + 0.5));
    put("scored", `${told.num_utterances} ${told.num_utterances === 1 ? "utterance" : "utterances"}`);
    for (const end of ["highest", "lowest"]) {
      const score = nothing ? null : utterances[told[end]][SCORE];
      put(end, nothing ? "-" : signed(score), nothing ? "" : signOf(score));
      for (const button of document.querySelectorAll(`[data-jump="${end}"]`)) {
        button.disabled = nothing;
        button.onclick = () => seek(utterances[told[end]][START], { play: true });
        button.textContent = nothing ? "-" : `at ${clock(utterances[told[end]][START])}`;
        if (!nothing) button.setAttribute("aria-label", `Play the ${end} at ${clock(utterances[told[end]][START])}`);
      }
    }
    const note = byId("left-out-note");
    const number = leftOut.size;
    if (note) note.textContent = number ? `${number} ${number === 1 ? "utterance is" : "utterances are"} left out of these numbers and of the trend.` : "";
    const all = byId("include-all");
    if (all) all.hidden = !number;
  }

  function showTurns() {
    const list = byId("turn-list");
    if (!list) return;
    list.replaceChildren(...shown.turning.map((point) => {
      const item = document.createElement("li");
      item.className = point.kind;
      const go = document.createElement("button");
      go.type = "button";
      go.className = "seek";
      go.dataset.to = point.time;
      go.textContent = clock(point.time);
      go.setAttribute("aria-label", `Go to ${clock(point.time)}`);
      const kind = document.createElement("span");
      kind.className = "kind";
      const score = document.createElement("b");
      score.textContent = signed(point.value);
      kind.append(score, point.kind === "peak" ? " a peak" : " a low");
      const words = document.createElement("q");
      words.dir = "auto";
      words.textContent = point.quote;
      item.append(go, kind, words);
      return item;
    }));
    byId("no-turns").hidden = shown.turning.length > 0;
  }

  function followLeftOut() {
    if (leftOut.size) {
      const trend = smoothed();
      shown = { trend, turning: turningPoints(trend) };
    } else {
      shown = { trend: view.trend.values, turning: view.turning };
    }
    for (const button of document.querySelectorAll(".leave-out")) {
      const out = leftOut.has(Number(button.dataset.number));
      button.setAttribute("aria-pressed", String(out));
      button.textContent = out ? "Left out" : "Leave out";
      byId(`u${button.dataset.number}`).classList.toggle("left-out", out);
    }
    showSummary();
    showTurns();
    draw();
  }

  function leaveOut(from, to) {
    let number = 0;
    utterances.forEach((one, k) => {
      const middle = (one[START] + one[END]) / 2;
      if (one[SCORE] !== null && middle >= from && middle <= to && !leftOut.has(k)) {
        leftOut.add(k);
        number++;
      }
    });
    followLeftOut();
    return number;
  }

  // The clock

  const media = byId("media");
  let position = 0;
  let playable = true;
  media.addEventListener("error", () => {
    playable = false;
    byId("media-note").hidden = false;
    media.hidden = true;
  });

  media.addEventListener("loadeddata", () => {
    byId("pictures-note").hidden = media.tagName !== "VIDEO" || media.videoWidth > 0;
  });

  function seek(seconds, { play = false } = {}) {
    position = Math.min(Math.max(seconds, 0), duration);
    if (playable) {
      try { media.currentTime = position; } catch { /* not loaded yet */ }
      if (play) media.play().catch(() => {});
    }
    keepVisible();
    showNow();
  }
  media.addEventListener("timeupdate", () => { if (!media.paused || media.seeking) follow(); });
  media.addEventListener("seeked", follow);
  media.addEventListener("play", () => requestAnimationFrame(tick));
  function tick() {
    follow();
    if (!media.paused && !media.ended) requestAnimationFrame(tick);
  }
  function follow() {
    if (Math.abs(media.currentTime - position) < 0.01) return;
    position = media.currentTime;
    keepVisible();
    showNow();
  }

  let current = null, spoken = null;
  function utteranceAt(time) {
    return utterances.findIndex((one) => time >= one[START] - 0.001 && time < one[END]);
  }
  function showNow() {
    byId("now-time").textContent = clock(position);
    const number = utteranceAt(position);
    const slider = byId("seek");
    slider.setAttribute("aria-valuenow", position.toFixed(1));
    if (number !== current) {
      document.querySelector(".utterance.current")?.classList.remove("current");
      current = number;
      const words = byId("now-words");
      words.replaceChildren();
      if (number >= 0) {
        byId(`u${number}`).classList.add("current");
        words.append(...wordsOf(number).flatMap((w) => [w.cloneNode(true), " "]));
      }
      showScore(number);
    }
    if (number >= 0) {
      spoken?.classList.remove("spoken");
      const said = [...byId("now-words").querySelectorAll(".w")].filter((w) => Number(w.dataset.s) <= position + 0.02);
      spoken = said.length ? said[said.length - 1] : null;
      spoken?.classList.add("spoken");
    }
    const score = number >= 0 && utterances[number][SCORE] !== null ? `, score ${signed(utterances[number][SCORE])}` : ", nothing said";
    slider.setAttribute("aria-valuetext", clock(position) + score);
    for (const lane of lanes) lane.showNow();
    draw();
  }
  function showScore(number) {
    const one = number >= 0 ? utterances[number] : null;
    const known = one && one[SCORE] !== null;
    byId("now-score").textContent = known ? signed(one[SCORE]) : "\u2013";
    byId("now-score").parentElement.className = `now-score ${known ? signOf(one[SCORE]) : ""}`;
    byId("now-band").textContent = known && one[LOW] !== null ? `${signed(one[LOW], 1)} to ${signed(one[HIGH], 1)}` : known ? moodOf(one[SCORE]) : one ? "no score" : "nothing is said here";
    const doubts = number >= 0 ? [...document.querySelectorAll(`#u${number} .doubt`)].map((p) => p.textContent) : [];
    byId("now-doubts").textContent = doubts.join("; ");
  }

  // What of the clip is shown

  let window_ = [0, duration];
  const LEAST_WINDOW = Math.min(4, duration);
  function setWindow(from, length) {
    const size = Math.min(Math.max(length, LEAST_WINDOW), duration);
    const start = Math.min(Math.max(from, 0), duration - size);
    window_ = [start, start + size];
    byId("window").textContent = size < duration ? `${clock(start)} to ${clock(start + size)}` : "";
    byId("zoom-in").disabled = size <= LEAST_WINDOW;
    byId("zoom-out").disabled = byId("zoom-all").disabled = size >= duration;
    byId("overview").hidden = size >= duration;
    draw();
  }
  function zoom(factor) {
    const size = (window_[1] - window_[0]) * factor;
    setWindow(position - size / 2, size);
  }
  function keepVisible() {
    const size = window_[1] - window_[0];
    if (position < window_[0] || position > window_[1]) setWindow(position - size * 0.1, size);
  }
  byId("zoom-in").onclick = () => zoom(0.5);
  byId("zoom-out").onclick = () => zoom(2);
  byId("zoom-all").onclick = () => setWindow(0, duration);

  // Drawing

  let colours = {};
  function readColours() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["page", "surface", "ink", "muted", "line", "accent", "pos", "neg", "gap", "band", "trend"]) {
      colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    colours.font = `11px ${style.getPropertyValue("--font")}`;
  }
  function surfaceOf(canvas) {
    const scale = globalThis.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    return { pen, width, height };
  }
  const across = (time, width, [from, to] = window_) => ((time - from) / (to - from)) * width;
  const timeAt = (x, width, [from, to] = window_) => from + (x / width) * (to - from);

  function hatch(pen, x, y, w, h, colour, step, slope) {
    pen.save();
    pen.beginPath();
    pen.rect(x, y, w, h);
    pen.clip();
    pen.strokeStyle = colour;
    pen.lineWidth = 1;
    pen.beginPath();
    for (let at = Math.floor((x - h) / step) * step; at < x + w + h; at += step) {
      pen.moveTo(at, y + (slope > 0 ? h : 0));
      pen.lineTo(at + h, y + (slope > 0 ? 0 : h));
    }
    pen.stroke();
    pen.restore();
  }

  function drawGaps(pen, width, height, what, range = window_) {
    pen.fillStyle = colours.gap;
    for (const [start, end, kind] of view.gaps) {
      if (kind !== what || end < range[0] || start > range[1]) continue;
      const x = across(start, width, range);
      pen.fillRect(x, 0, across(end, width, range) - x, height);
    }
  }
  function drawHead(pen, width, height, range = window_) {
    const x = across(position, width, range);
    if (x < -1 || x > width + 1) return;
    pen.fillStyle = colours.accent;
    pen.fillRect(x - 1, 0, 2, height);
  }
  function timeTicks(pen, width, height) {
    const span = window_[1] - window_[0];
    const steps = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
    const step = steps.find((s) => (s / span) * width >= 56) || 3600;
    pen.fillStyle = colours.muted;
    pen.strokeStyle = colours.line;
    pen.font = colours.font;
    pen.textBaseline = "bottom";
    pen.textAlign = "center";
    pen.lineWidth = 1;
    for (let time = Math.ceil(window_[0] / step) * step; time <= window_[1]; time += step) {
      const x = across(time, width);
      const label = step < 1 ? `${time.toFixed(1)} s` : clock(time);
      if (x > 14 && x < width - 14) pen.fillText(label, x, height);
      pen.beginPath();
      pen.moveTo(x, height - 16);
      pen.lineTo(x, height - 13);
      pen.stroke();
    }
  }

  const scoreCanvas = byId("score");
  let chosen = null; // a passage that is being dragged
  function drawScore() {
    const { pen, width, height } = surfaceOf(scoreCanvas);
    const top = 10, bottom = height - 20;
    const up = (score) => bottom - ((score - view.low) / (view.high - view.low)) * (bottom - top);
    drawGaps(pen, width, bottom + 4, "no speech");
    drawScale(pen, width, up);
    for (let k = 0; k < utterances.length; k++) drawUtterance(pen, width, top, bottom, up, k);
    drawTrend(pen, width, up);
    drawTurns(pen, width, up);
    if (chosen) {
      const x = across(chosen[0], width);
      pen.globalAlpha = 0.18;
      pen.fillStyle = colours.accent;
      pen.fillRect(x, 0, across(chosen[1], width) - x, bottom);
      pen.globalAlpha = 1;
    }
    timeTicks(pen, width, height);
    drawHead(pen, width, bottom + 4);
  }
  function drawScale(pen, width, up) {
    pen.font = colours.font;
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    const step = view.high - view.low > 12 ? 5 : view.high - view.low <= 2.5 ? 0.5 : 1;
    for (let score = Math.ceil(view.low / step) * step; score <= view.high; score += step) {
      const y = Math.round(up(score)) + 0.5;
      const isMiddle = Math.abs(score - view.middle) < 1e-9;
      pen.strokeStyle = isMiddle ? colours.muted : colours.line;
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(0, y);
      pen.lineTo(width, y);
      pen.stroke();
    }
  }
  function drawScaleLabels(pen, up) {
    pen.fillStyle = colours.muted;
    pen.font = colours.font;
    pen.textAlign = "left";
    for (const [score, base] of [[view.high, "top"], [view.middle, "bottom"], [view.low, "bottom"]]) {
      pen.textBaseline = base;
      pen.fillText(score > 0 ? `+${score}` : `${score}`.replace("-", "\u2212"), 3, up(score) + (base === "top" ? 2 : -2));
    }
  }
  function drawUtterance(pen, width, top, bottom, up, k) {
    const [start, end, score, low, high, isDoubtful] = utterances[k];
    if (end < window_[0] || start > window_[1]) return;
    const x = across(start, width), w = Math.max(across(end, width) - x, 1.5);
    if (score === null) {
      hatch(pen, x, top, w, bottom - top, colours.muted, 7, 1);
      return;
    }
    const isOut = leftOut.has(k);
    const colour = isOut ? colours.muted : colours[signOf(score)] || colours.muted;
    if (low !== null && !isOut) {
      pen.globalAlpha = 0.16;
      pen.fillStyle = colours.band;
      pen.fillRect(x, up(high), w, up(low) - up(high));
      pen.globalAlpha = 1;
    }
    pen.globalAlpha = isOut ? 0.12 : 0.32;
    pen.fillStyle = colour;
    pen.fillRect(x, Math.min(up(score), up(view.middle)), w, Math.abs(up(score) - up(view.middle)));
    pen.globalAlpha = 1;
    if (isDoubtful && !isOut) hatch(pen, x, Math.min(up(score), up(view.middle)) - 5, w, Math.abs(up(score) - up(view.middle)) + 10, colours.ink, 4, 1);
    if (isOut) hatch(pen, x, top, w, bottom - top, colours.muted, 6, -1);
    pen.fillStyle = colour;
    pen.fillRect(x, up(score) - 1.5, w, 3);
  }
  function drawTrend(pen, width, up) {
    const { times } = view.trend;
    pen.strokeStyle = colours.trend;
    pen.lineWidth = 2;
    pen.lineJoin = "round";
    pen.beginPath();
    let isDown = false;
    shown.trend.forEach((value, k) => {
      if (value === null) { isDown = false; return; }
      const x = across(times[k], width), y = up(value);
      if (isDown) pen.lineTo(x, y); else pen.moveTo(x, y);
      isDown = true;
    });
    pen.stroke();
    drawScaleLabels(pen, up);
  }
  function drawTurns(pen, width, up) {
    for (const { time, value, kind } of shown.turning) {
      const x = across(time, width), y = up(value), sign = kind === "peak" ? -1 : 1;
      pen.fillStyle = colours.surface;
      pen.strokeStyle = colours.trend;
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.moveTo(x, y + sign * 4);
      pen.lineTo(x - 5, y + sign * 12);
      pen.lineTo(x + 5, y + sign * 12);
      pen.closePath();
      pen.fill();
      pen.stroke();
    }
  }

  const overview = byId("overview");
  function drawOverview() {
    if (overview.hidden) return;
    const { pen, width, height } = surfaceOf(overview);
    const whole = [0, duration];
    pen.fillStyle = colours.page;
    pen.fillRect(0, 0, width, height);
    drawGaps(pen, width, height, "no speech", whole);
    const up = (score) => height - 3 - ((score - view.low) / (view.high - view.low)) * (height - 6);
    for (const [k, [start, end, score]] of utterances.entries()) {
      if (score === null || leftOut.has(k)) continue;
      pen.fillStyle = colours[signOf(score)] || colours.muted;
      const x = across(start, width, whole), y = Math.min(up(score), up(view.middle));
      pen.fillRect(x, y, Math.max(across(end, width, whole) - x, 1), Math.max(Math.abs(up(score) - up(view.middle)), 1));
    }
    pen.strokeStyle = colours.accent;
    pen.lineWidth = 2;
    const x = across(window_[0], width, whole);
    pen.strokeRect(x + 1, 1, Math.max(across(window_[1], width, whole) - x - 2, 3), height - 2);
    drawHead(pen, width, height, whole);
  }

  // Tracks of the voice and of the face

  function laneOf(element) {
    const track = view.tracks.find((one) => one.name === element.dataset.track);
    const canvas = element.querySelector("canvas");
    const sorted = track.values.filter((v) => v !== null).sort((a, b) => a - b);
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
    let low = sorted.length ? at(0.005) : 0, high = sorted.length ? at(0.995) : 1;
    if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
    const digits = high - low >= 20 ? 0 : high - low >= 2 ? 1 : 2;
    const median = sorted.length ? at(0.5) : null;
    canvas.setAttribute("aria-label", sorted.length
      ? `${canvas.getAttribute("aria-label")}; from ${low.toFixed(digits)} to ${high.toFixed(digits)} ${track.unit}, median ${median.toFixed(digits)}`
      : `${canvas.getAttribute("aria-label")}; nothing is measured`);
    const now = element.querySelector("[data-now]");
    const valueAt = (time) => track.values[Math.floor(time * track.rate + 1e-6)];
    return {
      canvas,
      showNow() {
        const value = valueAt(position);
        now.textContent = value === null || value === undefined ? "\u2013" : `${value.toFixed(digits).replace("-", "\u2212")} ${track.unit}`;
      },
      draw() {
        const { pen, width, height } = surfaceOf(canvas);
        drawGaps(pen, width, height, track.kind === "face" ? "no face" : "no speech");
        const up = (value) => height - 4 - ((Math.min(Math.max(value, low), high) - low) / (high - low)) * (height - 8);
        drawLine(pen, width, track, up);
        pen.fillStyle = colours.muted;
        pen.font = colours.font;
        pen.textAlign = "left";
        pen.textBaseline = "top";
        if (sorted.length) pen.fillText(high.toFixed(digits).replace("-", "\u2212"), 3, 1);
        pen.textBaseline = "bottom";
        if (sorted.length) pen.fillText(low.toFixed(digits).replace("-", "\u2212"), 3, height - 1);
        drawHead(pen, width, height);
      },
    };
  }
  // A line where values are apart on the screen, else the least and greatest of each column.
  function drawLine(pen, width, track, up) {
    const first = Math.max(Math.floor(window_[0] * track.rate), 0);
    const last = Math.min(Math.ceil(window_[1] * track.rate), track.values.length - 1);
    pen.strokeStyle = track.kind === "face" ? colours.muted : colours.accent;
    pen.lineWidth = 1.25;
    pen.lineJoin = "round";
    pen.beginPath();
    const perColumn = (last - first) / Math.max(width, 1);
    if (perColumn <= 2) {
      let isDown = false;
      for (let k = first; k <= last; k++) {
        const value = track.values[k];
        if (value === null) { isDown = false; continue; }
        const x = across((k + 0.5) / track.rate, width), y = up(value);
        if (isDown) pen.lineTo(x, y);
        else { pen.moveTo(x - 0.6, y); pen.lineTo(x, y); }
        isDown = true;
      }
    } else {
      for (let x = 0; x < width; x++) {
        let least = Infinity, most = -Infinity;
        for (let k = Math.floor(first + x * perColumn); k < first + (x + 1) * perColumn && k <= last; k++) {
          const value = track.values[k];
          if (value === null) continue;
          least = Math.min(least, value);
          most = Math.max(most, value);
        }
        if (most < least) continue;
        pen.moveTo(x + 0.5, up(least) + 0.6);
        pen.lineTo(x + 0.5, up(most) - 0.6);
      }
    }
    pen.stroke();
  }
  const lanes = [...document.querySelectorAll("[data-track]")].map(laneOf);

  let isDue = false;
  function draw() {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      drawScore();
      drawOverview();
      for (const lane of lanes) lane.draw();
    });
  }

  // Pointer and keys

  function pointerOn(canvas, range, { mayChoose = false } = {}) {
    let from = null;
    const time = (event) => {
      const box = canvas.getBoundingClientRect();
      return Math.min(Math.max(timeAt(event.clientX - box.left, box.width, range()), 0), duration);
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = { x: event.clientX, time: time(event) };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (from && mayChoose && event.pointerType !== "touch" && Math.abs(event.clientX - from.x) > 5) {
        chosen = [from.time, time(event)].sort((a, b) => a - b);
        draw();
      }
    });
    canvas.addEventListener("pointerup", (event) => {
      if (!from) return;
      from = null;
      if (chosen && byId("from")) {
        byId("from").value = clockFine(chosen[0]);
        byId("to").value = clockFine(chosen[1]);
        byId("passage").querySelector("button").focus();
      } else {
        seek(time(event));
        if (canvas === scoreCanvas) byId("seek").focus({ preventScroll: true });
      }
    });
    canvas.addEventListener("pointercancel", () => { from = null; });
  }
  const clockFine = (seconds) => {
    const whole = clock(seconds);
    const tenths = Math.floor((seconds - Math.floor(seconds)) * 10);
    return `${whole}.${tenths}`;
  };
  pointerOn(scoreCanvas, () => window_, { mayChoose: true });
  pointerOn(overview, () => [0, duration]);
  for (const lane of lanes) pointerOn(lane.canvas, () => window_);

  const hint = byId("hint");
  scoreCanvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    const box = scoreCanvas.getBoundingClientRect();
    const time = timeAt(event.clientX - box.left, box.width);
    const number = utteranceAt(time);
    const one = number >= 0 ? utterances[number] : null;
    const words = number >= 0 ? wordsOf(number).map((w) => w.textContent).join(" ") : "";
    const short = words.length > 90 ? `${words.slice(0, 90)}...` : words;
    hint.textContent = [clock(time), one && one[SCORE] !== null ? signed(one[SCORE]) : "", short].filter(Boolean).join("  ");
    hint.hidden = false;
    const x = event.clientX - box.left;
    hint.style.left = x > box.width / 2 ? "" : `${x + 12}px`;
    hint.style.right = x > box.width / 2 ? `${box.width - x + 12}px` : "";
  });
  scoreCanvas.addEventListener("pointerleave", () => { hint.hidden = true; });

  function step(direction) {
    const starts = utterances.map((one) => one[START]);
    const next = direction > 0 ? starts.find((s) => s > position + 0.01) : starts.findLast((s) => s < position - 0.01);
    if (next !== undefined) seek(next);
  }
  const stride = () => Math.max((window_[1] - window_[0]) / 100, 0.1);
  const keys = {
    ArrowLeft: () => seek(position - stride()),
    ArrowRight: () => seek(position + stride()),
    ArrowDown: () => seek(position - stride()),
    ArrowUp: () => seek(position + stride()),
    PageDown: () => step(1),
    PageUp: () => step(-1),
    Home: () => seek(0),
    End: () => seek(duration),
    " ": () => { if (playable) media.paused ? media.play().catch(() => {}) : media.pause(); },
  };
  byId("seek").addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });
  // Elsewhere on the page left and right seek, too, where nothing else wants them.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.target.closest("input, video, audio, a, nav")) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      keys[event.key]();
    }
  });

  document.addEventListener("click", (event) => {
    const go = event.target.closest("button.seek");
    const word = event.target.closest(".w");
    if (go) seek(Number(go.dataset.to));
    else if (word) seek(Number(word.dataset.s));
    const out = event.target.closest(".leave-out");
    if (out) {
      const number = Number(out.dataset.number);
      if (!leftOut.delete(number)) leftOut.add(number);
      followLeftOut();
    }
  });
  byId("passage")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const from = secondsOf(byId("from").value), to = secondsOf(byId("to").value);
    const note = byId("passage-note");
    if (from === null || to === null || from >= to) {
      note.textContent = "Give two times, such as 0:05 and 1:20, the first one earlier.";
      return;
    }
    const number = leaveOut(from, to);
    chosen = null;
    note.textContent = number ? `${number} ${number === 1 ? "utterance" : "utterances"} left out.` : "No scored utterance has its middle in that passage.";
    draw();
  });
  byId("include-all")?.addEventListener("click", () => {
    leftOut.clear();
    byId("passage-note").textContent = "Everything is included.";
    followLeftOut();
  });

  // Begin

  readColours();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); draw(); });
  new ResizeObserver(draw).observe(document.body);
  setWindow(0, duration > 600 ? 300 : duration);
  followLeftOut();
  const asked = /^#t=([\d.]+)$/.exec(location.hash);
  if (asked) {
    media.addEventListener("loadedmetadata", () => seek(Number(asked[1])), { once: true });
    seek(Number(asked[1]));
    byId("play").scrollIntoView();
  }
  showNow();
  document.documentElement.dataset.ready = "yes";
  // What tests look at.
  globalThis.timelinePage = { summarised, trend: () => shown.trend, turning: () => shown.turning, position: () => position, leaveOut };
})();
