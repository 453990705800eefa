// The charts of the page of capacity. They read the table beneath them, so that both say the same.
"use strict";
(() => {
  const table = document.getElementById("figures");
  if (!table || !window.uPlot) return;
  const rows = [...table.tBodies[0].rows].map((row) =>
    [...row.cells].map((cell) => (cell.dataset.value === "" ? null : Number(cell.dataset.value))),
  );
  const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const width = Number(table.dataset.width);
  const HEIGHT = 190;

  // A custom property holds `light-dark(...)` as it is written: have it worked out by an element.
  const colour = (name) => {
    const probe = document.createElement("i");
    probe.style.color = getComputedStyle(document.documentElement).getPropertyValue(name);
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const COLOURS = {
    bars: ["--accent", "--strong-line", "--bad"],
    steps: ["--accent"],
    points: ["--accent", "--warn"],
  };
  const hours = (rows.length * width) / 3600;
  const two = (number) => String(number).padStart(2, "0");
  const moment = (seconds) => {
    const at = new Date(seconds * 1000);
    const clock = `${two(at.getHours())}:${two(at.getMinutes())}`;
    return hours > 24 ? `${at.getMonth() + 1}-${two(at.getDate())} ${clock}` : clock;
  };
  const tick = (seconds) => {
    const at = new Date(seconds * 1000);
    return hours > 24 ? `${at.getMonth() + 1}-${two(at.getDate())}` : `${two(at.getHours())}:${two(at.getMinutes())}`;
  };
  const number = (value, unit) => {
    if (value == null) return "—";
    const text = Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 2 : 1);
    return unit ? `${text} ${unit}` : text;
  };

  const plots = [];
  const draw = () => {
    for (const plot of plots.splice(0)) plot.destroy();
    const [dim, line] = ["--dim", "--line"].map(colour);
    for (const holder of document.querySelectorAll("[data-plot]")) {
      const kind = holder.dataset.plot;
      const columns = holder.dataset.columns.split(",").map(Number);
      const unit = holder.dataset.unit;
      const shown = columns.map((column) => rows.map((row) => row[column]));
      // Stacked bars: each stands on those before it. The tallest is drawn first, the others over it.
      const heights = shown.map((values, part) =>
        kind === "bars" ? values.map((_, at) => shown.slice(0, part + 1).reduce((sum, one) => sum + one[at], 0)) : values,
      );
      const paths = { bars: uPlot.paths.bars({ size: [0.8, 24], align: 1 }), steps: uPlot.paths.stepped({ align: 1 }) }[kind];
      const order = columns.map((_, part) => part);
      if (kind === "bars") order.reverse();
      const series = order.map((part) => {
        const stroke = colour(COLOURS[kind][part]);
        return {
          label: names[columns[part]],
          stroke,
          fill: kind === "bars" ? stroke : undefined,
          width: kind === "bars" ? 0 : 2,
          paths,
          spanGaps: false,
          points: kind === "points" ? { show: true, size: 5, fill: stroke } : { show: false },
          value: (_, __, ___, at) => number(at == null ? null : shown[part][at], unit),
        };
      });
      const top = Number(holder.dataset.top || 0);
      const bottom = Number(holder.dataset.bottom || 0);
      holder.replaceChildren();
      holder.classList.add("drawn");
      plots.push(
        new uPlot(
          {
            width: holder.clientWidth,
            height: HEIGHT,
            scales: {
              x: { range: [rows[0][0], rows[rows.length - 1][0] + width] },
              y: { range: (_, __, most) => [bottom, top || Math.max(most * 1.15, unit ? 0.5 : 4)] },
            },
            legend: { show: true, live: true },
            cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
            axes: [
              { stroke: dim, grid: { show: false }, ticks: { stroke: line }, space: 64, values: (_, at) => at.map(tick) },
              {
                stroke: dim,
                grid: { stroke: line, width: 1 },
                ticks: { show: false },
                size: 48,
                incrs: unit || top ? undefined : [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000],
                values: (_, at) => at.map((value) => (unit ? `${value} ${unit}` : String(value))),
              },
            ],
            series: [{ label: "from", value: (_, at) => (at == null ? "—" : moment(at)) }, ...series],
          },
          [rows.map((row) => row[0]), ...order.map((part) => heights[part])],
          holder,
        ),
      );
    }
  };
  draw();
  document.addEventListener("offhook:theme", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let resizing = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(resizing);
    resizing = requestAnimationFrame(() => {
      for (const plot of plots) plot.setSize({ width: plot.root.parentElement.clientWidth, height: HEIGHT });
    });
  });
})();
