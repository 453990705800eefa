// A call's page: steps in a dialog, and the chart of its turns.
"use strict";
(() => {
  // A step's own page is fetched into the dialog; without a script, the link leads to that page.
  const dialog = document.getElementById("entry-dialog");
  let opener = null;
  const open = async (href) => {
    const response = await fetch(href, { headers: { Accept: "text/html" } });
    if (response.redirected || !response.ok) {
      location.assign(href);
      return;
    }
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    dialog.replaceChildren(document.adoptNode(page.getElementById("entry")));
    if (!dialog.open) dialog.showModal();
    dialog.querySelector("[data-close]").focus();
  };
  const close = () => dialog.close();
  document.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    const link = event.target.closest("a[data-entry]");
    if (link) {
      event.preventDefault();
      opener = link;
      open(link.getAttribute("href"));
      return;
    }
    if (!dialog.contains(event.target)) return;
    const inside = event.target.closest("a[rel], a[data-close]");
    if (inside) {
      event.preventDefault();
      if (inside.hasAttribute("data-close")) close();
      else open(inside.getAttribute("href"));
    } else if (event.target === dialog) close();
  });
  dialog.addEventListener("keydown", (event) => {
    const rel = { j: "next", k: "prev", ArrowRight: "next", ArrowLeft: "prev" }[event.key];
    const link = rel && dialog.querySelector(`a[rel="${rel}"]`);
    if (!rel) return;
    event.stopPropagation();
    event.preventDefault();
    if (link) open(link.getAttribute("href"));
  });
  dialog.addEventListener("close", () => {
    if (opener?.isConnected) opener.focus();
    dialog.replaceChildren();
  });

  // The recording: a waveform above the browser's own player, and each line of the transcript plays from where it was said.
  const wave = document.querySelector("[data-wave]");
  const audio = wave?.parentElement.querySelector("audio");
  const drawWave = async () => {
    const response = await fetch(wave.dataset.wave);
    if (!response.ok) return;
    const peaks = await response.json();
    if (!peaks[0].length) return;
    const colours = { waveColor: resolved("--dim"), progressColor: resolved("--accent") };
    const surfer = WaveSurfer.create({
      container: wave, media: audio, peaks, duration: Number(wave.dataset.seconds), cspNonce: wave.dataset.nonce,
      height: 44, barWidth: 2, barGap: 1, barRadius: 1, cursorColor: resolved("--text"),
      splitChannels: [{ ...colours, height: 44 }, { ...colours, height: 44 }],
    });
    wave.classList.add("drawn");
    document.addEventListener("offhook:theme", () => location.reload());
    return surfer;
  };
  const showPlays = () => {
    if (!audio) return;
    for (const button of document.querySelectorAll("[data-play]")) {
      button.hidden = Number(button.dataset.play) < Number(wave.dataset.offset);
    }
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-play]");
    if (!button || !audio) return;
    audio.currentTime = Math.max(0, Number(button.dataset.play) - Number(wave.dataset.offset) - 0.5);
    audio.play();
  });

  // The chart reads the table beneath it, so that both say the same.
  let plot = null;
  let drawn = "";
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
  // A custom property holds `light-dark(...)` as it is written: have it worked out by an element.
  const resolved = (name) => {
    const probe = document.createElement("i");
    probe.style.color = colour(name);
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const draw = (again = false) => {
    const holder = document.querySelector("[data-chart=turns]");
    const table = document.getElementById("turn-table");
    if (!holder || !table || !window.uPlot) return;
    const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => parseFloat(cell.textContent)));
    const key = JSON.stringify(rows);
    if (!again && key === drawn && plot) return;
    drawn = key;
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent).slice(1, -1);
    const parts = names.map((_, part) => rows.map((row) => (Number.isNaN(row[part + 1]) ? 0 : row[part + 1])));
    // Stacked: each step stands on those before it. The tallest is drawn first, the others over it.
    const heights = parts.map((_, part) =>
      rows.map((_, turn) => parts.slice(0, part + 1).reduce((sum, values) => sum + values[turn], 0)),
    );
    const colours = ["--strong-line", "--info", "--violet", "--warn", "--accent"].map(resolved);
    const dim = resolved("--dim");
    const line = resolved("--line");
    const bars = uPlot.paths.bars({ size: [0.5, 42], align: 0 });
    const series = names
      .map((name, part) => ({ label: name, fill: colours[part], stroke: colours[part], width: 0, paths: bars, points: { show: false }, values: parts[part], height: heights[part] }))
      .reverse();
    if (plot) plot.destroy();
    holder.replaceChildren();
    holder.classList.add("drawn");
    const size = () => ({ width: holder.clientWidth, height: 200 });
    plot = new uPlot(
      {
        ...size(),
        scales: { x: { time: false, range: [0.5, rows.length + 0.5] }, y: { range: (_, __, top) => [0, Math.max(top * 1.1, 100)] } },
        legend: { show: true, live: false },
        cursor: { y: false, drag: { x: false, y: false } },
        axes: [
          { stroke: dim, grid: { show: false }, ticks: { stroke: line }, incrs: [1, 2, 5, 10, 20, 50, 100], values: (_, at) => at.map((turn) => (Number.isInteger(turn) && turn > 0 && turn <= rows.length ? `turn ${turn}` : "")) },
          { stroke: dim, grid: { stroke: line, width: 1 }, ticks: { show: false }, size: 62, values: (_, at) => at.map((ms) => `${ms} ms`) },
        ],
        series: [
          { label: "turn", value: (_, turn) => (turn == null ? "" : String(turn)) },
          ...series.map((one) => ({ label: one.label, fill: one.fill, stroke: one.stroke, width: 0, paths: one.paths, points: one.points, value: (_, __, ___, turn) => (turn == null ? "" : `${Math.round(one.values[turn])} ms`) })),
        ],
      },
      [rows.map((_, turn) => turn + 1), ...series.map((one) => one.height)],
      holder,
    );
  };
  draw();
  if (wave && window.WaveSurfer) {
    drawWave();
    showPlays();
  }
  document.addEventListener("htmx:after:swap", () => {
    draw();
    showPlays();
  });
  document.addEventListener("offhook:theme", () => draw(true));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(true));
  let resizing = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(resizing);
    resizing = requestAnimationFrame(() => {
      const holder = document.querySelector("[data-chart=turns]");
      if (plot && holder) plot.setSize({ width: holder.clientWidth, height: 200 });
    });
  });
})();
